"""The log as it stands: all records of the topics that signals come from, up to where they end now."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition
from msgspec import Struct

from penchant.settings import Settings
from penchant.streams.connection import (
    BrokerUnavailable,
    broker_error,
    common_options,
    manages_transactions,
    open_admin,
)
from penchant.streams.records import Record, SourceKey, record_of
from penchant.streams.topics import Topic, describe_topics

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
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = {settings.prefixed(topic): topic for topic in SOURCES}
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
        found: list[SourceKey] = []
        for name in self.topics:
            try:
                topic = self.consumer.list_topics(name, timeout=REQUEST_TIMEOUT_S).topics[name]
            except KafkaException as error:
                raise broker_error(error) from error
            if topic.error is not None:
                raise broker_error(topic.error)
            found += [(name, number) for number in sorted(topic.partitions)]
        return found

    def extents(self) -> dict[SourceKey, Extent]:
        """What each partition holds now. What an open transaction has written is still to come."""
        partitions = self.partitions()
        identities = describe_topics(self.admin, self.topics)
        found: dict[SourceKey, Extent] = {}
        for name, number in partitions:
            try:
                low, end = self.consumer.get_watermark_offsets(
                    TopicPartition(name, number), timeout=REQUEST_TIMEOUT_S, cached=False
                )
            except KafkaException as error:
                raise broker_error(error) from error
            found[name, number] = Extent(topic_id=identities[name].id, low=low, end=end if self.ends_are_true else None)
        return found

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
