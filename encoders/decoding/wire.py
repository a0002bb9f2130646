"""What a worker and a process that decodes for it say to each other: a message, then bytes as they are.

Each is preceded by its length. Whoever has taken over a decoder writes what it likes, so the worker reads no more
than it has asked for, and nothing that could become code.
"""

import socket
import struct
import time
from typing import TypeVar

import msgspec
from msgspec import Struct
from msgspec.msgpack import Decoder

__all__ = [
    "Answer",
    "Bounds",
    "Ended",
    "Picture",
    "Pixels",
    "Question",
    "Ready",
    "Refused",
    "Samples",
    "Sound",
    "receive",
    "send",
]

LENGTHS = struct.Struct("<II")  # of the message and of the bytes that follow it
MAX_MESSAGE_BYTES = 4_096


class Bounds(Struct, frozen=True, kw_only=True):
    """What one input may be, as in the settings of encoders."""

    max_media_bytes: int
    max_pixels: int
    max_audio_s: float


class Picture(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the pixels of the picture that follows."""

    side: int
    squeezed: bool


class Sound(Struct, frozen=True, kw_only=True, tag=True):
    """Asks for the samples of the sound that follows."""


class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """Everything is loaded and given up: foreign bytes may come."""


class Pixels(Struct, frozen=True, kw_only=True, tag=True):
    """What follows is of shape (height, width, 3), uint8."""

    height: int
    width: int

    def fits(self, size: int) -> bool:
        """Whether that is of so many bytes."""
        return min(self.height, self.width) > 0 and 3 * self.height * self.width == size


class Samples(Struct, frozen=True, kw_only=True, tag=True):
    """What follows is of shape (frames,), float64, at so many Hz."""

    frames: int
    rate: int

    def fits(self, size: int) -> bool:
        """Whether that is of so many bytes."""
        return self.rate > 0 and self.frames > 0 and 8 * self.frames == size


class Refused(Struct, frozen=True, kw_only=True, tag=True):
    """The input cannot be used."""

    reason: str
    detail: str


Question = Picture | Sound
Answer = Ready | Pixels | Samples | Refused
Message = TypeVar("Message")


class Ended(Exception):
    """The other side is there no more, or does not say what it should."""


def send(
    connection: socket.socket,
    message: Question | Answer,
    content: bytes | memoryview = b"",
    *,
    deadline: float | None = None,
) -> None:
    """Says `message`, followed by `content`.

    Args:
        connection: to the other side.
        message: what is said.
        content: what follows it.
        deadline: when to give up, by the monotonic clock in seconds.

    Raises:
        Ended: nobody listens.
        TimeoutError: the deadline is over.
    """
    encoded = msgspec.msgpack.encode(message)
    try:
        for part in (LENGTHS.pack(len(encoded), len(content)) + encoded, content):
            await_until(connection, deadline)
            connection.sendall(part)
    except TimeoutError:
        raise
    except OSError:
        raise Ended from None


def receive(
    connection: socket.socket, decoder: Decoder[Message], *, at_most: int, deadline: float | None = None
) -> tuple[Message, bytearray]:
    """The next message, with the bytes that follow it.

    Args:
        connection: to the other side.
        decoder: of the message.
        at_most: bytes that follow.
        deadline: when to give up, by the monotonic clock in seconds.

    Raises:
        Ended: nobody speaks any more, or something else.
        TimeoutError: the deadline is over.
    """
    try:
        length, size = LENGTHS.unpack(exactly(connection, LENGTHS.size, deadline))
        if length > MAX_MESSAGE_BYTES or size > at_most:
            raise Ended
        message = decoder.decode(exactly(connection, length, deadline))
        return message, exactly(connection, size, deadline)
    except TimeoutError:
        raise
    except (OSError, msgspec.MsgspecError):
        raise Ended from None


def exactly(connection: socket.socket, size: int, deadline: float | None) -> bytearray:
    """So many bytes."""
    content = bytearray(size)
    rest = memoryview(content)
    while rest:
        await_until(connection, deadline)
        received = connection.recv_into(rest)
        if not received:
            raise Ended
        rest = rest[received:]
    return content


def await_until(connection: socket.socket, deadline: float | None) -> None:
    """Sets how long the next call may wait."""
    if deadline is None:
        return
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
