"""A worker: builds the parts that the settings ask for, runs them, and stops them in order."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TypeVar

import structlog
from msgspec import Struct
from threadpoolctl import threadpool_limits

from penchant.deep.mode import DeepMode, deep_mode
from penchant.encoders.embedder import Embedder
from penchant.encoders.embedder import space as encoder_space
from penchant.encoders.media import MediaReader
from penchant.errors import ConfigurationError, Unavailable
from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Space, space_of
from penchant.profile.graph import Graph
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.places import Entities, Places
from penchant.profile.positions import Positions
from penchant.profile.profiles import Profiles
from penchant.profile.ranking.calibrations import Calibrations, Recalibration
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.fused import FORMULAS, Mode, mode_of
from penchant.profile.ranking.priors import pinned_weights, prior_weights
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.remade import HalfMade, Remade
from penchant.profile.rows import Rows
from penchant.profile.state import Limits
from penchant.profile.store.base import Store
from penchant.profile.store.open import open_store
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

__all__ = ["LANES", "Parts", "build_parts", "run_worker", "serve", "tune_process"]

log = structlog.get_logger()

LANES = (content.LANE, interest.LANE, affinity.LANE, learner.LANE)
COURIER_TIMEOUT_MS = 30_000
RETRY_S = 1.0
TOGETHER = 32  # takes' worth of records that the interest lane handles at once at most where it is behind
LEFT_TASKS_S = 2.0
SWITCH_S = 0.001  # until a thread that waits for the interpreter gets it
# Of objects made, before the collector looks for cycles among them; and of such looks, before it looks at older ones.
COLLECT_AT = (50_000, 20, 50)
FORCE_AFTER_S = 10.0  # behind the deadline for what is in hand: for closing the store, and models that still load

T = TypeVar("T")


class Parts(Struct, frozen=True, kw_only=True):
    """The parts of a worker that know nothing of Kafka."""

    store: Store
    space: Space
    identity: Identity
    limits: Limits
    horizons: Horizons
    items: Items
    profiles: Profiles
    rows: Rows
    graph: Graph
    entities: Entities
    places: Places
    vectors: ItemVectors
    ranker: Ranker
    calibrations: Calibrations
    remade: Remade

    async def open(self, *, create: bool = True, half_made: bool = False) -> None:
        """Opens the store with the collections that the parts need; one that cannot be used is closed again.

        Args:
            create: false: all of them must be there.
            half_made: also a store that is still being made from another one.

        Raises:
            HalfMade: it is.
            NoCollection: a collection is missing and is not to be created.
        """
        parts = (self.items, self.profiles, self.rows, self.graph, self.entities, self.calibrations)
        await self.store.open([part.layout for part in parts], create=create)
        if not half_made:
            try:
                await self.remade.check()
            except HalfMade:
                await self.store.close()
                raise


def build_parts(
    settings: Settings, space: Space | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Parts:
    """The parts that the settings ask for, not yet opened.

    Args:
        settings: of this process.
        space: of content; None: that of the encoders and of the graph.
        clock: seconds, by which the ranker remembers what trends.

    Raises:
        ConfigurationError: a weight is pinned of a feature that there is not.
    """
    store = open_store(settings)
    space = space or worker_space(settings)
    identity = Identity(settings.id_key.get_secret_value())
    profile = settings.profile
    limits = Limits(strong=profile.strong_limit, weak=profile.weak_limit, seen_bits=profile.seen_bits)
    horizons = Horizons(
        short_ms=profile.short_half_life_ms,
        long_ms=profile.long_half_life_ms,
        short_share_at=profile.short_share_at,
    )
    items = Items(store, settings.encoded("items"), space)
    vectors = ItemVectors(items, capacity=profile.cached_items, ttl_s=profile.item_cache_s)
    graph = Graph(store, settings.prefixed("triples"))
    entities = Entities(store, settings.prefixed("entities"))
    rows = Rows(store, settings.prefixed("affinity"))
    calibrations = Calibrations(store, settings.encoded("calibration"), items)
    features = (*content_names(part.name for part in space.slices), *BEHAVIOUR)
    ranker = Ranker(
        items,
        rows,
        vectors,
        identity,
        horizons=horizons,
        weights=pinned_weights(prior_weights(features), settings.recommend.weights, settings.recommend.returning),
        calibration=Calibration(),
        count=settings.recommend.count,
        candidates=settings.recommend.candidates,
        relevance_share=settings.recommend.relevance,
        reasons=settings.recommend.reasons,
        fusion=fusion_of(settings, space),
        exploration=settings.recommend.exploration,
        exact_items=settings.recommend.exact_items,
        clock=clock,
    )
    return Parts(
        store=store,
        space=space,
        identity=identity,
        limits=limits,
        horizons=horizons,
        items=items,
        profiles=Profiles(store, settings.encoded("profiles"), space, identity, limits),
        rows=rows,
        graph=graph,
        entities=entities,
        places=Places(items, entities, graph),
        vectors=vectors,
        ranker=ranker,
        calibrations=calibrations,
        remade=Remade(store, calibrations.layout),
    )


def worker_space(settings: Settings) -> Space:
    """The space of the encoders and of the graph."""
    encoders = encoder_space(settings.encoders)
    return space_of(
        encoders.dimensions,
        encoders.fingerprints,
        settings.fusion.shares | encoders.shares(settings.fusion.shares),
        graph_dimension=settings.fusion.graph_dimension,
    )


def fusion_of(settings: Settings, space: Space) -> Callable[[Calibration], Mode] | None:
    """What makes the mode that content alone ranks by; None: all features rank.

    A model is loaded when it is first asked for, by what makes lists alone.

    Raises:
        ConfigurationError: weights of features are pinned, and none ranks.
    """
    fusion = settings.fusion
    if fusion.mode == "learned":
        return None
    if settings.recommend.weights or settings.recommend.returning:
        raise ConfigurationError(
            f"recommend.weights and recommend.returning weigh features, and fusion.mode {fusion.mode} ranks by none",
            hint="Remove them, or set fusion.mode to learned.",
        )
    if fusion.mode == "deep":
        loaded = cache(partial(deep_mode, fusion.deep_model, space))
        return lambda _: loaded()
    shares = {part.name: part.share for part in space.slices}
    foreign = shares.keys() - fusion.shares.keys()
    if foreign and fusion.mode in FORMULAS:
        raise ConfigurationError(
            f"fusion.mode {fusion.mode} is a formula of {', '.join(fusion.shares)}; encoders fill {', '.join(foreign)}",
            hint="Choose weighted, average, concat, attention or learned, or encoders that share no slice.",
        )
    return lambda calibration: mode_of(fusion.mode, calibration, shares)


def run_worker(settings: Settings, lanes: Sequence[str] = LANES) -> None:
    """Runs a worker until SIGINT or SIGTERM.

    Args:
        settings: of this process.
        lanes: which of `LANES` it runs.

    Raises:
        PenchantError: something that waiting does not heal.
    """
    tune_process()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        try:
            loop.run_until_complete(serve_until_signalled(settings, lanes))
        finally:
            loop.run_until_complete(ended())


def tune_process() -> None:
    """Sets what holds for all of the process: how numpy, the collector of cycles and threads use the machine.

    Products here are small and come by the thousand: a second thread would spin between them and take a core from
    those who work. (What encodes has threads of its own.) And profiles by the thousand are no garbage: to look through
    all of them again and again took a fifth of the time. A click crosses from thread to thread half a dozen times, and
    each waits for the interpreter as long as another is busy: for less than the usual 5 ms, it is a third sooner there.
    """
    threadpool_limits(1, user_api="blas")
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)


async def ended() -> None:
    """Cancels the tasks that others have left, and does not wait for those that take no notice, as Faust's may."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LEFT_TASKS_S)


async def serve_until_signalled(settings: Settings, lanes: Sequence[str]) -> None:
    """Serves until a signal asks to stop, which it may do before broker and store have answered."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    started = asyncio.Event()
    serving = asyncio.create_task(serve_until(stop, settings, lanes, started))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done() and not started.is_set():
        serving.cancel()
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def serve_until(stop: asyncio.Event, settings: Settings, lanes: Sequence[str], started: asyncio.Event) -> None:
    """Serves until `stop` or a failure; says when it has started."""
    with contextlib.ExitStack() as at_last:
        async with serve(settings, lanes) as failed:
            started.set()
            stopping = asyncio.create_task(stop.wait())
            failing = asyncio.ensure_future(failed())
            await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping", lanes=list(lanes))
            for others in ("asyncio", "mode", "faust", "aiokafka"):  # which complain of being stopped while they start
                logging.getLogger(others).setLevel(logging.CRITICAL + 1)
            error = failing.exception() if failing.done() else None
            if error is not None:
                log.error("cannot go on", error=str(error))
            status = 0 if error is None else getattr(error, "exit_code", 1)
            at_last.enter_context(ending_at_last(settings.worker.stop_timeout_s + FORCE_AFTER_S, status=status))
            stopping.cancel()
            if failing.done():
                failing.result()
            failing.cancel()


@contextlib.contextmanager
def ending_at_last(after_s: float, *, status: int) -> Iterator[None]:
    """Ends the process if the block takes too long, whatever hangs: a crash does no harm, and a stop has a deadline."""

    def end() -> None:
        log.warning("some part did not end in time: the process ends without it")
        os._exit(status)

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


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
    parts.ranker.busy = lane.behind
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
