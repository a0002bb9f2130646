"""Hosts of the tests' own, on loopback alone, that behave as badly as hosts can, and what a reader makes of them."""

import asyncio
import contextlib
import gzip
import ssl

from penchant.encoders.base import Undecodable
from penchant.encoders.media import MediaReader
from penchant.settings import EncoderSettings

HOST = "media.test"
CONTENT = b"the picture"
MOST = 10_000
NO_PAUSES = (0.0, 0.0)


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
