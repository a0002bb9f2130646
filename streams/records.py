"""The records that lanes take in and give out."""

from collections.abc import Mapping
from operator import methodcaller
from sys import intern

from confluent_kafka import Message
from msgspec import Struct

__all__ = ["Output", "Record", "SourceKey", "record_of"]

SourceKey = tuple[str, int]  # topic, partition

# Of a name that is no UTF-8 the client sets an error and returns a list with a hole all the same. A call from C checks
# for that and raises; the interpreter's own call of a method, once it has specialised it, does not, and falls into it.
READ_HEADERS = methodcaller("headers")
NO_HEADERS: Mapping[str, bytes] = {}


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
    try:
        found = READ_HEADERS(message)
    except (SystemError, UnicodeDecodeError):  # a name is no UTF-8: the client can read none of them
        found = None
    return Record(
        topic=intern(str(message.topic())),  # one for all: it is compared and hashed again and again
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp=message.timestamp()[1],
        key=as_bytes(message.key()),
        value=as_bytes(message.value()),
        headers={name: as_bytes(value) or b"" for name, value in found} if found else NO_HEADERS,
    )


def as_bytes(part: str | bytes | None) -> bytes | None:
    """A part of a message; without deserialisers it is always bytes."""
    return part.encode() if isinstance(part, str) else part
