"""Publishing: outputs and the offsets of the inputs they come from, together.

With transactions a reader of committed records sees each output once, and a worker that has lost its partitions
publishes nothing: the broker checks the consumer group's generation when the offsets are added. Without them
(a broker that manages none) outputs are flushed first and offsets committed after: at least once.
"""

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import structlog
from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from penchant.errors import Unavailable
from penchant.settings import Settings
from penchant.streams.connection import (
    TRANSACTION_TIMEOUT_MS,
    BrokerUnavailable,
    Fenced,
    broker_error,
    open_producer,
    open_transactional_producer,
)
from penchant.streams.hearing import Asking
from penchant.streams.member import Member, Offsets, topic_partitions
from penchant.streams.records import Output

__all__ = ["GENERATION_ERRORS", "Courier", "Publisher", "Refused", "Revoked", "open_publisher"]

log = structlog.get_logger()

TIMEOUT_S = 10.0
MAX_RESUMES = 1
ASK_AGAIN_S = 1.0
HANGS_S = TRANSACTION_TIMEOUT_MS / 1_000  # after that the broker has aborted the transaction by itself

T = TypeVar("T")


class Revoked(Unavailable):
    """The partitions were taken away before their work could be committed. Their new owner does it again."""


class Refused(Revoked):
    """The broker says so: it has refused a publication."""


class Hanging(BrokerUnavailable):
    """A call of the client does not come back."""


class Uncertain(BrokerUnavailable):
    """A commit failed, and may have been done all the same."""


class Publisher(Protocol):
    """Publishes what a lane owes."""

    async def open(self) -> None:
        """Prepares for publishing; with transactions this ends what a crashed predecessor left open."""

    async def publish(
        self,
        outputs: Sequence[Output],
        offsets: Offsets,
        member: Member,
        *,
        fence: Offsets,
        current: Callable[[], bool],
    ) -> None:
        """Publishes outputs and commits offsets.

        Args:
            outputs: records.
            offsets: next offset by topic and partition; none where the outputs bring no input to its end.
            fence: offsets to commit again in that case: without any, a stale worker would not be noticed.
            member: of the group whose offsets they are.
            current: whether the partitions are still this worker's.

        Raises:
            Revoked: they are not.
            Unavailable: nothing was committed, or it is not known; publish again.
        """

    async def close(self) -> None:
        """Releases the producer."""


def open_publisher(settings: Settings, lane: str) -> Publisher:
    """The publisher that the settings ask for."""
    return TransactionalPublisher(settings, lane) if settings.kafka.transactions else AtLeastOncePublisher(settings)


class TransactionalPublisher:
    """Each publication is one Kafka transaction.

    Args:
        settings: of this process.
        lane: names the transactions, with the worker's instance id.
    """

    def __init__(self, settings: Settings, lane: str) -> None:
        self._settings = settings
        self._lane = lane
        self._broker = Asking(settings)
        self._producer: Producer | None = None
        self._step = 0  # the one waited for; a thread that hung in one before may do nothing more

    async def open(self) -> None:
        await self._run(self._initialise)

    async def publish(
        self,
        outputs: Sequence[Output],
        offsets: Offsets,
        member: Member,
        *,
        fence: Offsets,
        current: Callable[[], bool],
    ) -> None:
        try:
            await self._run(
                lambda step: self._transaction(
                    step, outputs=outputs, offsets=offsets, member=member, fence=fence, current=current
                )
            )
        except (Hanging, Uncertain) as error:
            if isinstance(error, Hanging):
                log.warning("a transaction hangs: a new producer takes over", lane=self._lane)
                self._producer = None
            if not offsets or not await self._stood(member.group, offsets):
                raise

    async def close(self) -> None:
        """Nothing to release: the client goes with its last reference."""

    async def _stood(self, group: str, offsets: Offsets) -> bool:
        """Whether a transaction of unknown outcome was committed; asks until somebody knows.

        Publishing again what stands would show it twice to readers.
        """
        while True:
            try:
                return await self._run(lambda step: self._stands(step, group, offsets))
            except Unavailable as error:
                log.warning("a transaction's outcome is not known yet", lane=self._lane, error=str(error))
                await asyncio.sleep(ASK_AGAIN_S * (0.5 + random.random()))  # noqa: S311  jitter

    async def _run(self, function: Callable[[int], T]) -> T:
        """Runs a step in a thread that nobody waits for at the end: the client's calls may hang for good.

        `send_offsets_to_transaction` ignores its timeout, and loses its answer where the group's coordinator is
        restarted at that moment (librdkafka's issues 5456 and 5511).

        Raises:
            Hanging: the step does.
        """
        self._step += 1
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def work(step: int) -> None:
            done = Future[T]()
            try:
                done.set_result(function(step))
            except BaseException as error:  # noqa: BLE001  it is raised where someone waits
                done.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(hand_over, done, outcome)

        threading.Thread(target=work, args=(self._step,), name=f"publish-{self._lane}", daemon=True).start()
        try:
            return await asyncio.wait_for(outcome, HANGS_S)
        except TimeoutError:
            raise Hanging("the broker's part of a transaction hangs") from None

    def _initialise(self, step: int) -> Producer:
        producer = open_transactional_producer(self._settings, self._lane)
        try:
            producer.init_transactions(TIMEOUT_S)
        except KafkaException as error:
            raise as_unavailable(error) from error
        self._check(step)
        self._producer = producer
        return producer

    def _transaction(
        self,
        step: int,
        *,
        outputs: Sequence[Output],
        offsets: Offsets,
        member: Member,
        fence: Offsets,
        current: Callable[[], bool],
    ) -> None:
        producer = self._producer or self._initialise(step)
        committing = False
        try:
            producer.begin_transaction()
            deliveries = Deliveries(producer)
            for output in outputs:
                deliveries.produce(output)
            deliveries.wait()  # before the offsets: sending them first takes twenty times as long
            # Taken before `current` is asked: if the partitions go after that, they go with this generation.
            metadata = member.metadata
            if not current():
                raise Revoked("the partitions were revoked")
            resumed(producer.send_offsets_to_transaction, topic_partitions(offsets or fence), metadata, TIMEOUT_S)
            self._check(step)
            committing = True
            resumed(producer.commit_transaction, TIMEOUT_S)
        except KafkaException as error:
            self._recover(producer, error)
            if committing:
                raise Uncertain(f"a commit failed ({error.args[0].name()})") from error
            raise as_unavailable(error) from error
        except Unavailable:
            self._abort(producer)
            raise

    def _check(self, step: int) -> None:
        """Ends a step that nobody waits for any more: another is under way in its place."""
        if step != self._step:
            raise Hanging("this step was given up")

    def _stands(self, step: int, group: str, offsets: Offsets) -> bool:
        """Whether a transaction that failed or hung was committed all the same.

        A new producer of the same name first ends what the former left open; then the group's offsets tell.
        """
        if self._producer is None:
            self._initialise(step)
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(*source) for source in offsets])

        def stands(admin: AdminClient) -> bool:
            try:
                found = admin.list_consumer_group_offsets([asked], require_stable=True, request_timeout=TIMEOUT_S)
                known = found[group].result().topic_partitions
            except KafkaException as error:
                raise as_unavailable(error) from error
            # Where others have gone further they have published as well.
            return all(part.offset >= offsets[part.topic, part.partition] for part in known)

        return self._broker.ask(stands)

    def _recover(self, producer: Producer, error: KafkaException) -> None:
        """Aborts, or gives the producer up where it cannot go on."""
        cause: KafkaError = error.args[0]
        if cause.fatal():
            log.warning("producer lost", lane=self._lane, error=cause.name())
            self._drop(producer)
        else:
            self._abort(producer)

    def _abort(self, producer: Producer) -> None:
        try:
            producer.abort_transaction(TIMEOUT_S)
        except KafkaException as error:
            # Also where there is nothing to abort any more; a new producer ends whatever is left open.
            log.debug("transaction not aborted", lane=self._lane, error=error.args[0].name())
            self._drop(producer)

    def _drop(self, producer: Producer) -> None:
        if self._producer is producer:  # and not one that has taken over from it
            self._producer = None


def hand_over(done: Future[T], waiting: asyncio.Future[T]) -> None:
    """Passes on what came of a step, if somebody still waits for it."""
    if waiting.done():
        return
    if (error := done.exception()) is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(done.result())


class AtLeastOncePublisher:
    """Flushes outputs, then commits offsets: a crash between the two publishes again.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._courier = Courier(settings, delivery_timeout_ms=0)

    async def open(self) -> None:
        """Nothing to prepare."""

    async def publish(
        self,
        outputs: Sequence[Output],
        offsets: Offsets,
        member: Member,
        *,
        fence: Offsets,  # noqa: ARG002  the publishers' protocol: without transactions nothing fences
        current: Callable[[], bool],
    ) -> None:
        if not current():
            raise Revoked("the partitions were revoked")
        await self._courier.send(outputs)
        if not current():
            raise Revoked("the partitions were revoked")
        if not offsets:
            return
        try:
            await asyncio.to_thread(member.commit, offsets)
        except KafkaException as error:
            raise as_unavailable(error) from error

    async def close(self) -> None:
        self._courier.close()


class Courier:
    """Sends records outside of any transaction, and waits until the broker has them.

    Args:
        settings: of this process.
        delivery_timeout_ms: after which a record is given up; 0: never.
    """

    def __init__(self, settings: Settings, *, delivery_timeout_ms: int) -> None:
        self._producer = open_producer(settings, delivery_timeout_ms=delivery_timeout_ms)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="courier")

    async def send(self, outputs: Sequence[Output]) -> None:
        """Sends records.

        Raises:
            Unavailable: not all were delivered in time; some may have been.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._send, outputs)

    def close(self) -> None:
        """Ends the thread that sends."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _send(self, outputs: Sequence[Output]) -> None:
        deliveries = Deliveries(self._producer)
        try:
            for output in outputs:
                deliveries.produce(output)
            deliveries.wait()
        except KafkaException as error:
            raise as_unavailable(error) from error


class Deliveries:
    """Records on their way, and the first that failed.

    Args:
        producer: sends them.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._failed: KafkaError | None = None

    def produce(self, output: Output) -> None:
        """Queues a record; waits where the producer's queue is full."""
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    key=output.key,
                    value=output.value,
                    headers=list(output.headers.items()),
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def wait(self) -> None:
        """Waits until all records are delivered.

        Raises:
            Unavailable: some were not in time.
            KafkaException: some failed.
        """
        try:
            left = self._producer.flush(TIMEOUT_S)
        except SystemError as error:  # what the client makes of a fatal error that it meets among deliveries
            raise KafkaException(KafkaError(KafkaError._FATAL, str(error), fatal=True)) from error  # noqa: SLF001  its name
        if left:
            raise Unavailable("records were not delivered in time", hint="Is the broker running?")
        if self._failed is not None:
            raise KafkaException(self._failed)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self._failed is None:
            self._failed = error


# The group has moved on, or is about to: the work belongs to someone else by the time it is asked for again.
GENERATION_ERRORS = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,  # also by its own return to the group after a long pause
    }
)


def resumed(call: Callable[..., None], *arguments: object) -> None:
    """Calls a step of a transaction, and again where it timed out: calling it again resumes it."""
    for _ in range(MAX_RESUMES):
        try:
            return call(*arguments)
        except KafkaException as error:
            if not error.args[0].retriable():
                raise
    return call(*arguments)


def as_unavailable(error: KafkaException) -> Exception:
    """What a failed publication means: only refusals are final, all else may be tried again."""
    if error.args[0].code() in GENERATION_ERRORS:
        return Refused(f"the group has moved on ({error.args[0].name()})")
    mapped = broker_error(error)
    # A producer is fenced also by its own time-out, after a long pause. Whether another worker has this one's name,
    # its consumer is told.
    return Unavailable(str(mapped)) if isinstance(mapped, Fenced) else mapped
