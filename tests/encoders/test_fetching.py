"""Hosts of the tests' own, on loopback alone, that behave as badly as hosts can."""

import asyncio
import contextlib
import gc
import gzip
import socket
import ssl
import threading
from pathlib import Path

import pytest
import structlog
import trustme

from penchant.encoders.addresses import address_of, is_global
from penchant.encoders.base import Undecodable
from penchant.encoders.fetch import Fetcher
from penchant.encoders.media import AT_ONCE_A_HOST, MediaReader
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

HOST = "media.test"
CONTENT = b"the picture"
MOST = 10_000
NO_PAUSES = (0.0, 0.0)


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks():
    """Whatever hosts do, no thread and no descriptor stays behind."""
    gc.collect()
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    yield
    gc.collect()
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files


@pytest.fixture(scope="module")
def authority():
    """Certifies the test's hosts."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    """Trusts that authority and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def answer(status=200, body=CONTENT, **headers):
    """An answer as HTTP has it, with the length of its body unless told otherwise."""
    fields = {"content-length": len(body)} | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


async def endless(writer, piece, pause_s=0.0):
    """Writes the same over and over, until nobody listens."""
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pause_s)


BOMB = gzip.compress(bytes(50 * 2**20))
PLAIN = {
    "/ok": answer(),
    "/empty": answer(body=b""),
    "/chunked": b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nb\r\nthe picture\r\n0\r\n\r\n",
    "/until-closed": answer(content_length=None),
    "/says-more": answer(content_length=500),
    "/says-less": answer(content_length=3),
    "/says-two": b"HTTP/1.1 200 X\r\ncontent-length: 3\r\ncontent-length: 9\r\n\r\nthe picture",
    "/says-negative": answer(content_length=-1),
    "/says-endless": answer(content_length=10**15),
    "/says-large": answer(content_length=MOST + 1),
    "/is-large": answer(body=bytes(MOST + 1), content_length=None),
    "/is-largest": answer(body=bytes(MOST)),
    "/bomb": answer(body=BOMB, content_encoding="gzip"),
    "/encoded": answer(body=gzip.compress(CONTENT), content_encoding="gzip"),
    "/as-it-is": answer(content_encoding="identity"),
    "/404": answer(404),
    "/410": answer(410),
    "/401": answer(401),
    "/403": answer(403),
    "/451": answer(451),
    "/204": answer(204, b""),
    "/206": answer(206),
    "/304": answer(304, b""),
    "/300": answer(300, location="/ok"),
    "/302-nowhere": answer(302),
    "/500": answer(500),
    "/503": answer(503),
    "/429": answer(429),
    "/no-http": b"SSH-2.0-OpenSSH_9.9\r\n",
    "/silence": b"",
    "/half": b"HTTP/1.1 200 OK\r\ncontent-le",
    "/header-bomb": b"HTTP/1.1 200 X\r\n" + b"".join(b"a%d: %s\r\n" % (n, b"x" * 1_000) for n in range(500)) + b"\r\n",
    "/long-line": b"HTTP/1.1 200 X\r\na: " + b"x" * 2**20,
    "/twice": answer(301, location="/to?/ok"),
    "/switch": b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + CONTENT,
}
# How it begins, what follows over and over, and the pause between, in seconds.
ENDLESS = {
    "/infinite": (answer(body=b"", content_length=None), bytes(1_000), 0),
    "/infinite-chunks": (answer(body=b"", content_length=None, transfer_encoding="chunked"), b"1\r\nx\r\n", 0),
    "/infinite-headers": (b"HTTP/1.1 200 X\r\n", b"a: b\r\n", 0.01),
    "/infinite-promises": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", 0.01),
    "/drip": (answer(body=b"", content_length=5_000), b"x", 0.05),
    "/never": (b"", b"", 1),
}


class Host:
    """A server on loopback. `asked` are the requests that it had, each as its lines."""

    def __init__(self, port):
        self.port = port
        self.asked = []
        self.at_once = 0
        self.most_at_once = 0
        self.content = CONTENT

    async def serve(self, reader, writer):
        """Answers one request."""
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                request = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                self.asked.append(request)
                await self.behave(request[0].split(" ")[1], writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def behave(self, path, writer):
        """Does what a path asks for."""
        path, _, query = path.partition("?")
        if path in PLAIN:
            writer.write(PLAIN[path])
        elif path in ENDLESS:
            start, piece, pause_s = ENDLESS[path]
            writer.write(start)
            await endless(writer, piece, pause_s)
        elif path == "/second-time":
            writer.write(answer() if len(self.asked) > 1 else answer(503))
        elif path == "/own":
            writer.write(answer(body=self.content))
        elif path == "/slowly":
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(0.05)
            self.at_once -= 1
            writer.write(answer())
        elif path == "/to":
            writer.write(answer(302, location=query))
        elif path == "/round":
            writer.write(answer(307, location=f"/round?{len(self.asked)}"))
        await writer.drain()


@contextlib.asynccontextmanager
async def serving(*, authority=None, name=HOST, address="127.0.0.1", port=0):
    """A host at an address, by https if somebody certifies its name."""
    context = None
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
    host = Host(0)
    tasks = set()

    async def serve(reader, writer):
        tasks.add(asyncio.current_task())
        await host.serve(reader, writer)

    server = await asyncio.start_server(serve, address, port, ssl=context)
    host.port = server.sockets[0].getsockname()[1]
    try:
        yield host
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


class Names:
    """Says where hosts are: the answers of each, one after the other, the last for ever."""

    def __init__(self, *answers, **others):
        self.asked = []
        self._answers = {HOST: answers or (["127.0.0.1"],)} | others

    async def __call__(self, host, _):
        """The next answer."""
        number = sum(1 for asked in self.asked if asked == host)
        self.asked.append(host)
        if host not in self._answers:
            return [host]  # an address is its own
        answers = self._answers[host]
        found = answers[min(number, len(answers) - 1)]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
async def host(authority):
    """A host by https."""
    async with serving(authority=authority) as found:
        yield found


def allowing(host, **settings):
    """Settings that name a test's host, and the network that it is in."""
    settings = {"media_hosts": (f"{HOST}:{host.port}",), "media_networks": ("127.0.0.0/8",)} | settings
    return EncoderSettings(**{"max_media_bytes": MOST, "media_timeout_s": 5} | settings)


def reader_of(host, tls, names=None, **settings):
    """Reads media of a test's host."""
    return MediaReader(allowing(host, **settings), resolve=names or Names(), tls=tls, pauses_s=NO_PAUSES)


async def outcome(reader, uri):
    """The bytes that a reference leads to, or the reason why there are none."""
    async with reader:
        try:
            return await reader.read(uri, None)
        except Undecodable as error:
            refused = error
    assert "test" not in str(refused)
    assert "127" not in str(refused)
    return refused.reason


@pytest.mark.parametrize(
    "path", ["/ok", "/chunked", "/until-closed", "/as-it-is", "/ok?size=1&x=%2F#part", "/to?/ok", "/twice"]
)
async def test_what_is_allowed_is_fetched(host, tls, path):
    """By https, however a host delivers it, and by way of redirects within what is allowed."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == CONTENT


async def test_a_request_says_nothing_that_it_need_not(host, tls, monkeypatch):
    """It names the host, takes nothing encoded, and carries neither credentials nor cookies; no proxy is asked."""
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/to?/ok") == CONTENT
    for request in host.asked:
        fields = dict(line.split(": ", 1) for line in request[1:] if line)
        assert fields == {
            "host": f"{HOST}:{host.port}",
            "accept": "image/*, audio/*",
            "accept-encoding": "identity",
            "user-agent": "penchant",
        }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/empty", "empty"),
        ("/says-endless", "too-large"),
        ("/says-large", "too-large"),
        ("/is-large", "too-large"),
        ("/infinite", "too-large"),
        ("/infinite-chunks", "too-large"),
        ("/bomb", "unsupported-encoding"),
        ("/encoded", "unsupported-encoding"),
        ("/404", "not-found"),
        ("/410", "not-found"),
        ("/401", "not-given"),
        ("/403", "not-given"),
        ("/451", "not-given"),
        ("/204", "not-given"),
        ("/206", "not-given"),
        ("/304", "not-given"),
        ("/300", "not-given"),
        ("/302-nowhere", "not-given"),
        ("/round", "too-many-redirects"),
    ],
)
async def test_what_will_not_pass_is_refused_at_once(host, tls, path, reason):
    """With its reason; no more is asked of the host than it takes to know."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == reason
    assert len(host.asked) == (4 if path == "/round" else 1)


@pytest.mark.parametrize(
    "path",
    [
        *("/500", "/503", "/429", "/no-http", "/silence", "/half", "/header-bomb", "/long-line", "/says-more"),
        *("/says-two", "/says-negative", "/switch"),
    ],
)
async def test_what_may_pass_is_tried_again_and_then_refused(host, tls, path):
    """A few times, and the lane goes on."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}") == "unavailable"
    assert len(host.asked) == 3


async def test_bytes_are_counted_not_believed(host, tls):
    """As many as are allowed are taken, and of what goes on behind the length that is said, nothing."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/is-largest") == bytes(MOST)
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/says-less") == CONTENT[:3]


@pytest.mark.parametrize("path", ["/drip", "/never", "/infinite-headers", "/infinite-promises"])
async def test_time_is_bounded_as_a_whole(host, tls, path):
    """A host that always says a little more holds nothing up for longer than one that says nothing."""
    reader = reader_of(host, tls, media_timeout_s=0.2)
    assert await outcome(reader, f"https://{HOST}:{host.port}{path}") == "unavailable"


async def test_what_has_passed_is_fetched(host, tls):
    """A host that answers the second time gives what it has."""
    assert await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}/second-time") == CONTENT


async def test_a_host_that_has_failed_lately_is_asked_once(host, tls):
    """A thousand references to a host that is down take a thousand attempts, not three thousand, and no pauses."""
    reader = reader_of(host, tls)
    for _ in range(4):
        assert await outcome(reader, f"https://{HOST}:{host.port}/503") == "unavailable"
    assert len(host.asked) == 3 + 1 + 1 + 1


async def test_a_slow_host_takes_a_part_of_the_room(host, tls):
    """Of all that is fetched at once, so much may be from one host, whoever refers to it how often."""
    async with reader_of(host, tls) as reader:
        uri = f"https://{HOST}:{host.port}/slowly"
        assert await asyncio.gather(*(reader.read(uri, None) for _ in range(20))) == [CONTENT] * 20
    assert host.most_at_once == AT_ONCE_A_HOST


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
async def test_a_redirect_to_no_uri_is_refused(host, tls, location):
    """And raises nothing else."""
    PLAIN["/odd"] = answer(302, location=location)
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


ODD_HOSTS = (
    *("2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "-a-", ".", "a.", "a..b", "a:b", "a:99999", ""),
    *(
        "\N{FULLWIDTH DIGIT ONE}27.0.0.1",
        "a\N{IDEOGRAPHIC FULL STOP}test",
        "\N{KELVIN SIGN}.test",
        "a%2ftest",
        "a test",
    ),
    *("[", "[::1", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[v1.x]", "[127.0.0.1]", "evil\\@a.test", "a.test\0"),
)
OTHER_HOSTS = (
    *("user:word@a.test", "a.test@evil.test", "@a.test", "a.test:22", "a.test:80", "a.test:0", "localhost"),
    *("127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::a9fe:a9fe]"),
)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        *((f"https://{host}/", "malformed-uri") for host in ODD_HOSTS),
        *((f"https://{host}/", "not-allowed") for host in OTHER_HOSTS),
        *((uri, "malformed-uri") for uri in ("https:", "https://", "https:a", "https:/a", "https://a.test/\r\nx: y")),
        *(
            (uri, "unsupported-scheme")
            for uri in ("ht\ntps://a.test/", " https://a.test/", "ftp://a.test/", "//a.test/")
        ),
        ("http://a.test/", "not-allowed"),
    ],
)
async def test_a_reference_is_read_strictly(uri, reason):
    """What two programs may read in two ways leads nowhere, and so does every disguise of an address."""
    names = Names(localhost=(["127.0.0.1"],))
    assert await outcome(MediaReader(EncoderSettings(media_hosts=("*",)), resolve=names), uri) == reason
    assert not any("test" in asked for asked in names.asked)


@pytest.mark.parametrize("named", ["1.2.3", "a..b", "[::1::2]", "a:99999"])
def test_a_setting_that_names_no_host_is_said(named):
    """At the start, not at the first reference."""
    with pytest.raises(ConfigurationError, match="media_hosts"):
        MediaReader(EncoderSettings(media_hosts=(named,)))


async def test_a_host_is_none_but_itself(host, tls):
    """Names are compared whole."""
    fetcher = Fetcher(allowing(host), resolve=Names(), tls=tls)
    for name in (f"evil{HOST}", f"{HOST}.evil.test", f"www.{HOST}", HOST.replace(".", "-")):
        with pytest.raises(Undecodable):
            fetcher.checked(f"https://{name}:{host.port}/ok")
    assert fetcher.checked(f"HTTPS://MEDIA.test:{host.port}").uri == f"https://{HOST}:{host.port}/"
    assert fetcher.checked(f"https://{HOST}:{host.port}/ä b".replace(" ", "%20")).path == "/%C3%A4%20b"


async def test_nothing_of_a_reference_is_logged(host, tls, caplog):
    """A reference may hold what only its author should know."""
    caplog.set_level("INFO")
    with structlog.testing.capture_logs() as said:
        for path in ("/ok?secret", "/404?secret", "/503?secret"):
            await outcome(reader_of(host, tls), f"https://{HOST}:{host.port}{path}")
    assert "secret" not in caplog.text + str(said)
    assert HOST not in caplog.text + str(said)


async def test_being_stopped_leaves_nothing(host, tls):
    """What is under way when a worker stops ends there."""
    async with reader_of(host, tls) as reader:
        tasks = [asyncio.create_task(reader.read(f"https://{HOST}:{host.port}/never", None)) for _ in range(20)]
        while len(host.asked) < AT_ONCE_A_HOST:  # noqa: ASYNC110  a real server tells nobody
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True)
        )
        assert await reader.read(f"https://{HOST}:{host.port}/ok", None) == CONTENT
