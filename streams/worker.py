"""A worker: its lanes and what goes on beside them, run upon the parts and stopped in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from penchant.deep.mode import DeepMode
from penchant.encoders.embedder import Embedder
from penchant.encoders.media import MediaReader
from penchant.errors import ConfigurationError, Unavailable
from penchant.parts import Parts, build_parts
from penchant.profile.positions import Positions
from penchant.profile.ranking.calibrations import Recalibration
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings
from penchant.streams import affinity, content, interest, learner
from penchant.streams.anyone import Anyone
from penchant.streams.app import StreamApp
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, encode
from penchant.streams.connection import manages_transactions, partition_of
from penchant.streams.entities import EntityKeeper
from penchant.streams.events import ANYONE, ItemReady
from penchant.streams.hearing import Asking
from penchant.streams.http import HttpPort, build_api
from penchant.streams.interpret import Reader
from penchant.streams.knowledge import KnowledgeKeeper
from penchant.streams.lane import Handler, Lane
from penchant.streams.publish import Courier, open_publisher
from penchant.streams.records import Output
from penchant.streams.sweep import Sweeper, arrivals
from penchant.streams.topics import Topic, describe_topics, topic_specs
from penchant.streams.weights import Standing, follow

__all__ = ["LANES", "serve"]

log = structlog.get_logger()

LANES = (content.LANE, interest.LANE, affinity.LANE, learner.LANE)
COURIER_TIMEOUT_MS = 30_000
RETRY_S = 1.0
TOGETHER = 32  # takes' worth of records that the interest lane handles at once at most where it is behind

T = TypeVar("T")


@contextlib.asynccontextmanager
async def serve(settings: Settings, lanes: Sequence[str] = LANES) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Runs a worker within a block; gives a function to await its failure with.

    Leaving the block stops it in order: what was begun is finished, published and committed, within
    `worker.stop_timeout_s`; what takes longer is left to the next start.
    """
    unknown = set(lanes) - set(LANES)
    if unknown or not lanes:
        raise ConfigurationError(f"Unknown lanes: {', '.join(sorted(unknown))}", hint=f"Known: {', '.join(LANES)}.")
    async with contextlib.AsyncExitStack() as stack:
        port = HttpPort(settings.worker)
        stack.push_async_callback(port.close)
        await await_topics(settings)
        settings = await as_broker_allows(settings)
        parts = build_parts(settings)
        await opened(parts, stack)
        courier = Courier(settings, delivery_timeout_ms=COURIER_TIMEOUT_MS)
        stack.callback(courier.close)
        app = StreamApp(settings, KnowledgeKeeper(parts.graph, courier, settings.prefixed(Topic.DEAD_LETTERS)).keep)
        running: dict[str, Lane] = {}
        tasks: list[asyncio.Task[None]] = []
        reader = Reader(parts.identity, settings.profile)
        if content.LANE in lanes:
            embedder = Embedder(settings.encoders)
            stack.push_async_callback(embedder.close)
            tasks.append(asyncio.create_task(warmed_up(embedder, running), name="warm-up"))
            keeper = EntityKeeper(parts.entities, parts.places, settings.fusion.graph_dimension)
            media = await stack.enter_async_context(MediaReader(settings.encoders))
            handler: Handler = content.ContentHandler(settings, reader, embedder, parts.items, keeper, media=media)
            running[content.LANE] = lane = build_lane(settings, parts, app, handler, content.LANE)
            tasks.append(asyncio.create_task(follower(settings, keeper, lane), name="places"))
        if interest.LANE in lanes:
            running[interest.LANE] = lane = build_interest_lane(settings, parts, app, reader)
            tasks.append(asyncio.create_task(parts.ranker.shelf.run(), name="shelf"))
            tasks.append(asyncio.create_task(sweeper(settings, parts, courier, lane).run(), name="sweep"))
            tasks.append(asyncio.create_task(for_anyone(settings, parts, courier, lane).run(), name="anyone"))
        if affinity.LANE in lanes:
            handler = affinity.AffinityHandler(settings, parts.rows)
            running[affinity.LANE] = build_lane(settings, parts, app, handler, affinity.LANE)
        if learner.LANE in lanes:
            handler = learner.LearnerHandler(settings, parts.ranker.features)
            running[learner.LANE] = build_lane(settings, parts, app, handler, learner.LANE)
        weights = Standing(settings, parts.ranker.features, parts.ranker.weigh)
        if weights.learning:
            tasks.append(asyncio.create_task(follow(settings, weights.take), name="weights"))
        tasks.append(asyncio.create_task(calibrated(settings, parts), name="calibration"))
        api = build_api(
            parts.profiles,
            parts.ranker,
            parts.space,
            lambda: {name: lane.ready for name, lane in running.items()},
            parts.store.snapshot,
            calibrate=partial(recalibrate, settings, parts),
            weights=weights.view,
            host=settings.worker.http_host,
        )
        port.serve(api)
        stack.push_async_callback(cancelled, tasks)
        await app.start()
        stack.push_async_callback(stopped, app, settings.worker.stop_timeout_s)
        log.info("working", lanes=list(lanes), http=f"http://{settings.worker.http_host}:{port.port}")
        yield lambda: first_failure([*app.running, *tasks])


async def opened(parts: Parts, stack: contextlib.AsyncExitStack) -> None:
    """Opens the parts, which `stack` closes.

    Raises:
        ConfigurationError: content is to rank alone, and cannot.
    """
    mode = parts.ranker.mode
    await retried(parts.open)
    stack.push_async_callback(parts.store.close)
    await retried(parts.remade.claim)
    if isinstance(mode, DeepMode):
        mode.check_graph(await retried(parts.entities.in_force))


def build_interest_lane(settings: Settings, parts: Parts, app: StreamApp, reader: Reader) -> Lane:
    """The lane that writes profiles and makes lists; where it is behind, lists wait."""
    updater = ProfileUpdater(
        parts.profiles, parts.vectors, parts.horizons, parts.limits, capacity=settings.profile.cached_profiles
    )
    handler = interest.InterestHandler(settings, reader, updater, parts.vectors, parts.ranker)
    lane = build_lane(settings, parts, app, handler, interest.LANE)
    handler.behind = lane.behind
    return lane


def build_lane(settings: Settings, parts: Parts, app: StreamApp, handler: Handler, name: str) -> Lane:
    """A lane of this worker, run by the application."""
    group, inputs, layout = {
        content.LANE: (content.GROUP, content.TOPICS, parts.items.layout),
        interest.LANE: (interest.GROUP, interest.TOPICS, parts.profiles.layout),
        affinity.LANE: (affinity.GROUP, affinity.TOPICS, parts.rows.layout),
        learner.LANE: (learner.GROUP, learner.TOPICS, None),  # what it learns says itself how far it is
    }[name]
    topics = tuple(settings.prefixed(topic) for topic in inputs)
    is_content = name == content.LANE
    lane = Lane(
        name,
        group=group,
        topics=topics,
        settings=settings,
        handler=handler,
        submit=app.submit_to(handler, name, topics),
        positions=Positions(parts.store, layout.name, settings.prefixed(group)) if layout else None,
        publisher=open_publisher(settings, name),
        batch_records=settings.worker.content_batch_records if is_content else settings.worker.batch_records,
        together=TOGETHER if name == interest.LANE else 1,
    )
    app.add(lane)
    return lane


def sweeper(settings: Settings, parts: Parts, courier: Courier, lane: Lane) -> Sweeper:
    """Sweeps wherever partition 0 of `item-ready` is: one worker among all."""
    topic = settings.prefixed(Topic.ITEM_READY)

    async def announce(found: Sequence[ItemReady]) -> None:
        await courier.send(
            [
                Output(
                    topic=topic,
                    key=ready.user_id.encode(),
                    value=encode(ready),
                    headers={CONTENT_TYPE: MSGPACK},
                )
                for ready in found
            ]
        )

    return Sweeper(
        lambda: arrivals(parts.profiles, parts.items),
        announce,
        lambda: lane.owns(topic, 0),
        interval_s=settings.worker.sweep_interval_s,
    )


def for_anyone(settings: Settings, parts: Parts, courier: Courier, lane: Lane) -> Anyone:
    """Publishes the list for anyone wherever a user of that name would have one: one worker among all."""
    clicks, partition = settings.prefixed(Topic.CLICKS), partition_of(ANYONE.encode(), settings.kafka.partitions)
    return Anyone(
        parts.profiles,
        parts.ranker,
        courier.send,
        lambda: lane.owns(clicks, partition),
        topic=settings.prefixed(Topic.RECOMMENDATIONS),
        interval_s=settings.worker.sweep_interval_s,
    )


def follower(settings: Settings, keeper: EntityKeeper, lane: Lane) -> Coroutine[None, None, None]:
    """Fills in places wherever partition 0 of `graph-model` is: one worker among all."""
    topic = settings.prefixed(Topic.GRAPH_MODEL)
    return keeper.follow(lambda: lane.owns(topic, 0), interval_s=settings.worker.sweep_interval_s)


async def await_topics(settings: Settings) -> None:
    """Waits for the broker; all topics must be there.

    Raises:
        ConfigurationError: some are missing.
    """
    names = [spec.name for spec in topic_specs(settings)]
    broker = Asking(settings)

    async def describe() -> set[str]:
        return set(await asyncio.to_thread(broker.ask, lambda admin: describe_topics(admin, names)))

    missing = sorted(set(names) - await retried(describe))
    if missing:
        raise ConfigurationError(
            f"Topics are missing: {', '.join(missing)}", hint="`penchant topics create` creates them."
        )


async def as_broker_allows(settings: Settings) -> Settings:
    """The settings, without transactions where the broker is known to manage none."""
    if not settings.kafka.transactions or await retried(lambda: asyncio.to_thread(manages_transactions, settings)):
        return settings
    log.warning("this broker manages no transactions: publishing at least once")
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"transactions": False})})


async def retried(attempt: Callable[[], Awaitable[T]]) -> T:
    """Tries until a part answers."""
    while True:
        try:
            return await attempt()
        except Unavailable as error:
            log.warning("not available; will try again", error=str(error))
            await asyncio.sleep(RETRY_S)


async def stopped(app: StreamApp, timeout_s: float) -> None:
    """Stops the application within a deadline."""
    try:
        async with asyncio.timeout(timeout_s):
            await app.stop()
    except TimeoutError:
        log.warning("not finished in time; the next start goes on from what is committed")


async def calibrated(settings: Settings, parts: Parts) -> None:
    """Has the ranker compare by the calibration in force: the first, once the catalogue is large enough, and others."""
    token: int | None = None
    fingerprint = ""
    while True:
        standing = await retried(parts.calibrations.token)
        if standing is None or standing != token:
            found = await retried(lambda: parts.calibrations.in_force(settings.recommend.calibrate_at))
            token = standing  # of the one before, or none, where it was made just now: looked at once more
            if found is not None and found.fingerprint != fingerprint:
                fingerprint = found.fingerprint
                parts.ranker.calibrate(found)
                log.info("content is centred and whitened", calibration=fingerprint)
        await asyncio.sleep(settings.worker.sweep_interval_s)


async def recalibrate(settings: Settings, parts: Parts, folder: Path) -> Recalibration:
    """Makes a calibration of the catalogue as it is, and puts it in force; all workers take it within seconds.

    Args:
        settings: of this process.
        parts: of it.
        folder: of the embedded store that is meant.

    Raises:
        PenchantError: the store is another one, or the catalogue is too small.
        Unavailable: the store does not answer.
    """
    if settings.store.url or folder != (settings.data_dir / "store").resolve():
        raise ConfigurationError(
            f"This worker's store is not {folder}",
            hint="worker.http_host and worker.http_port must be those of the worker that runs on this data_dir.",
        )
    return await parts.calibrations.renew()


async def warmed_up(embedder: Embedder, lanes: Mapping[str, Lane]) -> None:
    """Loads the models as soon as the lanes work: that takes the interpreter for seconds, and clicks need not wait."""
    for lane in lanes.values():
        await lane.joined()
    await embedder.warm_up()


async def cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Ends tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def first_failure(running: Sequence[asyncio.Future[None]]) -> None:
    """Returns when all have ended, raises what the first failed with; leaves them running if it is cancelled."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    for ended in done:
        ended.result()
