"""A lane: records in from Kafka in batches, each handled until it is in the store, then published and committed.

    consume ─► one inbox a topic ─► handle (retried) ─► position ─► ledger ─► publish and commit

Records of one topic are handled in order, one batch at a time; topics do not wait for each other. A full inbox
pauses its topic's partitions, so memory is bounded however far behind the lane is. Nothing here knows what a
record means: that is the handler's part. Plain asyncio; librdkafka's calls block and run in threads.

Three things may never happen and are held off here: committing an offset whose work is not in the store or whose
lists are not published (the ledger), working on for partitions that are someone else's (the assignments), and
reading past a hole in the log without saying so (the assignment).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from penchant.errors import Unavailable
from penchant.profile.positions import Position, Positions
from penchant.settings import Settings
from penchant.streams import metrics
from penchant.streams.assignment import LogRecreated, PartitionLog, Start, describe, start_of
from penchant.streams.connection import Fenced, broker_error, open_admin
from penchant.streams.inbox import Batch, Inbox
from penchant.streams.ledger import Due, Handled, Ledger
from penchant.streams.member import Member, name_is_held, topic_partitions
from penchant.streams.publish import GENERATION_ERRORS, Publisher, Refused, Revoked
from penchant.streams.records import Output, Record, SourceKey, record_of
from penchant.streams.topics import describe_topics

__all__ = ["Batch", "Handler", "Lane", "Submit"]

log = structlog.get_logger()

IDLE_S = 0.5
INBOX_BATCHES = 2  # so many batches' records may wait, or as many as are handled together
LAG_S = 1.0
BACKLOG_RECORDS = 200_000
MOST_DUE = 256
IDENTITY_CHECK_S = 2.0
BACKOFF_S = (0.1, 5.0)
ASSIGN_TIMEOUT_S = 30.0
END_UNKNOWN = 2**63 - 1

# What the broker says by KIP-848's protocol to the successor of a static member that crashed; the
# client calls it fatal.
NAME_HELD = "instance ID is still used by another member"
NAME_HELD_S = 2.0
# What the client says of partitions that the broker has assigned and described, and its metadata lack: those that a
# broker answered while it was starting, or none.
NOT_KNOWN_YET = frozenset(
    {KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART}  # noqa: SLF001  its name
)
LEAVE_S = 10.0
FENCED_SESSIONS = 2  # how many sessions' time to wait for one to end

T = TypeVar("T")


class NameHeld(Unavailable):
    """Another member has this one's name: a predecessor that crashed, whose session is not over."""


class Handler(Protocol):
    """What a lane does with records. Every method may raise `Unavailable`, and is then called again."""

    async def handle(self, batch: Batch) -> Handled:
        """Puts what a batch says into the store. May be called again with the same batch."""

    async def refresh(self, due: Sequence[Due]) -> Sequence[Output]:
        """Makes the lists of users that are due."""

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
        self._ledger = Ledger(interval_s=settings.recommend.interval_s, most_due=MOST_DUE)
        room = max(INBOX_BATCHES, together) * batch_records
        self._inboxes = {topic: Inbox(together=together * batch_records, room=room) for topic in topics}
        self._lag_told = -LAG_S
        self._paused: set[SourceKey] = set()
        self._expected: dict[SourceKey, int] = {}  # next offset of each partition that is this worker's
        self._committed: dict[SourceKey, int] = {}
        self._identities: dict[str, str] = {}
        self._identities_checked = -IDENTITY_CHECK_S
        self._assignments: dict[SourceKey, int] = {}  # of each partition that is this worker's: which one it is
        self._assignment = 0
        self._revocations = 0
        self._joined = asyncio.Event()
        self._wake = asyncio.Event()
        self._publish_delay = BACKOFF_S[0]
        self._stopping = False
        self._draining = False
        self._member: Member
        self._admin: AdminClient
        self._loop: asyncio.AbstractEventLoop

    @property
    def ready(self) -> bool:
        """Whether the lane has joined its group."""
        return self._joined.is_set()

    def behind(self) -> bool:
        """Whether a whole take waits while another is being handled: there is more than can be done at once."""
        return not self._stopping and any(inbox.records >= self._batch_records for inbox in self._inboxes.values())

    async def joined(self) -> None:
        """Returns when it has."""
        await self._joined.wait()

    def owns(self, topic: str, partition: int) -> bool:
        """Whether a partition is this worker's now."""
        return (topic, partition) in self._expected

    async def run(self) -> None:
        """Works until `stop`; raises what cannot be healed by waiting."""
        self._loop = asyncio.get_running_loop()
        self._admin = open_admin(self._settings)
        await self._retried("open", self._publisher.open)
        self._join()
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [tasks.create_task(self._work(topic)) for topic in self._topics]
                publishing = tasks.create_task(self._publish())
                await self._take()
                for inbox in self._inboxes.values():
                    inbox.close()
                await asyncio.wait(workers)
                # What is in the store is published and committed; what was only taken is taken again by the next.
                self._draining = True
                self._wake.set()
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
                batches = self._by_topic(await self._member.take(self._batch_records))
            except NameHeld as error:
                log.warning("waiting to join", lane=self.name, error=str(error))
                await self._leave()
                await asyncio.sleep(NAME_HELD_S * (0.5 + random.random()))  # noqa: S311  jitter
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

    def _by_topic(self, messages: Sequence[Message]) -> dict[str, Batch]:
        records: dict[str, list[Record]] = {}
        for message in messages:
            if (error := message.error()) is not None:
                self._meet(error, message)
                continue
            record = record_of(message)
            source = (record.topic, record.partition)
            expected = self._expected.get(source)
            if expected is None:
                continue  # revoked meanwhile
            if record.offset < expected:
                raise LogRecreated(
                    f"{record.topic}[{record.partition}] went back from offset {expected} to {record.offset}"
                )
            self._expected[source] = record.offset + 1
            records.setdefault(record.topic, []).append(record)
        return {
            topic: Batch(
                topic=topic,
                records=batch,
                assignments={record.partition: self._assignments[topic, record.partition] for record in batch},
                settled={record.partition: self._committed.get((topic, record.partition), 0) for record in batch},
            )
            for topic, batch in records.items()
        }

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
                if not await asyncio.to_thread(name_is_held, self._admin, group, name):
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
        wanted = {source for source in self._expected if source[0] in full}
        if wanted - self._paused:
            await self._member.pause(list(wanted - self._paused))
        if self._paused - wanted:
            await self._member.resume(list(self._paused - wanted))
        self._paused = wanted & self._expected.keys()
        metrics.BACKLOG.labels(self.name).set(self._ledger.backlog)
        for topic, inbox in self._inboxes.items():
            metrics.INBOX_RECORDS.labels(self.name, topic).set(inbox.records)
            metrics.INBOX_BYTES.labels(self.name, topic).set(inbox.bytes)

    async def _tell_lag(self) -> None:
        """Counts, now and then, the records of the log that have not been taken, as far as the client knows of them."""
        if self._clock() - self._lag_told < LAG_S:
            return
        self._lag_told = self._clock()
        ends = await self._member.ends(list(self._expected))
        for topic in self._topics:
            behind = [
                max(0, end - self._expected.get(source, end)) for source, end in ends.items() if source[0] == topic
            ]
            metrics.LAG.labels(self.name, topic).set(sum(behind))

    # Handling.

    async def _work(self, topic: str) -> None:
        inbox = self._inboxes[topic]
        while (batch := await inbox.get()) is not None and not self._stopping:
            await self._handle(batch)

    async def _handle(self, batch: Batch) -> None:
        started = self._clock()
        handled = await self._retried("handle", lambda: self._submit(batch), batch)
        if handled is None:
            return
        self._inboxes[batch.topic].took(len(batch.records), self._clock() - started)
        await self._save_position(batch)
        owned = self._owned(batch)
        if owned:
            self._ledger.add(batch.topic, owned, handled, records=len(batch.records))
            self._wake.set()
        metrics.RECORDS.labels(self.name, batch.topic).inc(len(batch.records))
        metrics.BATCH_RECORDS.labels(self.name, batch.topic).observe(len(batch.records))
        metrics.BATCH_SECONDS.labels(self.name, batch.topic).observe(self._clock() - started)

    async def _save_position(self, batch: Batch) -> None:
        """Notes that the store covers a batch."""
        if (known := self._positions) is None:
            return
        positions = {
            (batch.topic, partition): Position(topic_id=self._identities[batch.topic], next_offset=offset)
            for partition, offset in self._owned(batch).items()
        }
        await self._retried("position", lambda: known.save(positions), batch)

    def _owned(self, batch: Batch) -> dict[int, int]:
        """The batch's next offsets, of those partitions that have been this worker's ever since."""
        return {
            partition: offset
            for partition, offset in batch.next_offsets.items()
            if self._assignments.get((batch.topic, partition)) == batch.assignments[partition]
        }

    # Publishing.

    async def _publish(self) -> None:
        while True:
            wait = self._ledger.next_due() - self._clock()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(max(wait, 0), IDLE_S))
            self._wake.clear()
            if await self._publish_once():
                self._wake.set()  # there may be more
            elif self._draining:
                return

    async def _publish_once(self) -> bool:
        """Publishes what is due; says whether there was anything."""
        revocations = self._revocations
        publication = self._ledger.next(self._clock(), at_once=self._draining)
        if not publication:
            return False
        started = self._clock()
        try:
            await self._check_identities()
            lists = await self._handler.refresh(publication.due)
            ranked = self._clock()
            outputs = [*publication.outputs, *lists]
            await self._publisher.publish(
                outputs,
                publication.offsets,
                self._member,
                fence=dict(list(self._committed.items())[:1]),
                current=lambda: revocations == self._revocations,
            )
        except Unavailable as error:
            self._ledger.undo(publication)
            metrics.RETRIES.labels(self.name, "publish").inc()
            if isinstance(error, Refused):
                metrics.FENCED.labels(self.name).inc()
            if isinstance(error, Revoked):
                if self._draining:
                    return False  # nobody polls any more, so nothing will be this worker's again
            else:
                log.warning("publishing failed; will try again", lane=self.name, error=str(error))
            await asyncio.sleep(self._publish_delay * (0.5 + random.random()))  # noqa: S311  jitter
            self._publish_delay = min(2 * self._publish_delay, BACKOFF_S[1])
            return True
        except BaseException:
            self._ledger.undo(publication)
            raise
        self._publish_delay = BACKOFF_S[0]
        self._ledger.done(publication, self._clock())
        self._committed |= {
            source: offset for source, offset in publication.offsets.items() if source in self._committed
        }
        metrics.LISTS.labels(self.name).inc(len(publication.due))
        metrics.STAGE_SECONDS.labels(self.name, metrics.RANK).observe(ranked - started)
        metrics.STAGE_SECONDS.labels(self.name, metrics.PUBLISH).observe(self._clock() - ranked)
        metrics.REFRESH_SECONDS.labels(self.name).observe(self._clock() - started)
        return True

    async def _check_identities(self) -> None:
        """Makes sure, now and then, that the topics are still those that were assigned."""
        if self._clock() - self._identities_checked < IDENTITY_CHECK_S:
            return
        found = await asyncio.to_thread(describe_topics, self._admin, self._topics)
        for topic, known in self._identities.items():
            if topic not in found or found[topic].id != known:
                raise LogRecreated(
                    f"{topic} was deleted or created anew while it was read", hint="`penchant topics check` tells more."
                )
        self._identities_checked = self._clock()

    # Assignment. librdkafka calls these in the consuming thread, inside `poll`; the loop is free meanwhile.

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        starts = self._find_starts(consumer, partitions)
        if starts is None:
            return
        assigned = [TopicPartition(topic, number, start.offset) for (topic, number), start in starts.items()]
        if self._settings.kafka.group_protocol == "consumer":
            consumer.incremental_assign(assigned)
        else:
            consumer.assign(assigned)
        if starts:
            log.info("assigned", lane=self.name, partitions=len(starts), starts=describe(starts))
        self._call(self._assigned(starts))

    def _find_starts(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[SourceKey, Start] | None:
        """Where to start, as soon as broker and store both say; None if the lane is stopped before that."""
        delay = BACKOFF_S[0]
        while not self._stopping:
            try:
                found = self._describe(consumer, partitions)
                stored = self._call(self._covered(found))
                starts = {
                    source: start_of(f"{source[0]}[{source[1]}]", found[source], stored.get(source)) for source in found
                }
                self._set_back(consumer, {source: start.offset for source, start in starts.items()})
            except Unavailable as error:
                log.warning("cannot start yet", lane=self.name, error=str(error))
                time.sleep(delay)
                delay = min(2 * delay, BACKOFF_S[1])
            else:
                return starts
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

    def _set_back(self, consumer: Consumer, starts: Mapping[SourceKey, int]) -> None:
        """Commits where to start, where more than that is committed: the store was set back, and lists are owed anew.

        Else a crash after the store has caught up, and before the lists are published, would leave them owed for good.
        """
        ahead = {source: start for source, start in starts.items() if start < self._committed.get(source, start)}
        if not ahead:
            return
        try:
            consumer.commit(offsets=topic_partitions(ahead), asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in GENERATION_ERRORS:
                raise broker_error(error) from error
            return  # whoever has these partitions next does it
        self._committed |= ahead

    def _describe(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[SourceKey, PartitionLog]:
        if not partitions:
            return {}
        try:
            identities = describe_topics(self._admin, {partition.topic for partition in partitions})
            committed = consumer.committed(list(partitions), ASSIGN_TIMEOUT_S)
            found: dict[SourceKey, PartitionLog] = {}
            for partition in committed:
                low, high = consumer.get_watermark_offsets(partition, ASSIGN_TIMEOUT_S, cached=False)
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
                raise Unavailable(f"the client has yet to hear of what it was assigned ({error})") from error
            raise broker_error(error) from error
        except KeyError as error:
            raise Unavailable(f"the topic {error} cannot be described yet") from None
        self._identities |= {topic: identity.id for topic, identity in identities.items()}
        self._committed |= {source: part.committed for source, part in found.items() if part.committed is not None}
        return found

    async def _assigned(self, starts: Mapping[SourceKey, Start]) -> None:
        # Once more: a batch in hand for the partitions that stayed may have brought users of these back into memory.
        await self._handler.release()
        for (topic, number), start in starts.items():
            self._assignment += 1
            self._assignments[topic, number] = self._assignment
            self._expected[topic, number] = start.offset
            self._committed.setdefault((topic, number), start.offset)
            if start.lost:
                metrics.LOST_TO_RETENTION.labels(self.name, topic).inc(start.lost)
                log.error(
                    "records are gone that were not applied: the broker's retention removed them",
                    lane=self.name, topic=topic, partition=number, records=start.lost,
                )  # fmt: skip
        self._joined.set()

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        sources = {(partition.topic, partition.partition) for partition in partitions}
        # The client remembers a pause beyond the assignment: what comes back would be silent for good.
        consumer.resume([TopicPartition(*source) for source in sources & self._paused])
        self._call(self._revoked(sources))

    async def _revoked(self, partitions: set[SourceKey]) -> None:
        """Drops the unconfirmed work of partitions that go.

        It does not wait for a publication under way, which may itself wait for the polling thread: the group's
        generation decides whether that one still counts.
        """
        self._revocations += 1
        for source in partitions:
            for known in (self._assignments, self._expected, self._committed):
                known.pop(source, None)
        self._paused -= partitions
        self._ledger.revoke(partitions)
        await self._handler.release()

    # Plumbing.

    def _call(self, coroutine: Awaitable[T]) -> T:
        """Runs a coroutine on the loop from the consuming thread."""
        return asyncio.run_coroutine_threadsafe(as_coroutine(coroutine), self._loop).result()

    async def _retried(self, step: str, attempt: Callable[[], Awaitable[T]], batch: Batch | None = None) -> T | None:
        """Tries until it succeeds, with growing, jittered pauses; None if the batch is nobody's any more."""
        delay = BACKOFF_S[0]
        while batch is None or self._owned(batch):
            try:
                return await attempt()
            except Unavailable as error:
                metrics.RETRIES.labels(self.name, step).inc()
                log.warning("not available; will try again", lane=self.name, step=step, error=str(error))
                await asyncio.sleep(delay * (0.5 + random.random()))  # noqa: S311  jitter
                delay = min(2 * delay, BACKOFF_S[1])
        return None

    async def _leave(self) -> None:
        self._joined.clear()
        try:
            await asyncio.wait_for(self._member.close(), LEAVE_S)
        except (KafkaException, RuntimeError, TimeoutError) as error:
            log.debug("consumer not closed", lane=self.name, error=str(error))
        await self._revoked(set(self._expected))  # where the client has not said so itself

    async def _close(self) -> None:
        self._stopping = True  # also for the polling thread, which may be looking for where to start
        await self._leave()
        await self._publisher.close()


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Any awaitable as a coroutine."""
    return await awaitable
