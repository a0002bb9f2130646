"""The Faust application: the one module that knows Faust.

Faust's own consumer acknowledges what it takes whether or not it was handled, so nothing that must be exact enters
through it. A lane hands a whole batch over as one message of an in-memory channel; the agent on that channel
handles it and resolves the message's future; the lane then commits. What is low in rate and idempotent, the facts
of the knowledge graph, is read by an ordinary topic agent, acknowledged after it is in the store.
"""

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import faust
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from mode.threads import WorkerThread
from mode.utils.queues import FlowControlEvent, ThrowableQueue
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.settings import Settings
from penchant.streams.lane import Batch, Handler, Lane, Submit
from penchant.streams.ledger import Handled
from penchant.streams.records import Record
from penchant.streams.topics import Topic

__all__ = ["StreamApp", "knowledge_group"]

KNOWLEDGE_GROUP = "penchant-knowledge"
LISTEN_S = 0.01


class Job(Struct, frozen=True, eq=False):
    """A batch on its way through a channel, and where its outcome is awaited."""

    batch: Batch
    outcome: asyncio.Future[Handled]


class DaemonThread(WorkerThread):  # type: ignore[misc]  # mode ships no types
    """A thread that no process waits for at its end.

    Stopping Faust while it starts may leave the thread of its consumer running, for ever: one that has not reported
    itself started is not told to stop.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.daemon = True


AIOKafkaConsumerThread.Worker = DaemonThread


class BatchChannel(faust.Channel):  # type: ignore[misc]  # faust ships no types
    """A channel that keeps what it was given.

    Whenever the partitions of Faust's own consumer group move, Faust holds back and then empties the queues of its
    channels, and streams skip the events that were made before: it reads them again. Nobody would send a batch again,
    for the lane waits for its outcome. So batches wait in a queue of their own kind, and travel as bare jobs: only
    what is wrapped in an event is ever skipped.
    """

    @property
    def queue(self) -> ThrowableQueue:
        """What jobs wait in; each listener has its own."""
        if self._queue is None:
            self._queue: ThrowableQueue = ThrowableQueue(
                maxsize=1, flow_control=FlowControlEvent(initially_suspended=False)
            )
        return self._queue


class StreamApp:
    """The lanes' agents and the knowledge agent.

    Args:
        settings: of this process.
        keep_triple: takes a record of the `triples` topic; returns when it is in the store.

    Raises:
        ConfigurationError: the data folder cannot be written.
    """

    def __init__(self, settings: Settings, keep_triple: Callable[[Record], Awaitable[None]]) -> None:
        folder = settings.data_dir / "faust"  # Faust creates no more than the last part of the path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"The folder {settings.data_dir} cannot be used: {error.strerror}",
                hint="Set `data_dir` to a folder of yours.",
            ) from error
        self._app = faust.App(
            knowledge_group(settings),
            broker=[f"kafka://{server.strip()}" for server in settings.kafka.bootstrap_servers.split(",")],
            broker_credentials=credentials(settings),
            datadir=str(folder),
            autodiscover=False,
            consumer_group_instance_id=settings.instance_id,
            topic_allow_declare=False,  # `penchant topics create` does that, with the right configuration
            topic_disable_leader=True,
            table_standby_replicas=0,
            web_enabled=False,
            loop=asyncio.get_running_loop(),
        )
        self._services: list[LaneService] = []
        self._starting: asyncio.Task[None]
        self._add_triples(settings.prefixed(Topic.TRIPLES), keep_triple)

    def submit_to(self, handler: Handler, lane: str, topics: tuple[str, ...]) -> Submit:
        """Agents that handle the batches of a lane, one for each of its topics."""
        channels = {topic: self._channel(handler, f"{lane}-{topic}") for topic in topics}

        async def submit(batch: Batch) -> Handled:
            outcome: asyncio.Future[Handled] = asyncio.get_running_loop().create_future()
            # A channel hands its messages to those who listen now: sent before its agent does, a batch would be lost.
            while not channels[batch.topic].subscriber_count:  # noqa: ASYNC110  Faust tells nobody when that changes
                await asyncio.sleep(LISTEN_S)
            await channels[batch.topic].put(Job(batch, outcome))
            return await outcome

        return submit

    def add(self, lane: Lane) -> None:
        """Runs a lane as a service of the application."""
        self._services.append(LaneService(lane))

    async def start(self) -> None:
        """Starts agents and lanes.

        Faust calls itself started when its own group has settled, which after a crash takes that group's session
        time-out. The lanes do not wait for it: their agents read no topic.
        """
        self._starting = asyncio.create_task(self._app.start(), name="faust")
        for service in self._services:
            await service.start()

    @property
    def running(self) -> list[asyncio.Future[None]]:
        """What runs: each future is done when its part has ended, and holds what it failed with."""
        return [self._starting, *(service.running for service in self._services)]

    async def stop(self) -> None:
        """Stops the lanes in order, while their agents still work, then everything else."""
        await asyncio.gather(*(service.finish() for service in self._services), return_exceptions=True)
        self._starting.cancel()
        await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(service.stop() for service in self._services))
        await self._app.stop()

    def _channel(self, handler: Handler, name: str) -> Any:
        channel = BatchChannel(self._app)

        async def agent(stream: Any) -> None:
            async for job in stream:
                await carry_out(job, handler)

        self._app.agent(channel, name=name)(agent)
        return channel

    def _add_triples(self, name: str, keep: Callable[[Record], Awaitable[None]]) -> None:
        topic = self._app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", allow_empty=True
        )

        async def knowledge(stream: Any) -> None:
            async for event in stream.events():
                await keep(record_of(event.message))

        self._app.agent(topic, name=KNOWLEDGE_GROUP)(knowledge)


class LaneService(faust.Service):  # type: ignore[misc]  # faust ships no types
    """A lane as a Faust service.

    Args:
        lane: to run.
    """

    logger = logging.getLogger("faust.lane")  # which tells of starting and stopping no louder than Faust itself

    def __init__(self, lane: Lane) -> None:
        super().__init__()
        self.lane = lane
        self.running: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_start(self) -> None:
        """Begins to take records."""
        self._task = asyncio.create_task(self.lane.run(), name=self.lane.name)
        self._task.add_done_callback(self._ended)

    async def finish(self) -> None:
        """Stops the lane in order."""
        self.lane.stop()
        await self.running

    async def on_stop(self) -> None:
        """Ends the lane at once where it has not finished."""
        self.lane.stop()
        if not self.running.done():
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.running.done():
            return
        if task.cancelled():
            self.running.cancel()
        elif (error := task.exception()) is not None:
            self.running.set_exception(error)
        else:
            self.running.set_result(None)


def knowledge_group(settings: Settings) -> str:
    """The consumer group that keeps facts in a store: each store has one of its own.

    Nothing in the store says how far it covers the facts, so a store that takes another's place must not go on from
    what that one's group has committed: it reads all facts, which are few, and keeps what is news.
    """
    store = settings.store
    place = f"{store.url} {store.grpc_port}" if store.url else str(settings.data_dir.resolve())
    return settings.prefixed(f"{KNOWLEDGE_GROUP}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}")


async def carry_out(job: Job, handler: Handler) -> None:
    """Handles a job's batch. Whatever goes wrong is the lane's to judge: here it would restart the agent."""
    try:
        outcome = await handler.handle(job.batch)
    except Exception as error:  # noqa: BLE001  see above
        if not job.outcome.done():
            job.outcome.set_exception(error)
    else:
        if not job.outcome.done():
            job.outcome.set_result(outcome)


def credentials(settings: Settings) -> Any:
    """Faust's form of the security options that librdkafka is given."""
    options = settings.kafka.options
    protocol = str(options.get("security.protocol", "plaintext")).lower()
    context = None
    if protocol.endswith("ssl"):
        authority = options.get("ssl.ca.location")
        context = ssl.create_default_context(cafile=None if authority is None else str(authority))
    if protocol.startswith("sasl"):
        return faust.SASLCredentials(
            username=str(options.get("sasl.username", "")),
            password=str(options.get("sasl.password", "")),
            mechanism=str(options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN"))),
            ssl_context=context,
        )
    return None if context is None else faust.SSLCredentials(context)


def record_of(message: Any) -> Record:
    """A Faust message as a record."""
    headers = message.headers or {}
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp=round(message.timestamp * 1_000),
        key=message.key,
        value=message.value,
        headers={name: value or b"" for name, value in pairs},
    )
