"""Media by https: from hosts that settings name, or from any at a global address.

Whoever publishes an event chooses where it leads, so nothing on the way is believed. A name is resolved once, its
addresses are judged, and the connection goes to those very addresses, so that a name which answers differently a
moment later changes nothing; the certificate is still that of the name. Redirects are followed by hand, few of them,
and each is judged like the first. Bytes are counted as they come, whatever was declared, and time is bounded as a
whole, so that a drip is no way around. Nothing is decompressed, no proxy of the environment is asked, no credentials
are taken or sent, and of a reference nothing is logged.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
import string
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Self
from urllib.parse import quote, urljoin, urlsplit

import httpcore
import httpx
from msgspec import Struct

from penchant.encoders.addresses import Address, address_of, is_global, is_within
from penchant.encoders.base import Undecodable
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["Fetcher", "Passing", "Resolver", "Target", "target_of"]

PORTS = {"https": 443, "http": 80}
MAX_REDIRECTS = 3
MAX_ADDRESSES = 4  # of a name, tried one after the other
ANY = "*"
OK, NOT_FOUND, GONE = 200, 404, 410
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PASSING = frozenset({408, 425, 429})  # and all from 500 on
FIRST_PASSING = 500

# A name's last label is no number: what is, is an IPv4 address in disguise (2130706433, 0x7f.1).
NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*(?!\d+$|0x)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
)
UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
HEADERS = ((b"accept", b"image/*, audio/*"), (b"accept-encoding", b"identity"), (b"user-agent", b"penchant"))

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class Passing(Exception):
    """A failure that may be over soon.

    Args:
        what: happened; never any of the reference.
    """


class Target(Struct, frozen=True, kw_only=True):
    """Where a reference leads.

    Attributes:
        scheme: "https" or "http".
        host: a name in lower case, or an address.
        port: of the host.
        path: with its query, in ASCII.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """Host and port, as the header `Host` has them: without the port that is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def uri(self) -> str:
        """The whole."""
        return f"{self.scheme}://{self.place}{self.path}"


class Fetcher:
    """Fetches media by https.

    Args:
        settings: which hosts and networks may be reached, how long an attempt and how large a medium may be.
        resolve: gives the addresses of a host; by default the system does.
        tls: whose certificates are trusted; None: those of the authorities that httpx knows, or of `SSL_CERT_FILE`.
    """

    def __init__(
        self, settings: EncoderSettings, *, resolve: Resolver | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolve or system_addresses
        self._tls = tls
        self._hosts = frozenset(canonical(host) for host in settings.media_hosts)

    async def fetch(self, uri: str) -> bytes:
        """What a reference leads to: one attempt.

        Raises:
            Undecodable: there is nothing there to be had, or it must not be ("malformed-uri", "not-allowed",
                "not-found", "not-given", "too-many-redirects", "untrusted", "unsupported-encoding", "too-large").
            Passing: it could not be had now.
        """
        target = self.checked(uri)
        for _ in range(1 + MAX_REDIRECTS):
            try:
                found = await self._get(target, await self._addresses(target))
            except httpcore.ProtocolError as error:
                raise Passing(type(error).__name__) from None
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                if not_trusted(error):
                    raise Undecodable("The host does not prove to be what it is called", reason="untrusted") from None
                raise Passing(type(error).__name__) from None
            if isinstance(found, bytes):
                return found
            target = found
        raise Undecodable(f"The reference is redirected more than {MAX_REDIRECTS} times", reason="too-many-redirects")

    def checked(self, uri: str) -> Target:
        """Where a reference leads, which is a host that may be asked.

        Raises:
            Undecodable: it leads nowhere ("malformed-uri"), or elsewhere ("not-allowed").
        """
        target = target_of(uri)
        if target.scheme == "http" and not self._settings.media_http:
            raise Undecodable("Nothing is fetched by http:", reason="not-allowed")
        if not self._is_named(target) and not (ANY in self._hosts and target.port == PORTS[target.scheme]):
            raise Undecodable("The host is none of those allowed", reason="not-allowed")
        return target

    def _is_named(self, target: Target) -> bool:
        return target.place in self._hosts

    async def _addresses(self, target: Target) -> list[Address]:
        """The addresses of a host, if all of them may be reached: one that may not is no accident."""
        try:
            found = [address_of(address) for address in await self._resolve(target.host, target.port)]
        except ValueError:
            raise Undecodable("The host has an address that is none", reason="not-allowed") from None
        except OSError as error:
            raise Passing(type(error).__name__) from None
        if not found:
            raise Passing("no address")
        networks = self._settings.media_networks if self._is_named(target) else ()
        if not all(is_global(address) or is_within(address, networks) for address in found):
            raise Undecodable("The host has an address that must not be reached", reason="not-allowed")
        return list(dict.fromkeys(found))[:MAX_ADDRESSES]

    async def _get(self, target: Target, addresses: Sequence[Address]) -> bytes | Target:
        """What is there, or where it is instead."""
        network = Pinned(addresses, patience_s=self._settings.media_timeout_s / 2)
        connection = httpcore.AsyncHTTPConnection(
            httpcore.Origin(target.scheme.encode(), target.host.encode(), target.port),
            ssl_context=self._trusted(),
            network_backend=network,
        )
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        headers = [(b"host", target.place.encode()), *HEADERS]
        async with network, connection, connection.stream("GET", url, headers=headers) as response:
            fields = {name.lower(): value for name, value in response.headers}
            if response.status in REDIRECTS and b"location" in fields:
                return self.checked(joined(target, fields[b"location"]))
            check_status(response.status)
            if fields.get(b"content-encoding", b"identity").strip().lower() not in {b"", b"identity"}:
                raise Undecodable("The content is encoded", reason="unsupported-encoding")
            return await self._body(response.aiter_stream(), fields.get(b"content-length", b""))

    async def _body(self, chunks: AsyncIterable[bytes], declared: bytes) -> bytes:
        """The bytes of an answer, as long as they are few enough."""
        most = self._settings.max_media_bytes
        if declared.isdigit() and (len(declared) > len(str(most)) or int(declared) > most):
            raise Undecodable(f"There are more than {most} bytes", reason="too-large")
        content = bytearray()
        async for chunk in chunks:
            content += chunk
            if len(content) > most:
                raise Undecodable(f"There are more than {most} bytes", reason="too-large")
        return bytes(content)

    def _trusted(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls


class Pinned(httpcore.AsyncNetworkBackend):
    """Connects to given addresses, whatever the host is called; a context manager, which closes what it has opened.

    httpcore leaves a connection open that ends while it is negotiated, as by the end of an attempt's time.

    Args:
        addresses: tried one after the other.
        patience_s: for all of them together.
    """

    def __init__(self, addresses: Sequence[Address], *, patience_s: float) -> None:
        self._addresses = [str(address) for address in addresses]
        self._patience_s = patience_s / len(addresses)
        self._network = httpcore.AnyIOBackend()
        self._opened: list[httpcore.AsyncNetworkStream] = []

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002  the base class's signature
        port: int,
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  the base class's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address that takes one."""
        *others, last = self._addresses
        connect = partial(
            self._network.connect_tcp,
            port=port,
            timeout=self._patience_s,
            local_address=local_address,
            socket_options=socket_options,
        )
        for address in others:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                self._opened.append(await connect(address))
                return self._opened[-1]
        self._opened.append(await connect(last))
        return self._opened[-1]

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await self._network.sleep(seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for stream in self._opened:
            await stream.aclose()


def target_of(uri: str) -> Target:
    """Reads a reference, strictly: what two programs might read in two ways is none.

    Raises:
        Undecodable: it is none ("malformed-uri"), or neither https: nor http: ("not-allowed").
    """
    if UNSAFE.search(uri):
        raise Undecodable("The reference has characters that no URI has", reason="malformed-uri")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        raise Undecodable("The reference is no URI", reason="malformed-uri") from None
    if parts.scheme not in PORTS:
        raise Undecodable("The reference leads to what is not fetched", reason="not-allowed")
    if "@" in parts.netloc:
        raise Undecodable("The reference has credentials", reason="not-allowed")
    host = parts.hostname or ""
    # Before its case is changed: there are letters outside ASCII whose small ones are within.
    if not parts.netloc.isascii() or not (address(host) if parts.netloc.startswith("[") else named(host)):
        raise Undecodable("The reference names no host", reason="malformed-uri")
    return Target(
        scheme=parts.scheme,
        host=address(host) or host,
        port=PORTS[parts.scheme] if port is None else port,
        path=quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=string.punctuation),
    )


def address(host: str) -> str:
    """An address in its one usual form; empty for anything else, and for one of some link alone."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return ""
    return "" if "%" in host else str(found)


def named(host: str) -> bool:
    """Whether a host is a name, or an IPv4 address in its usual form."""
    return bool(NAME.fullmatch(host)) or (":" not in host and bool(address(host)))


def joined(target: Target, location: bytes) -> str:
    """Where a redirect leads that is given relative to its origin.

    Raises:
        Undecodable: nowhere ("malformed-uri").
    """
    try:
        return urljoin(target.uri, location.decode("ascii"))
    except ValueError:
        raise Undecodable("The redirect leads to what is no URI", reason="malformed-uri") from None


def canonical(host: str) -> str:
    """A host of the settings as `Target.place` says it.

    Raises:
        ConfigurationError: it is none.
    """
    if host == ANY:
        return ANY
    try:
        return target_of(f"https://{host}").place
    except Undecodable:
        raise ConfigurationError(
            f"encoders.media_hosts: {host} is no host", hint="Name each as host or host:port, without a scheme."
        ) from None


def check_status(status: int) -> None:
    """Refuses all but success.

    Raises:
        Undecodable: there is nothing ("not-found"), or it is not to be had ("not-given").
        Passing: not now.
    """
    if status == OK:
        return
    if status in {NOT_FOUND, GONE}:
        raise Undecodable("There is nothing there", reason="not-found")
    if status in PASSING or status >= FIRST_PASSING:
        raise Passing(f"status {status}")
    raise Undecodable(f"The host does not give it (status {status})", reason="not-given")


def not_trusted(error: BaseException | None) -> bool:
    """Whether a connection failed because of the other side's certificate."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


async def system_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system resolves it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
