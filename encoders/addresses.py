"""Addresses that media may be fetched from: global ones, or within networks that an operator names.

A reference names a host, and whoever owns that name says where it leads: to this machine, its neighbours or the
cloud's own services as well as anywhere else. So it is the address that is judged, in every form in which one
address can hide within another.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Address", "Network", "address_of", "is_global", "is_within"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

UNICAST = IPv6Network("2000::/3")  # all that is given out to be reached
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def address_of(text: str) -> Address:
    """The address that `text` says, out of its IPv4-mapped form.

    Raises:
        ValueError: it says none, or one of this link alone (with a zone).
    """
    found = ip_address(text)
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise ValueError("an address with a zone is of one link alone")
        return found.ipv4_mapped or found
    return found


def is_global(address: Address) -> bool:
    """Whether an address is anybody's to reach: no private, shared, link-local, reserved or multicast one."""
    if isinstance(address, IPv6Address):
        if address in NAT64:
            return is_global(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.sixtofour is not None and not is_global(address.sixtofour):
            return False
        return address in UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of `networks` has the address."""
    return any(address in network for network in networks)
