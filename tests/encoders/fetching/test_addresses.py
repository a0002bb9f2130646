"""Where a name may lead: redirects, networks, certificates, addresses."""

import asyncio
import socket

import pytest
import trustme

from penchant.encoders.addresses import address_of, is_global
from penchant.encoders.media import MediaReader
from penchant.settings import EncoderSettings
from tests.encoders.fetching.rig import (
    CONTENT,
    HOST,
    PLAIN,
    Names,
    allowing,
    answer,
    outcome,
    reader_of,
    serving,
)


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "https://127.0.0.1/", "https://[::1]/", "http://169.254.169.254/latest/meta-data/"),
        *("https://169.254.169.254/", "file:///etc/passwd", "ftp://media.test/", "gopher://media.test:70/", "data:,x"),
        *("//other.test/", "https://media.test/", "https://media.test:1/", "https://user:word@media.test/"),
        *("http://media.test/", "javascript:alert(1)"),
    ],
)
async def test_a_redirect_leads_nowhere_else(host, tls, location):
    """Each is judged like the first reference, whatever it leads to."""
    names = Names(**{"other.test": (["127.0.0.1"],)})
    found = await outcome(reader_of(host, tls, names), f"https://{HOST}:{host.port}/to?{location}")
    assert found == "not-allowed"
    assert len(host.asked) == 1
    assert set(names.asked) == {HOST}


@pytest.mark.parametrize("location", ["https://[/", "https://2130706433/", "https://a b/", "https://%00/", "https://"])
async def test_a_redirect_to_no_uri_is_refused(host, tls, monkeypatch, location):
    """And raises nothing else."""
    monkeypatch.setitem(PLAIN, "/odd", answer(302, location=location))
    found = await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/odd")
    assert found in {"malformed-uri", "too-many-redirects"}


@pytest.mark.parametrize("allowed", [(HOST,), ("*",), ("*", HOST)])
@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),  # noqa: S104
        *("192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1", "fc00::1"),
        *("fd00:ec2::254", "::ffff:127.0.0.1", "::127.0.0.1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1"),
        *("64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2001::1", "2001:db8::1", "ff02::1", "fec0::1", "fe80::1%eth0"),
        *("127.0.0.1 ", "nonsense"),
    ],
)
async def test_no_name_leads_to_what_is_not_global(address, allowed):
    """However an address is dressed, alone or among others, and even if the host is named."""
    settings = EncoderSettings(media_hosts=allowed)
    for answers in ([address], ["93.184.215.14", address]):
        assert await outcome(MediaReader(settings, resolve=Names(answers)), f"https://{HOST}/") == "not-allowed"


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_what_is_global_may_be_reached(address):
    """Global addresses, and those that stand for such."""
    assert is_global(address_of(address))


async def test_networks_are_open_to_named_hosts_alone(host, tls):
    """Where any host may be named, none of them leads into a network that is open to those of the settings."""
    settings = allowing(host, media_hosts=("*", f"{HOST}:{host.port}"))
    names = Names(**{"other.test": (["127.0.0.1"],)})
    reader = MediaReader(settings, resolve=names, tls=tls)
    assert await outcome(reader, f"https://{HOST}:{host.port}/ok") == CONTENT
    assert await outcome(reader, "https://other.test/ok") == "not-allowed"
    assert await outcome(reader, "https://127.0.0.1/ok") == "not-allowed"
    assert await outcome(reader, f"https://{HOST}/ok") == "not-allowed"  # its own port was named, not this one


async def test_a_name_that_changes_its_answer_changes_nothing(host, tls, authority):
    """The addresses that were judged are those that are connected to: a name is asked once, on each hop."""
    async with serving(authority=authority, address="127.0.0.2", port=host.port) as other:
        other.content = b"taken elsewhere"
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        assert await outcome(reader_of(host, tls, names), f"https://{HOST}:{host.port}/own") == CONTENT
        assert names.asked == [HOST]
        assert other.asked == []
        names = Names(["127.0.0.1"], ["169.254.169.254"])
        assert await outcome(reader_of(host, tls, names), f"https://{HOST}:{host.port}/to?/own") == "not-allowed"


async def test_the_next_address_is_tried(host, tls):
    """Of a host with several addresses, one is enough."""
    names = Names(["127.0.0.3", "127.0.0.1"])
    assert await outcome(reader_of(host, tls, names), f"https://{HOST}:{host.port}/ok") == CONTENT


@pytest.mark.parametrize(
    ("answer_of", "reason"),
    [
        (socket.gaierror(socket.EAI_NONAME, "unknown"), "unavailable"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "unavailable"),
        ([], "unavailable"),
        (["127.0.0.4"], "unavailable"),  # where nobody listens
    ],
)
async def test_a_host_that_is_not_there_is_waited_for_a_little(host, tls, answer_of, reason):
    """Three times, and then its medium is refused."""
    names = Names(answer_of)
    assert await outcome(reader_of(host, tls, names), f"https://{HOST}:{host.port}/ok") == reason
    assert len(names.asked) == 3


async def test_a_name_that_is_never_answered_is_given_up(host, tls):
    """Resolving is part of the time that an attempt has."""

    async def never(host, port):
        await asyncio.sleep(600)

    assert (
        await outcome(reader_of(host, tls, never, media_timeout_s=0.1), f"https://{HOST}:{host.port}/ok")
        == "unavailable"
    )


async def test_the_certificate_is_that_of_the_name(tls, authority):
    """Neither another name's, nor one that nobody has certified, nor none at all."""
    async with serving(authority=authority, name="other.test") as other:
        assert await outcome(reader_of(other, tls), f"https://{HOST}:{other.port}/ok") == "untrusted"
        assert other.asked == []
    async with serving(authority=trustme.CA()) as unknown:
        assert await outcome(reader_of(unknown, tls), f"https://{HOST}:{unknown.port}/ok") == "untrusted"
    async with serving() as plain:
        reader = reader_of(plain, tls, media_timeout_s=0.2)
        assert await outcome(reader, f"https://{HOST}:{plain.port}/ok") == "unavailable"
    async with serving(authority=authority) as host:  # of those that everybody trusts, none has certified it
        assert await outcome(reader_of(host, None), f"https://{HOST}:{host.port}/ok") == "untrusted"


async def test_http_is_fetched_where_settings_say_so(tls):
    """And nowhere else."""
    async with serving() as plain:
        uri = f"http://{HOST}:{plain.port}/ok"
        assert await outcome(reader_of(plain, tls), uri) == "not-allowed"
        assert await outcome(reader_of(plain, tls, media_http=True), uri) == CONTENT


async def test_an_address_may_be_named(tls, authority):
    """A host that settings name by its address is reached by it, and proves that it has it."""
    async with serving(authority=authority, name="127.0.0.1") as host:
        settings = {"media_hosts": (f"127.0.0.1:{host.port}",)}
        assert await outcome(reader_of(host, tls, **settings), f"https://127.0.0.1:{host.port}/ok") == CONTENT
        assert "host: 127.0.0.1:" in "".join(host.asked[0]).lower()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_an_address_of_ipv6_may_be_named(tls, authority):
    """In brackets, and in whatever form."""
    try:
        async with serving(authority=authority, name="::1", address="::1") as host:
            settings = {"media_hosts": (f"[0::1]:{host.port}",), "media_networks": ("::1/128",)}
            assert await outcome(reader_of(host, tls, **settings), f"https://[0:0::1]:{host.port}/ok") == CONTENT
            assert f"host: [::1]:{host.port}" in host.asked[0]
    except OSError:
        pytest.skip("this machine's loopback has no IPv6")
