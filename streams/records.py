"""The records that lanes take in and give out."""

from collections.abc import Mapping, Sequence
from operator import methodcaller
from sys import intern
from typing import cast

from confluent_kafka import Message
from msgspec import Struct

__all__ = ["Output", "Record", "SourceKey", "record_of"]

SourceKey = tuple[str, int]  # topic, partition

# Of a name that is no UTF-8 the client sets an error and returns a list with a hole all the same. A call from C checks
# for that and raises; the interpreter's own call of a method, once it has specialised it, does not, and falls into it.
READ_HEADERS = methodcaller("headers")


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """A record as it came from Kafka.

    Attributes:
        timestamp: of the record, epoch milliseconds.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = {}


class Output(Struct, frozen=True, kw_only=True, gc=False):
    """A record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes] = {}


def record_of(message: Message) -> Record:
    """A consumer's message as a record; of headers of one name the last stands."""
    _, timestamp = message.timestamp()
    return Record(
        topic=intern(str(message.topic())),  # one for all: it is compared and hashed again and again
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp=timestamp,
        key=as_bytes(message.key()),
        value=as_bytes(message.value()),
        headers={name: as_bytes(value) or b"" for name, value in headers_of(message)},
    )


def headers_of(message: Message) -> Sequence[tuple[str, str | bytes | None]]:
    """A message's headers; none where a name is no UTF-8, for the client cannot read those."""
    try:
        return cast("Sequence[tuple[str, str | bytes | None]]", READ_HEADERS(message) or ())
    except (SystemError, UnicodeDecodeError):
        return ()


def as_bytes(part: str | bytes | None) -> bytes | None:
    """A part of a message; without deserialisers it is always bytes."""
    return part.encode() if isinstance(part, str) else part
