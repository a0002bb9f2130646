"""A Kafka broker that says on demand that its cluster has no brokers, as one does that has just started.

A proxy stands in the address that the broker tells its clients, and passes all bytes but those of such answers.
"""

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from penchant import broker as local
from penchant.broker import HOST, LocalBroker, take_port

__all__ = ["ForgetfulBroker"]

METADATA = 3  # the request's key in Kafka's protocol
FLEXIBLE = 9  # the request's first version whose lengths are numbers of variable size
SIZE, HEAD, CORRELATION, CONTROLLER = (struct.Struct(form) for form in (">i", ">hhi", ">i", ">i"))
NO_BROKERS = b"\x01"  # an array's length and one more
NO_CONTROLLER = CONTROLLER.pack(-1)


class ForgetfulBroker:
    """A running broker behind its proxy; a context manager.

    Args:
        folder: of the broker.
        monkeypatch: has it tell its clients the proxy's address.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._port = take_port(0)
        self._proxy = Proxy(self._port)
        told = local.SERVER_PROPERTIES.replace(
            "advertised.listeners=PLAINTEXT://{host}:{port}",
            f"advertised.listeners=PLAINTEXT://{self.bootstrap_servers}",
        )
        monkeypatch.setattr(local, "SERVER_PROPERTIES", told)

    @property
    def bootstrap_servers(self) -> str:
        """The proxy's address."""
        return f"{HOST}:{self._proxy.server_address[1]}"

    @property
    def forgot(self) -> int:
        """How many answers have named no brokers."""
        return self._proxy.forgot

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.05,), name="forgetful")
        self._thread.start()
        try:
            # Only behind the proxy: whoever waits for the broker is told the proxy's address.
            self._broker = LocalBroker.start(self._folder, self._port, "kafka")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._broker.kill()
        self._end()

    def _end(self) -> None:
        self._proxy.shutdown()
        self._thread.join()
        self._proxy.cut()
        self._proxy.server_close()

    @contextlib.contextmanager
    def forgetful(self) -> Iterator[None]:
        """Breaks all connections, and names no brokers to those who come back, for as long as this lasts."""
        self._proxy.forgetting = True
        self._proxy.cut()
        try:
            yield
        finally:
            self._proxy.forgetting = False


class Proxy(socketserver.ThreadingTCPServer):
    """Passes connections on to a port; `server_close` waits for those that are open."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, target: int) -> None:
        super().__init__((HOST, 0), Link)
        self.target = target
        self.forgetting = False
        self.forgot = 0
        self.open: set[socket.socket] = set()

    def cut(self) -> None:
        """Breaks all connections."""
        for one in list(self.open):
            with contextlib.suppress(OSError):  # it is broken already
                one.shutdown(socket.SHUT_RDWR)


class Link(socketserver.BaseRequestHandler):
    """One connection, as long as both its ends hold it."""

    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.server.target)) as broker:
            ends = {self.request, broker}
            self.server.open |= ends
            self.asked: set[int] = set()
            down = threading.Thread(target=self._down, args=(broker,))
            down.start()
            try:
                for frame in frames(self.request):
                    key, version, correlation = HEAD.unpack_from(frame)
                    if key == METADATA:
                        assert version >= FLEXIBLE, version
                        self.asked.add(correlation)
                    send(broker, frame)
            finally:
                self.server.open -= ends
                broker.shutdown(socket.SHUT_RDWR)
                down.join()

    def _down(self, broker: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for frame in frames(broker):
                (correlation,) = CORRELATION.unpack_from(frame)
                told = frame
                if correlation in self.asked:
                    self.asked.remove(correlation)
                    if self.server.forgetting:
                        self.server.forgot += 1
                        told = without_brokers(frame)
                send(self.request, told)
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_RDWR)  # so that the other way ends as well


def frames(end: socket.socket) -> Iterator[bytes]:
    """Requests or answers, less their sizes, until the connection ends."""
    with end.makefile("rb") as file:
        while len(head := file.read(SIZE.size)) == SIZE.size:
            (size,) = SIZE.unpack(head)
            if len(frame := file.read(size)) < size:
                return
            yield frame


def send(end: socket.socket, frame: bytes) -> None:
    """Sends one on."""
    end.sendall(SIZE.pack(len(frame)) + frame)


def without_brokers(answer: bytes) -> bytes:
    """An answer to a metadata request (version 9 to 13), with its brokers and its controller taken out."""
    at = CORRELATION.size + 1 + 4  # no tagged fields; the time for which the client is throttled
    start = at
    count, at = number(answer, at)
    for _ in range(count - 1):
        at = behind_text(answer, at + 4)  # the broker's id; its host
        at = behind_text(answer, at + 4) + 1  # its port; its rack; no tagged fields
    cluster, at = at, behind_text(answer, at)
    return answer[:start] + NO_BROKERS + answer[cluster:at] + NO_CONTROLLER + answer[at + CONTROLLER.size :]


def number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable size, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def behind_text(data: bytes, at: int) -> int:
    """Where a text ends, if there is one."""
    size, at = number(data, at)
    return at + max(size - 1, 0)
