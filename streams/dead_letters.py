"""What cannot be used is kept: the original bytes, where they came from, and why.

A dead letter is the original record's key and value on the `dead-letters` topic, with its own headers and these
added. `replay` sends it back to where it came from, without them.

A record may be larger than any topic takes, because the broker judges it as its producer compressed it. Of such a
one the letter holds only where it is and why: it can be read at its origin, as long as the log there keeps it.
"""

from collections.abc import Mapping
from typing import Self

import msgspec
from msgspec import Struct

from penchant.streams.codec import Unusable
from penchant.streams.connection import MAX_RECORD_BYTES
from penchant.streams.records import Output, Record

__all__ = ["DeadLetter", "dead_letter"]

PREFIX = "penchant-"
TOPIC, PARTITION, OFFSET = f"{PREFIX}topic", f"{PREFIX}partition", f"{PREFIX}offset"
TIMESTAMP, REASON, DETAIL = f"{PREFIX}timestamp", f"{PREFIX}reason", f"{PREFIX}detail"
LEFT_OUT = f"{PREFIX}left-out"
MAX_DETAIL = 1_000
# Leaves room for the headers that are added.
MAX_ORIGINAL_BYTES = MAX_RECORD_BYTES - 2**16


def dead_letter(record: Record, error: Unusable, *, topic: str) -> Output:
    """The dead letter of `record`, to be published on `topic`."""
    size = size_of(record)
    left_out = {LEFT_OUT: str(size).encode()} if size > MAX_ORIGINAL_BYTES else {}
    kept = msgspec.structs.replace(record, key=None, value=None, headers={}) if left_out else record
    return Output(
        topic=topic,
        key=kept.key,
        value=kept.value,
        headers={
            **kept.headers,
            **left_out,
            TOPIC: record.topic.encode(),
            PARTITION: str(record.partition).encode(),
            OFFSET: str(record.offset).encode(),
            TIMESTAMP: str(record.timestamp).encode(),
            REASON: error.reason.encode(),
            DETAIL: str(error)[:MAX_DETAIL].encode(),
        },
    )


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A dead letter read back: its origin, why it is here, and the original record.

    Attributes:
        timestamp: of the original record, epoch milliseconds.
        whole: whether key, value and headers are those of the original; else it was too large to be kept.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    detail: str
    whole: bool
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    @classmethod
    def read(cls, record: Record) -> Self:
        """Reads a record of the `dead-letters` topic.

        Raises:
            Unusable: the record lacks the headers of a dead letter.
        """
        try:
            headers = {name: value.decode() for name, value in record.headers.items() if name.startswith(PREFIX)}
            return cls(
                topic=headers[TOPIC],
                partition=int(headers[PARTITION]),
                offset=int(headers[OFFSET]),
                timestamp=int(headers[TIMESTAMP]),
                reason=headers[REASON],
                detail=headers[DETAIL],
                whole=LEFT_OUT not in headers,
                key=record.key,
                value=record.value,
                headers={name: value for name, value in record.headers.items() if not name.startswith(PREFIX)},
            )
        except (KeyError, ValueError):
            raise Unusable("the record lacks the headers of a dead letter", reason="no-dead-letter") from None

    def original(self) -> Output:
        """The original record, to be sent to its topic again.

        Raises:
            Unusable: it was too large to be kept.
        """
        if not self.whole:
            raise Unusable(
                f"the original was too large to be kept here; it is {self.topic}[{self.partition}]@{self.offset}",
                reason="left-out",
            )
        return Output(topic=self.topic, key=self.key, value=self.value, headers=self.headers)


def size_of(record: Record) -> int:
    """Bytes of a record's key, value and headers."""
    headers = sum(len(name.encode()) + len(value) for name, value in record.headers.items())
    return len(record.key or b"") + len(record.value or b"") + headers
