"""The records that lanes take in and give out."""

from collections.abc import Mapping

from msgspec import Struct

__all__ = ["Output", "Record", "SourceKey"]

SourceKey = tuple[str, int]  # topic, partition


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
