"""The log as it stands: all records of the topics that signals or rows come from, up to where they end now."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # not in its __all__
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.settings import Settings
from penchant.streams.connection import (
    BrokerUnavailable,
    broker_error,
    common_options,
    manages_transactions,
    open_admin,
)
from penchant.streams.records import Record, SourceKey, record_of
from penchant.streams.topics import Topic, TopicIdentity, describe_topics

__all__ = ["SOURCES", "Extent", "Log"]

# What signals come from. `item-ready` brings none, and triples and items are nobody's doing.
SOURCES = (Topic.CLICKS, Topic.POSTS, Topic.MEDIA_UPLOADS)

REQUEST_TIMEOUT_S = 30.0
SILENCE_S = 60.0
BATCH = 2_048
SLICE_S = 0.2

log = logging.getLogger("penchant.kafka")


class Extent(Struct, frozen=True, kw_only=True):
    """What a partition holds: records from offset `low` to before offset `end`, or None where the broker does not tell.

    The embedded broker tells the start of the last batch for the end of a log.
    """

    topic_id: str
    low: int
    end: int | None


class Log:
    """Reads committed records; a context manager. It is a member of no group and commits nothing.

    Args:
        settings: of this process.
        topics: to read.
    """

    def __init__(self, settings: Settings, topics: Sequence[Topic] = SOURCES) -> None:
        self.settings = settings
        self.topics = {settings.prefixed(topic): topic for topic in topics}
        self.options: dict[str, Any] = {
            **common_options(settings),
            "group.id": settings.prefixed("onlooker"),
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",  # where retention is faster than this reader; see `extents`
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 50,
            "fetch.wait.max.ms": 100,
        }

    def __enter__(self) -> Self:
        """Connects.

        Raises:
            BrokerUnavailable: the broker does not answer.
            ConfigurationError: the broker refuses, or a topic does not exist.
        """
        self.ends_are_true = manages_transactions(self.settings)
        self.admin = open_admin(self.settings)
        try:
            self.consumer = Consumer(self.options, logger=log)
        except KafkaException as error:
            raise broker_error(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnects."""
        self.consumer.close()

    def partitions(self) -> list[SourceKey]:
        """All partitions of the topics."""
        return [(name, number) for name, topic in self.identities().items() for number in range(topic.partitions)]

    def identities(self) -> dict[str, TopicIdentity]:
        """Which topics stand behind the names."""
        found = describe_topics(self.admin, self.topics)
        if missing := sorted(self.topics.keys() - found.keys()):
            raise ConfigurationError(
                f"Topics are missing: {', '.join(missing)}", hint="See that `namespace` is that of the worker."
            )
        return found

    def extents(self) -> dict[SourceKey, Extent]:
        """What each partition holds now. What an open transaction has written is still to come."""
        identities = self.identities()
        sources = [(name, number) for name, topic in identities.items() for number in range(topic.partitions)]
        lows = self.offsets(sources, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # it has no types
        ends = self.offsets(sources, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # as above
        return {
            source: Extent(
                topic_id=identities[source[0]].id,
                low=lows[source],
                end=ends[source] if self.ends_are_true else None,
            )
            for source in sources
        }

    def offsets(self, sources: Sequence[SourceKey], spec: OffsetSpec) -> dict[SourceKey, int]:
        """One offset of each partition."""
        try:
            asked = self.admin.list_offsets(
                {TopicPartition(*source): spec for source in sources},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=REQUEST_TIMEOUT_S,
            )
            return {(part.topic, part.partition): found.result().offset for part, found in asked.items()}
        except KafkaException as error:
            raise broker_error(error) from error

    def read(self, starts: Mapping[SourceKey, int], extents: Mapping[SourceKey, Extent]) -> Iterator[Record]:
        """The records from `starts` to the ends of `extents`, and perhaps some that have come since.

        Raises:
            BrokerUnavailable: nothing came for a minute.
            ConfigurationError: the broker refuses.
        """
        ends = {source: extent.end for source, extent in extents.items()}
        unread = {source for source, end in ends.items() if end is None or starts[source] < end}
        self.consumer.assign([TopicPartition(*source, starts[source]) for source in sorted(unread)])
        heard = time.monotonic()
        while unread:
            first = self.consumer.poll(SLICE_S)
            messages = [] if first is None else [first, *self.consumer.consume(BATCH - 1, 0)]
            for message in messages:
                source = (message.topic() or "", message.partition() or 0)
                problem = message.error()
                if problem is None:
                    record = record_of(message)
                    yield record
                    end = ends[source]
                    if end is not None and record.offset + 1 >= end:
                        unread.discard(source)  # more may come for as long as anyone writes
                elif problem.name() == "_PARTITION_EOF":
                    unread.discard(source)
                else:
                    raise broker_error(problem)
            if messages:
                heard = time.monotonic()
            elif time.monotonic() > heard + SILENCE_S:
                raise BrokerUnavailable(f"The broker has sent nothing for {SILENCE_S:g} s")
