"""Reads one topic from outside the lanes: all that it holds, or what comes from now on.

Without a group a reader is an onlooker: it takes every partition, keeps no offsets on the broker and disturbs
nobody. With a group it shares the topic with the group's other members and goes on where they left off.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from penchant.settings import Settings
from penchant.streams.connection import broker_error, common_options
from penchant.streams.hearing import Deaf, Hearing
from penchant.streams.records import Record, record_of
from penchant.streams.topics import Topic

__all__ = ["TopicReader"]

log = logging.getLogger("penchant.kafka")

REQUEST_TIMEOUT_S = 10.0
BATCH = 500
SLICE_S = 0.2
# What a partition answers while it is new, or on its way to another broker.
LEADERLESS = frozenset({"LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION"})
RETRY_PAUSE_S = 0.05


class TopicReader:
    """Reads committed records of one topic; a context manager.

    Args:
        settings: of this process.
        topic: which of penchant's topics.
        group: a consumer group to be a member of, within the namespace; "": none.
        from_beginning: start with the oldest record kept, not with the next one. A group that has committed
            offsets goes on from those, whatever this says.
        last: start so many offsets before the next record of each partition (without a group). Some of them may be
            no records: transactions leave marks.

    Partitions added to the topic later are seen by members of a group alone.
    """

    def __init__(
        self, settings: Settings, topic: Topic, *, group: str = "", from_beginning: bool = False, last: int = 0
    ) -> None:
        self.name = settings.prefixed(topic)
        self.group = group
        self.from_beginning = from_beginning
        self.last = last
        self.settings = settings
        self.options: dict[str, Any] = {
            **common_options(settings),
            "group.id": settings.prefixed(group or "onlooker"),
            "enable.auto.commit": bool(group),
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest" if from_beginning or not group else "latest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 50,
            "fetch.wait.max.ms": 100,  # how soon an empty partition is known to be one
        }
        self.unread: set[int] = set()
        self.ends: dict[int, int] = {}
        self.starts: dict[int, int] = {}

    def __enter__(self) -> Self:
        """Connects. Without a group, records published from here on are seen.

        Raises:
            BrokerUnavailable: the broker does not answer.
            ConfigurationError: the broker refuses, or the topic does not exist.
        """
        self.open()
        try:
            partitions = self.partitions()
            if not self.group:
                self.unread = set(partitions)
                self.ends = {partition: self.end(partition) for partition in partitions}
                self.starts = {
                    partition: OFFSET_BEGINNING if self.from_beginning else max(0, end - self.last)
                    for partition, end in self.ends.items()
                }
            self.begin()
        except KafkaException as error:
            self.consumer.close()
            raise broker_error(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the group, committing what was marked as done."""
        self.consumer.close()

    def open(self) -> None:
        """Makes the client."""
        try:
            self.consumer = Consumer(self.options, logger=log)
        except KafkaException as error:
            raise broker_error(error) from error
        self.hearing = Hearing(self.consumer, self.settings, self.name)

    def begin(self) -> None:
        """Has the client read, from where each partition starts or as its group knows."""
        if self.group:
            self.consumer.subscribe([self.name])
        else:
            self.consumer.assign([TopicPartition(self.name, *start) for start in self.starts.items()])

    def go_on(self) -> None:
        """Goes on where this client has come to, with another: this one does not hear the broker any more.

        It is closed in a thread that nobody waits for: to commit its last marks it asks a broker that it does not hear.
        """
        try:
            for part in self.consumer.position(self.consumer.assignment()):
                if part.offset >= 0:
                    self.starts[part.partition] = part.offset
            threading.Thread(target=self.consumer.close, name="deaf-reader", daemon=True).start()
            self.open()
            self.begin()
        except KafkaException as error:
            raise broker_error(error) from error

    @property
    def caught_up(self) -> bool:
        """Whether every partition has been read to its end at least once (without a group)."""
        return not self.unread

    def read(self, timeout_s: float) -> list[Record]:
        """The next records: up to some hundreds, none after `timeout_s`; some 15 s later where the broker is silent.

        Raises:
            BrokerUnavailable, ConfigurationError: as the broker says.
        """
        records = []
        try:
            # `consume` would wait out its time for a full batch: a first record waits for no second one.
            first = self.consumer.poll(timeout_s)
            messages = [] if first is None else [first, *self.consumer.consume(BATCH - 1, 0)]
            if first is not None:
                self.hearing.heard()
            else:
                self.hearing.quiet()
        except KafkaException as error:
            raise broker_error(error) from error
        except Deaf as error:
            log.warning("%s: %s; another takes over", self.name, error)
            self.go_on()
            return []
        for message in messages:
            problem = message.error()
            if problem is None:
                records.append(record_of(message))
            elif problem.name() == "_PARTITION_EOF":
                self.unread.discard(message.partition() or 0)
            elif problem.name() != "_MAX_POLL_EXCEEDED":  # a slow caller's partitions went to others: it joins anew
                raise broker_error(problem)
        return records

    def to_end(self) -> Iterator[Record]:
        """What the topic held when the reader connected (without a group)."""
        while not self.caught_up:
            for record in self.read(SLICE_S):
                if record.offset < self.ends[record.partition]:
                    yield record

    def done(self, record: Record) -> None:
        """Marks a record and those before it as dealt with: the group goes on behind it."""
        with contextlib.suppress(KafkaException):  # the partition is another member's now, who reads it again
            self.consumer.store_offsets(offsets=[TopicPartition(record.topic, record.partition, record.offset + 1)])

    def partitions(self) -> list[int]:
        """The topic's partitions."""
        topic = self.consumer.list_topics(self.name, timeout=REQUEST_TIMEOUT_S).topics[self.name]
        if topic.error is not None:
            raise KafkaException(topic.error)
        return sorted(topic.partitions)

    def end(self, partition: int) -> int:
        """Where a partition ends now.

        That is the last stable offset, since the consumer reads committed records: what an open transaction has
        written is still to come.
        """
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                _, end = self.consumer.get_watermark_offsets(
                    TopicPartition(self.name, partition), timeout=REQUEST_TIMEOUT_S
                )
            except KafkaException as error:
                if error.args[0].name() not in LEADERLESS or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_PAUSE_S)
            else:
                return end
