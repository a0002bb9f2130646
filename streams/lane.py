"""A lane: records in from Kafka in batches, each handled until it is in the store, then published and committed.

    consume ─► one inbox a topic ─► handle (retried) ─► position ─► outbox

Records of one topic are handled in order, one batch at a time; topics do not wait for each other. A full inbox
pauses its topic's partitions, so memory is bounded however far behind the lane is. Nothing here knows what a
record means: that is the handler's part. Plain asyncio; librdkafka's calls block and run in threads.

Three things may never happen and are held off here: committing an offset whose work is not in the store or whose
lists are not published (the ledger), working on for partitions that are someone else's (what is held), and
reading past a hole in the log without saying so (the assignment).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penchant.errors import Unavailable
from penchant.profile.positions import Position, Positions
from penchant.settings import Settings
from penchant.streams import metrics
from penchant.streams.assignment import LogRecreated, describe
from penchant.streams.backoff import Backoff
from penchant.streams.connection import Fenced, broker_error
from penchant.streams.hearing import Asking, Deaf
from penchant.streams.held import Held
from penchant.streams.inbox import Batch, Inbox
from penchant.streams.ledger import Handled, Ledger
from penchant.streams.member import Member, name_is_held
from penchant.streams.outbox import Lists, Outbox
from penchant.streams.publish import Publisher
from penchant.streams.records import Record, SourceKey, record_of
from penchant.streams.starts import Found, Starts
from penchant.streams.topics import describe_topics

__all__ = ["Batch", "Handler", "Lane", "Submit"]

log = structlog.get_logger()

INBOX_BATCHES = 2  # so many batches' records may wait, or as many as are handled together
LAG_S = 1.0
BACKLOG_RECORDS = 200_000
MOST_DUE = 64  # lists made together: of more each is hardly cheaper, and those behind them wait
IDENTITY_CHECK_S = 2.0

# What the broker says by KIP-848's protocol to the successor of a static member that crashed; the
# client calls it fatal.
NAME_HELD = "instance ID is still used by another member"
NAME_HELD_S = 2.0
LEAVE_S = 10.0
FENCED_SESSIONS = 2  # how many sessions' time to wait for one to end

T = TypeVar("T")


class NameHeld(Unavailable):
    """Another member has this one's name: a predecessor that crashed, whose session is not over."""


class Handler(Lists, Protocol):
    """What a lane does with records. Every method may raise `Unavailable`, and is then called again."""

    async def handle(self, batch: Batch) -> Handled:
        """Puts what a batch says into the store. May be called again with the same batch."""

    async def release(self) -> None:
        """Forgets what is remembered of partitions' users: others may change them now."""


Submit = Callable[[Batch], Awaitable[Handled]]


class Lane:
    """One consumer group's part in this worker.

    Args:
        name: of the lane.
        group: its consumer group, less the namespace.
        topics: that it reads.
        settings: of this process.
        handler: does the work.
        submit: hands a batch to the handler, perhaps by way of a stream processor.
        positions: how far the store covers the log; None: nothing of what the lane does is in it.
        publisher: publishes and commits.
        batch_records: taken at a time.
        together: so many batches' records are handled at once where the lane is behind, and that is quick.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        *,
        group: str,
        topics: Sequence[str],
        settings: Settings,
        handler: Handler,
        submit: Submit,
        positions: Positions | None,
        publisher: Publisher,
        batch_records: int,
        together: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._group = group
        self._topics = tuple(topics)
        self._settings = settings
        self._handler = handler
        self._submit = submit
        self._positions = positions
        self._publisher = publisher
        self._batch_records = batch_records
        self._clock = clock
        self._held = Held()
        self._ledger = Ledger(interval_s=settings.recommend.interval_s, most_due=MOST_DUE)
        self._outbox = Outbox(
            name,
            ledger=self._ledger,
            lists=handler,
            publisher=publisher,
            held=self._held,
            check=self._check_identities,
            member=lambda: self._member,
            clock=clock,
        )
        room = max(INBOX_BATCHES, together) * batch_records
        self._inboxes = {topic: Inbox(together=together * batch_records, room=room) for topic in topics}
        self._in_hand = dict.fromkeys(topics, 0)  # records that are being handled
        self._lag_told = -LAG_S
        self._paused: set[SourceKey] = set()
        self._identities_checked = -IDENTITY_CHECK_S
        self._joined = asyncio.Event()
        self._stopping = False
        self._member: Member
        self._broker: Asking
        self._starts: Starts
        self._loop: asyncio.AbstractEventLoop

    @property
    def ready(self) -> bool:
        """Whether the lane has joined its group."""
        return self._joined.is_set()

    def behind(self) -> bool:
        """Whether a whole take waits or is being handled: there is more than can be done at once."""
        waiting = max(max(inbox.records, self._in_hand[topic]) for topic, inbox in self._inboxes.items())
        return not self._stopping and waiting >= self._batch_records

    async def joined(self) -> None:
        """Returns when it has."""
        await self._joined.wait()

    def owns(self, topic: str, partition: int) -> bool:
        """Whether a partition is this worker's now."""
        return (topic, partition) in self._held.expected

    async def run(self) -> None:
        """Works until `stop`; raises what cannot be healed by waiting."""
        self._loop = asyncio.get_running_loop()
        self._broker = Asking(self._settings)
        self._starts = Starts(
            self.name,
            settings=self._settings,
            broker=self._broker,
            positions=self._positions,
            call=self._call,
            stopping=lambda: self._stopping,
        )
        await self._retried("open", self._publisher.open)
        self._join()
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [tasks.create_task(self._work(topic)) for topic in self._topics]
                publishing = tasks.create_task(self._outbox.run(tasks))
                await self._take()
                for inbox in self._inboxes.values():
                    inbox.close()
                await asyncio.wait(workers)
                # What is in the store is published and committed; what was only taken is taken again by the next.
                self._outbox.drain()
                await publishing
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            await self._close()

    def stop(self) -> None:
        """Asks the lane to finish what it has begun, publish and commit it, and return."""
        self._stopping = True

    # Taking records.

    def _join(self) -> None:
        self._member = Member(
            self._settings, self._group, self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke
        )

    async def _take(self) -> None:
        while not self._stopping:
            try:
                batches = self._held.taken(self._records(await self._member.take(self._batch_records)))
            except NameHeld as error:
                log.warning("waiting to join", lane=self.name, error=str(error))
                await self._leave()
                await asyncio.sleep(NAME_HELD_S * (0.5 + random.random()))  # noqa: S311  jitter
                self._join()
                continue
            except Deaf as error:
                log.warning("joining anew", lane=self.name, error=str(error))
                await self._leave()
                if not self._stopping:
                    self._join()
                continue
            except Fenced as error:
                await self._leave()
                await self._await_name(error)
                self._join()
                continue
            for topic, batch in batches.items():
                self._inboxes[topic].put(batch)
            await self._throttle()
            await self._tell_lag()

    def _records(self, messages: Sequence[Message]) -> Iterator[Record]:
        for message in messages:
            if (error := message.error()) is not None:
                self._meet(error, message)
            else:
                yield record_of(message)

    def _meet(self, error: KafkaError, message: Message) -> None:
        """An error in place of a record: librdkafka heals most by itself."""
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  the client's own name for it
            raise LogRecreated(
                f"{message.topic()}[{message.partition()}]: the offset to read next is not in the log "
                "(retention removed it, or the topic was recreated)",
                hint="Start the worker again: it says how much is gone, and goes on from what is there.",
            )
        if error.code() == KafkaError._FATAL:  # noqa: SLF001  as above
            if NAME_HELD in error.str():
                raise NameHeld(
                    "the group holds this worker's name for one that has not left: its session must end first"
                )
            raise Fenced(
                f"The group has put this worker out for good ({error.str()})",
                hint="If another worker runs under its name: each needs a data_dir or a worker.instance_id of its own. "
                "Else start it again.",
            )
        mapped = broker_error(error)
        if isinstance(mapped, Unavailable):
            log.warning("broker", lane=self.name, error=error.name())
        else:
            raise mapped

    async def _await_name(self, fenced: Fenced) -> None:
        """Finds out who has fenced this worker: after a long silence it may have been its own return to the group.

        That member's session ends, for nobody keeps it alive; another worker's does not. Nobody's ends while the
        broker is away or the group forms anew, so the waiting begins again behind that.

        Raises:
            Fenced: another worker has this one's name.
        """
        log.warning("fenced: waiting for whoever has this worker's name", lane=self.name, error=str(fenced))
        group, name = self._settings.prefixed(self._group), self._settings.instance_id
        patience = FENCED_SESSIONS * self._settings.kafka.session_timeout_ms / 1_000
        until = self._clock() + patience
        while not self._stopping:
            try:
                if not await asyncio.to_thread(self._broker.ask, lambda admin: name_is_held(admin, group, name)):
                    return
            except Unavailable:
                until = self._clock() + patience
            if self._clock() > until:
                raise fenced
            await asyncio.sleep(NAME_HELD_S)

    async def _throttle(self) -> None:
        """Pauses topics whose inbox is full, and resumes those whose inbox has room again."""
        behind = self._ledger.backlog >= BACKLOG_RECORDS
        full = {topic for topic in self._topics if behind or self._inboxes[topic].full}
        wanted = {source for source in self._held.expected if source[0] in full}
        if wanted - self._paused:
            await self._member.pause(list(wanted - self._paused))
        if self._paused - wanted:
            await self._member.resume(list(self._paused - wanted))
        self._paused = wanted & self._held.expected.keys()
        metrics.BACKLOG.labels(self.name).set(self._ledger.backlog)
        for topic, inbox in self._inboxes.items():
            metrics.INBOX_RECORDS.labels(self.name, topic).set(inbox.records)
            metrics.INBOX_BYTES.labels(self.name, topic).set(inbox.bytes)

    async def _tell_lag(self) -> None:
        """Counts, now and then, the records of the log that have not been taken, as far as the client knows of them."""
        if self._clock() - self._lag_told < LAG_S:
            return
        self._lag_told = self._clock()
        expected = self._held.expected
        ends = await self._member.ends(list(expected))
        for topic in self._topics:
            behind = [max(0, end - expected.get(source, end)) for source, end in ends.items() if source[0] == topic]
            metrics.LAG.labels(self.name, topic).set(sum(behind))

    # Handling.

    async def _work(self, topic: str) -> None:
        inbox = self._inboxes[topic]
        while (batch := await inbox.get()) is not None and not self._stopping:
            self._in_hand[topic] = len(batch.records)
            await self._handle(batch)
            self._in_hand[topic] = 0

    async def _handle(self, batch: Batch) -> None:
        started = self._clock()
        handled = await self._retried("handle", lambda: self._submit(batch), batch)
        if handled is None:
            return
        self._inboxes[batch.topic].took(len(batch.records), self._clock() - started)
        await self._save_position(batch)
        owned = self._held.owned(batch)
        if owned:
            self._ledger.add(batch.topic, owned, handled, records=len(batch.records), now=self._clock())
            self._outbox.wake()
        metrics.RECORDS.labels(self.name, batch.topic).inc(len(batch.records))
        metrics.BATCH_RECORDS.labels(self.name, batch.topic).observe(len(batch.records))
        metrics.BATCH_SECONDS.labels(self.name, batch.topic).observe(self._clock() - started)

    async def _save_position(self, batch: Batch) -> None:
        """Notes that the store covers a batch."""
        if (known := self._positions) is None:
            return
        positions = {
            (batch.topic, partition): Position(topic_id=self._held.identities[batch.topic], next_offset=offset)
            for partition, offset in self._held.owned(batch).items()
        }
        await self._retried("position", lambda: known.save(positions), batch)

    async def _check_identities(self) -> None:
        """Makes sure, now and then, that the topics are still those that were assigned."""
        if self._clock() - self._identities_checked < IDENTITY_CHECK_S:
            return
        found = await asyncio.to_thread(self._broker.ask, lambda admin: describe_topics(admin, self._topics))
        for topic, known in self._held.identities.items():
            if topic not in found or found[topic].id != known:
                raise LogRecreated(
                    f"{topic} was deleted or created anew while it was read", hint="`penchant topics check` tells more."
                )
        self._identities_checked = self._clock()

    # Assignment. librdkafka calls these in the consuming thread, inside `poll`; the loop is free meanwhile.

    def _on_assign(self, member: Member, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        found = self._starts.find(consumer, partitions, left=lambda: member.left)
        if found is None:
            return
        starts = found.starts
        assigned = [TopicPartition(topic, number, start.offset) for (topic, number), start in starts.items()]
        if self._settings.kafka.group_protocol == "consumer":
            consumer.incremental_assign(assigned)
        else:
            consumer.assign(assigned)
        if starts:
            log.info("assigned", lane=self.name, partitions=len(starts), starts=describe(starts))
        self._call(self._assigned(member, found))

    async def _assigned(self, member: Member, found: Found) -> None:
        # Once more: a batch in hand for the partitions that stayed may have brought users of these back into memory.
        await self._handler.release()
        if member.left:
            return
        self._held.learn(found.logs)
        self._held.begin({source: start.offset for source, start in found.starts.items()})
        for (topic, number), start in found.starts.items():
            if start.lost:
                metrics.LOST_TO_RETENTION.labels(self.name, topic).inc(start.lost)
                log.error(
                    "records are gone that were not applied: the broker's retention removed them",
                    lane=self.name, topic=topic, partition=number, records=start.lost,
                )  # fmt: skip
        self._joined.set()

    def _on_revoke(self, member: Member, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        sources = {(partition.topic, partition.partition) for partition in partitions}
        # The client remembers a pause beyond the assignment: what comes back would be silent for good.
        consumer.resume([TopicPartition(*source) for source in sources & self._paused])
        self._call(self._revoked_by(member, sources))

    async def _revoked_by(self, member: Member, partitions: set[SourceKey]) -> None:
        if not member.left:  # else these may be its successor's by now
            await self._revoked(partitions)

    async def _revoked(self, partitions: set[SourceKey]) -> None:
        """Drops the unconfirmed work of partitions that go.

        It does not wait for a publication under way, which may itself wait for the polling thread: the group's
        generation decides whether that one still counts.
        """
        self._held.end(partitions)
        self._paused -= partitions
        self._ledger.revoke(partitions)
        await self._handler.release()

    # Plumbing.

    def _call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Runs a coroutine on the loop from the consuming thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _retried(self, step: str, attempt: Callable[[], Awaitable[T]], batch: Batch | None = None) -> T | None:
        """Tries until it succeeds, with growing, jittered pauses; None if the batch is nobody's any more."""
        backoff = Backoff()
        while batch is None or self._held.owned(batch):
            try:
                return await attempt()
            except Unavailable as error:
                metrics.RETRIES.labels(self.name, step).inc()
                log.warning("not available; will try again", lane=self.name, step=step, error=str(error))
                await asyncio.sleep(backoff.pause())
        return None

    async def _leave(self) -> None:
        self._joined.clear()
        try:
            await asyncio.wait_for(self._member.close(), LEAVE_S)
        except (KafkaException, RuntimeError, TimeoutError) as error:
            log.debug("consumer not closed", lane=self.name, error=str(error))
        await self._revoked({*self._held.expected, *self._held.committed})  # where the client has not said so itself

    async def _close(self) -> None:
        self._stopping = True  # also for the polling thread, which may be looking for where to start
        await self._leave()
        await self._publisher.close()
