"""What cannot be used is kept: the original bytes, where they came from, and why.

A dead letter is the original record's key and value on the `dead-letters` topic, with its own headers and these
added. `replay` sends it back to where it came from, without them.
"""

from collections.abc import Mapping
from typing import Self

from msgspec import Struct

from penchant.streams.codec import Unusable
from penchant.streams.records import Output, Record

__all__ = ["DeadLetter", "dead_letter"]

PREFIX = "penchant-"
TOPIC, PARTITION, OFFSET = f"{PREFIX}topic", f"{PREFIX}partition", f"{PREFIX}offset"
TIMESTAMP, REASON, DETAIL = f"{PREFIX}timestamp", f"{PREFIX}reason", f"{PREFIX}detail"
MAX_DETAIL = 1_000


def dead_letter(record: Record, error: Unusable, *, topic: str) -> Output:
    """The dead letter of `record`, to be published on `topic`."""
    return Output(
        topic=topic,
        key=record.key,
        value=record.value,
        headers={
            **record.headers,
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
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    detail: str
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
                key=record.key,
                value=record.value,
                headers={name: value for name, value in record.headers.items() if not name.startswith(PREFIX)},
            )
        except (KeyError, ValueError):
            raise Unusable("the record lacks the headers of a dead letter", reason="no-dead-letter") from None

    def original(self) -> Output:
        """The original record, to be sent to its topic again."""
        return Output(topic=self.topic, key=self.key, value=self.value, headers=self.headers)
