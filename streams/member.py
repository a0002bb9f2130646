"""A consumer group's member, and the one thread that may touch its client.

The client lets one thread in at a time, and a thread that polls again and again starves all others. So every call
runs in the thread that polls, between two polls, and what others need often, the group's metadata, is kept.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from penchant.settings import Settings
from penchant.streams.connection import BrokerUnavailable, broker_error, open_consumer
from penchant.streams.hearing import Hearing
from penchant.streams.records import SourceKey

__all__ = ["Member", "Offsets", "name_is_held", "topic_partitions"]

POLL_S = 0.05
TIMEOUT_S = 30.0

Offsets = Mapping[SourceKey, int]
Rebalanced = Callable[["Member", Consumer, Sequence[TopicPartition]], None]
T = TypeVar("T")


class Member:
    """Membership of a consumer group.

    Args:
        settings: of this process.
        group: less the namespace.
        topics: to subscribe to.
        on_assign: called in the polling thread with this, the client and the partitions that come; must assign them.
        on_revoke: likewise with those that go.

    Attributes:
        left: whether it has left, or been given up while it was leaving: what it says after that is nobody's.
    """

    def __init__(
        self, settings: Settings, group: str, topics: Sequence[str], *, on_assign: Rebalanced, on_revoke: Rebalanced
    ) -> None:
        self.group = settings.prefixed(group)
        self._consumer = open_consumer(settings, group)
        self._hearing = Hearing(self._consumer, settings, topics[0])
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=group)
        self._metadata: Any = None
        self.left = False
        self._assigned_anew: set[SourceKey] = set()

        def assigned(consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
            self._assigned_anew |= {(partition.topic, partition.partition) for partition in partitions}
            on_assign(self, consumer, partitions)

        def revoked(consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
            on_revoke(self, consumer, partitions)

        self._consumer.subscribe(list(topics), on_assign=assigned, on_revoke=revoked, on_lost=revoked)

    @property
    def metadata(self) -> Any:
        """The group's metadata, at most one poll old. Older than it should be, the broker refuses it."""
        return self._metadata

    async def take(self, most: int) -> list[Message]:
        """Waits a moment for a first record, then takes what else is there; waiting for more would only delay it.

        Raises:
            Deaf: there may never be any: another must join in its place.
            BrokerUnavailable: waiting may help.
            ConfigurationError: the broker refuses.
        """
        return await self._on_thread(self._take, most)

    async def pause(self, sources: Sequence[SourceKey]) -> None:
        """Takes no more from these partitions until `resume`."""
        await self._on_thread(self._consumer.pause, [TopicPartition(*source) for source in sources])

    async def resume(self, sources: Sequence[SourceKey]) -> None:
        """Takes from these partitions again."""
        await self._on_thread(self._consumer.resume, [TopicPartition(*source) for source in sources])

    async def ends(self, sources: Sequence[SourceKey]) -> Offsets:
        """The ends of partitions' logs as the client has last heard of them; of some it may not have heard yet."""
        return await self._on_thread(self._ends, sources)

    def commit(self, offsets: Offsets) -> None:
        """Commits offsets; blocks the calling thread, which must not be the polling one.

        Raises:
            KafkaException: they were not committed, or it is not known.
            BrokerUnavailable: this member has left its group meanwhile.
        """
        try:
            self._thread.submit(self._consumer.commit, offsets=topic_partitions(offsets), asynchronous=False).result()
        except RuntimeError as error:
            raise BrokerUnavailable("this member has left its group") from error

    async def close(self) -> None:
        """Leaves: a static member keeps its partitions for a successor of its name.

        Raises:
            KafkaException: it did not go in order.
        """
        try:
            await self._on_thread(self._consumer.close)
        finally:
            self.left = True
            self._thread.shutdown(wait=False)

    def _take(self, most: int) -> list[Message]:
        try:
            first = self._consumer.poll(POLL_S)
            self._metadata = self._consumer.consumer_group_metadata()
            if first is None:
                self._hearing.quiet()
                return []
            self._hearing.heard()
            self._assigned_anew.clear()
            rest = self._consumer.consume(most - 1, 0) if most > 1 else []
        except KafkaException as error:
            raise broker_error(error) from error
        if (first.topic(), first.partition()) in self._assigned_anew:
            return rest  # the first is of the assignment before; this one reads it again, or what is before it
        return [first, *rest]

    def _ends(self, sources: Sequence[SourceKey]) -> Offsets:
        found = {}
        for source in sources:
            try:
                _, end = self._consumer.get_watermark_offsets(TopicPartition(*source), cached=True)
            except KafkaException:
                continue  # it has gone meanwhile
            if end >= 0:
                found[source] = end
        return found

    async def _on_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def name_is_held(admin: AdminClient, group: str, name: str) -> bool:
    """Whether a consumer group has a static member of a name.

    Args:
        admin: asks.
        group: with its namespace.
        name: the member's instance id.

    Raises:
        BrokerUnavailable: waiting may help; so while the group forms anew, when no member's session can end.
        ConfigurationError: the broker refuses.
    """
    try:
        found = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result()
    except KafkaException as error:
        raise broker_error(error) from error
    held = any(member.group_instance_id == name for member in found.members)
    if held and found.state is not ConsumerGroupState.STABLE:
        raise BrokerUnavailable(f"the group {group} forms anew")
    return held


def topic_partitions(offsets: Offsets) -> list[TopicPartition]:
    """Offsets as the client wants them."""
    return [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
