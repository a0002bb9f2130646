"""Where the partitions that a lane is assigned are to be read from: broker and store are asked until both answer.

The consuming thread does this, inside the client's `poll`; how it is decided says `penchant.streams.assignment`.
"""

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from msgspec import Struct, structs

from penchant.errors import Unavailable
from penchant.profile.positions import Position, Positions
from penchant.settings import Settings
from penchant.streams.assignment import PartitionLog, Start, start_of
from penchant.streams.backoff import Backoff
from penchant.streams.connection import BrokerUnavailable, broker_error
from penchant.streams.hearing import Asking, Deaf
from penchant.streams.member import topic_partitions
from penchant.streams.publish import GENERATION_ERRORS
from penchant.streams.records import SourceKey
from penchant.streams.topics import describe_topics

__all__ = ["Found", "Starts"]

log = structlog.get_logger()

TIMEOUT_S = 30.0
# After that the consumer joins anew. Whether it hears the broker cannot be asked here: `list_topics` inside of `poll`
# ends the process where a callback follows.
PATIENCE_S = 20.0
END_UNKNOWN = 2**63 - 1
# What the client says of partitions that the broker has assigned and described, and its metadata lack: those that a
# broker answered while it was starting, or none.
NOT_KNOWN_YET = frozenset(
    {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}  # noqa: SLF001  its name
)

T = TypeVar("T")


class Call(Protocol):
    """Runs a coroutine on the lane's loop, and waits for it."""

    def __call__(self, coroutine: Coroutine[object, object, T]) -> T:
        """What it returns."""


class Found(Struct, frozen=True, kw_only=True):
    """Where to start each partition, and what the broker says of it."""

    starts: Mapping[SourceKey, Start]
    logs: Mapping[SourceKey, PartitionLog]


class Starts:
    """Finds where to start.

    Args:
        lane: its name.
        settings: of this process.
        broker: is asked.
        positions: how far the store covers the log; None: nothing of what the lane does is in it.
        call: runs what asks the store.
        stopping: whether the lane is being stopped.
    """

    def __init__(
        self,
        lane: str,
        *,
        settings: Settings,
        broker: Asking,
        positions: Positions | None,
        call: Call,
        stopping: Callable[[], bool],
    ) -> None:
        self._lane = lane
        self._settings = settings
        self._broker = broker
        self._positions = positions
        self._call = call
        self._stopping = stopping

    def find(
        self, consumer: Consumer, partitions: Sequence[TopicPartition], *, left: Callable[[], bool]
    ) -> Found | None:
        """Where to start, as soon as broker and store both say; None if nobody wants to know any more before that.

        Blocks.

        Args:
            consumer: that the partitions are assigned to.
            partitions: to start with.
            left: whether the consumer has been given up.

        Raises:
            Deaf: the consumer may never hear of it.
        """
        backoff, heard = Backoff(), time.monotonic()
        while not (self._stopping() or left()):
            try:
                logs = self._describe(consumer, partitions)
                stored = self._call(self._covered(logs))
                starts = {
                    source: start_of(f"{source[0]}[{source[1]}]", known, stored.get(source))
                    for source, known in logs.items()
                }
                back = set_back(consumer, logs, starts)
            except Unavailable as error:
                log.warning("cannot start yet", lane=self._lane, error=str(error))
                if not isinstance(error, BrokerUnavailable):
                    heard = time.monotonic()
                elif time.monotonic() - heard > PATIENCE_S:
                    raise Deaf("the broker has not said where to start") from error
                time.sleep(backoff.pause())
            else:
                return Found(starts=starts, logs=logs | back)
        return None

    async def _covered(self, found: Mapping[SourceKey, PartitionLog]) -> Mapping[SourceKey, Position]:
        """How far the store covers partitions; where nothing goes there, what is committed says it alone."""
        if self._positions is not None:
            return await self._positions.load(found)
        return {
            source: Position(topic_id=known.topic_id, next_offset=known.committed)
            for source, known in found.items()
            if known.committed is not None
        }

    def _describe(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[SourceKey, PartitionLog]:
        if not partitions:
            return {}
        try:
            topics = {partition.topic for partition in partitions}
            identities = self._broker.ask(lambda admin: describe_topics(admin, topics))
            committed = consumer.committed(list(partitions), TIMEOUT_S)
            found: dict[SourceKey, PartitionLog] = {}
            for partition in committed:
                low, high = consumer.get_watermark_offsets(partition, TIMEOUT_S, cached=False)
                if not self._settings.kafka.transactions:
                    # Perhaps the embedded broker, which tells the start of the last batch for its end.
                    high = END_UNKNOWN
                found[partition.topic, partition.partition] = PartitionLog(
                    topic_id=identities[partition.topic].id,
                    low=low,
                    high=high,
                    committed=partition.offset if partition.offset >= 0 else None,
                )
        except KafkaException as error:
            if error.args[0].code() in NOT_KNOWN_YET:
                raise BrokerUnavailable(f"the client has yet to hear of what it was assigned ({error})") from error
            raise broker_error(error) from error
        except KeyError as error:
            raise BrokerUnavailable(f"the topic {error} cannot be described yet") from None
        return found


def set_back(
    consumer: Consumer, logs: Mapping[SourceKey, PartitionLog], starts: Mapping[SourceKey, Start]
) -> dict[SourceKey, PartitionLog]:
    """Commits where to start, where more than that is committed: the store was set back, and lists are owed anew.

    Else a crash after the store has caught up, and before the lists are published, would leave them owed for good.

    Returns:
        What is so of those logs from then on.
    """
    ahead = {
        source: start.offset
        for source, start in starts.items()
        if (committed := logs[source].committed) is not None and start.offset < committed
    }
    if not ahead:
        return {}
    try:
        consumer.commit(offsets=topic_partitions(ahead), asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in GENERATION_ERRORS:
            raise broker_error(error) from error
        return {}  # whoever has these partitions next does it
    return {source: structs.replace(logs[source], committed=offset) for source, offset in ahead.items()}
