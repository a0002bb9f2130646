"""What the tests of the defences play on: one log, one store, and workers in this process that come, sleep and crash.

A worker here is the interest lane with all of its real parts, on real Kafka and the real embedded engine. Several of
them share one store, as workers on a server do, and each has memories of its own. Being in the test's own process they
can be stopped at a chosen line, which a worker in a process of its own cannot: between the write to the store and the
transaction, or between a check and what it allows.
"""

import asyncio
import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Item, Items
from penchant.profile.positions import Positions
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.ranking.features import content_names
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.rows import Rows
from penchant.profile.state import Limits
from penchant.profile.store.base import Store
from penchant.profile.store.edge import EdgeStore
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings
from penchant.streams.codec import CONTENT_TYPE, MSGPACK, decode, encode
from penchant.streams.connection import partition_of
from penchant.streams.events import Click, ClickAction, Recommendations
from penchant.streams.inbox import Batch, Inbox
from penchant.streams.interest import GROUP, LANE, TOPICS, InterestHandler
from penchant.streams.interpret import Reader
from penchant.streams.lane import Lane
from penchant.streams.ledger import Handled
from penchant.streams.publish import AtLeastOncePublisher, open_publisher
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.stage import Stage

NOW = 1_750_000_000_000
ITEMS = tuple(f"item-{number}" for number in range(8))
SPACE = Space((Slice("text", 3, 0.5, "t"), Slice("image", 2, 0.5, "i")))
IDENTITY = Identity("a key for tests")
HORIZONS = Horizons(short_ms=8 * 3_600_000, long_ms=50 * 86_400_000, short_share_at=3.0)
LIMITS = Limits(strong=50, weak=50, seen_bits=1_024)
PARTITIONS = 3
WAIT_S = 60.0
# A rebalance is noticed with the next heartbeat; by default that is three seconds away.
QUICK = {"heartbeat.interval.ms": 200}


class Sleep:
    """A point at which a worker falls asleep, once, until it is woken."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._over = threading.Event()

    @property
    def reached(self) -> bool:
        """Whether somebody has come to this point."""
        return self._reached.is_set()

    def here(self) -> None:
        """Falls asleep; blocks the thread."""
        self._reached.set()
        assert self._over.wait(WAIT_S), "nobody was woken"

    def wake(self) -> None:
        """Ends the sleep; nobody falls asleep here any more."""
        self._over.set()


class Shelf:
    """A store with items and profiles, and the parts that read and write them.

    Args:
        store: opened by `open`.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.items = Items(store, "items", SPACE)
        self.profiles = Profiles(store, "profiles", SPACE, IDENTITY, LIMITS)
        self.rows = Rows(store, "affinity")

    async def open(self) -> "Shelf":
        """Opens the collections."""
        await self.store.open([self.items.layout, self.profiles.layout, self.rows.layout])
        return self

    async def put_items(self, *item_ids: str) -> None:
        """Puts listed items with content of their own."""
        contents = []
        for item_id in item_ids:
            vector = np.random.default_rng(list(item_id.encode())).normal(size=SPACE.dimension)
            item = Item(item_id=item_id, version=(1, 1, 0), listed=True)
            contents.append((item, (vector / np.linalg.norm(vector)).astype(np.float32)))
        await self.items.put(contents)

    def updater(self) -> ProfileUpdater:
        """An updater with memories of its own."""
        vectors = ItemVectors(self.items, capacity=100, ttl_s=1_000)
        return ProfileUpdater(self.profiles, vectors, HORIZONS, LIMITS, capacity=100)

    def handler(self, settings: Settings) -> InterestHandler:
        """An interest lane's handler with memories of its own."""
        vectors = ItemVectors(self.items, capacity=100, ttl_s=1_000)
        updater = ProfileUpdater(self.profiles, vectors, HORIZONS, LIMITS, capacity=100)
        ranker = Ranker(
            self.items,
            self.rows,
            vectors,
            IDENTITY,
            horizons=HORIZONS,
            weights=prior_weights(content_names(part.name for part in SPACE.slices)),
            calibration=Calibration(),
            count=3,
            candidates=8,
            relevance_share=0.8,
            reasons=1,
        )
        return InterestHandler(settings, Reader(IDENTITY, settings.profile), updater, vectors, ranker)

    async def stored(self) -> dict[str, Profile]:
        """All profiles, by user."""
        return {profile.user: profile async for profile in self.profiles.all()}

    async def signals(self) -> dict[str, Counter[str]]:
        """By user, how often each event is in the stored profile."""
        return {
            user: Counter(signal.event_id for signal in profile.state.signals)
            for user, profile in (await self.stored()).items()
        }


class Stalling:
    """A store of which one kind of call to one collection stalls, once.

    Args:
        store: that is asked in the end.
        call: "retrieve" or "write".
        collection: that it is about.
        answered: stall with the answer in hand, and not with the question.

    Attributes:
        reached: set where the call stalls.
        go: to be set to end that.
    """

    def __init__(self, store: Store, call: str, collection: str, *, answered: bool) -> None:
        self._store = store
        self._call = call
        self._collection = collection
        self._answered = answered
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return partial(self._stalling, method) if name == self._call else method

    async def _stalling(self, method: Callable[..., Any], collection: str, *arguments: Any, **options: Any) -> Any:
        stalls = collection == self._collection and not self.reached.is_set()
        if stalls and not self._answered:
            await self._stall()
        answer = await method(collection, *arguments, **options)
        if stalls and self._answered:
            await self._stall()
        return answer

    async def _stall(self) -> None:
        self.reached.set()
        await self.go.wait()


class ObservedPublisher:
    """A publisher whose worker may fall asleep in the midst of publishing, and that keeps how it went.

    Args:
        publisher: that of the settings.
        sleep: where it falls asleep, if it does: after it sent its outputs and, with transactions, was told that the
            partitions are its own; before it commits.
        before_sending: there instead; without transactions, after it was told that the partitions are its own.

    Attributes:
        failures: what publications failed with.
        published: keys of the records that were published.
    """

    def __init__(self, publisher: Any, sleep: Sleep | None, *, before_sending: bool) -> None:
        self._publisher = publisher
        self._sleep = sleep
        self._before_sending = before_sending
        self.failures: list[Exception] = []
        self.published: set[bytes | None] = set()
        if sleep is not None and isinstance(publisher, AtLeastOncePublisher):
            self._sleep = None
            drowsy: Any = DrowsyCourier(publisher._courier, sleep, before_sending=before_sending)
            publisher._courier = drowsy

    async def open(self) -> None:
        """As the publisher."""
        await self._publisher.open()

    async def publish(
        self, outputs: Sequence[Output], *arguments: Any, current: Callable[[], bool], **options: Any
    ) -> None:
        """As the publisher."""
        if self._sleep is not None and self._before_sending:
            await asyncio.to_thread(self._sleep.here)
        try:
            await self._publisher.publish(outputs, *arguments, current=lambda: self._asked(current), **options)
        except Exception as error:
            self.failures.append(error)
            raise
        self.published |= {output.key for output in outputs}

    async def close(self) -> None:
        """As the publisher."""
        await self._publisher.close()

    def _asked(self, current: Callable[[], bool]) -> bool:
        answer = current()
        if self._sleep is not None and not self._before_sending:
            self._sleep.here()
        return answer


class DrowsyCourier:
    """A courier whose worker falls asleep right before or after sending."""

    def __init__(self, courier: Any, sleep: Sleep, *, before_sending: bool) -> None:
        self._courier = courier
        self._sleep = sleep
        self._before_sending = before_sending

    async def send(self, outputs: Sequence[Output]) -> None:
        """As the courier."""
        if self._before_sending:
            await asyncio.to_thread(self._sleep.here)
        await self._courier.send(outputs)
        if not self._before_sending:
            await asyncio.to_thread(self._sleep.here)

    def close(self) -> None:
        """As the courier."""
        self._courier.close()


class Worker:
    """A worker's interest lane, in this process.

    Args:
        settings: with its instance id.
        shelf: that it shares with the others.
        sleep: see `ObservedPublisher`; likewise `before_sending`.
        before: awaited before a batch is handed over.
        batch_records: taken at a time.
    """

    def __init__(
        self,
        settings: Settings,
        shelf: Shelf,
        *,
        sleep: Sleep | None = None,
        before_sending: bool = False,
        before: Callable[[Batch], Awaitable[None]] | None = None,
        batch_records: int = 100,
    ) -> None:
        self.handler = shelf.handler(settings)
        self.publisher = ObservedPublisher(open_publisher(settings, LANE), sleep, before_sending=before_sending)
        self.handled = 0
        self._before = before
        self._clicks = settings.prefixed(Topic.CLICKS)
        self.lane = Lane(
            LANE,
            group=GROUP,
            topics=tuple(settings.prefixed(topic) for topic in TOPICS),
            settings=settings,
            handler=self.handler,
            submit=self._submit,
            positions=Positions(shelf.store, "profiles", settings.prefixed(GROUP)),
            publisher=self.publisher,
            batch_records=batch_records,
        )
        self.task = asyncio.create_task(self.lane.run())

    async def _submit(self, batch: Batch) -> Handled:
        if self._before is not None:
            await self._before(batch)
        handled = await self.handler.handle(batch)
        self.handled += len(batch.records)
        return handled

    @property
    def owned(self) -> set[int]:
        """The partitions that it has, of every topic."""
        return {number for number in range(PARTITIONS) if self.lane.owns(self._clicks, number)}

    @property
    def inbox(self) -> Inbox:
        """Batches of clicks that it has taken and not begun."""
        return self.lane._inboxes[self._clicks]

    async def until(self, condition: Callable[[], Any], *others: "Worker") -> None:
        """Waits for a condition; fails at once where this worker or another one has ended."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            for one in (self, *others):
                if one.task.done():
                    one.task.result()
                    raise RuntimeError("the lane has ended")
            if time.monotonic() > deadline:
                raise TimeoutError("this took too long")  # no AssertionError: a judgement is expected to raise those
            await asyncio.sleep(0.01)

    async def until_owns(self, *partitions: int) -> None:
        """Waits until exactly these partitions are its own."""
        await self.until(lambda: self.owned == set(partitions))

    async def until_committed(self, ends: Mapping[int, int]) -> None:
        """Waits until it has published and committed clicks up to given next offsets, by partition."""
        await self.until(
            lambda: all(
                self.lane._held.committed.get((self._clicks, number), 0) >= end and not self.lane._ledger.backlog
                for number, end in ends.items()
            )
        )

    @contextlib.contextmanager
    def not_taking(self) -> Iterator[None]:
        """Takes no records within the block; its client fetches them all the same."""
        go_on = threading.Event()
        self.lane._member._thread.submit(go_on.wait, WAIT_S)
        try:
            yield
        finally:
            go_on.set()

    async def stop(self) -> None:
        """Stops in order."""
        self.lane.stop()
        await asyncio.wait_for(self.task, WAIT_S)

    async def crash(self) -> None:
        """Ends at once, with whatever it was doing."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class World:
    """One namespace on Kafka with one store, what was sent to it, and the workers on it.

    Args:
        stage: the namespace, seen from outside.
        folder: for the store.

    Attributes:
        action: what users do.
    """

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage = stage
        self.action = ClickAction.CLICK
        self.ends: Counter[int] = Counter()  # next offset of each partition of `clicks`
        self.sent: dict[str, set[str]] = {}  # event ids by user
        self._folder = folder
        self._made: list[Worker] = []
        self._sleeps: list[Sleep] = []

    async def open(self) -> "World":
        """Opens the store, with a catalogue."""
        self.shelf = await Shelf(EdgeStore(self._folder / "store")).open()
        await self.shelf.put_items(*ITEMS)
        return self

    async def close(self) -> None:
        """Ends all workers, those asleep too."""
        for sleep in self._sleeps:
            sleep.wake()
        for worker in self._made:
            await worker.crash()
        await self.shelf.store.close()

    def sleep(self) -> Sleep:
        """A point to fall asleep at; whoever still does is woken at the end."""
        self._sleeps.append(Sleep())
        return self._sleeps[-1]

    def worker(
        self, name: str = "one", *, having: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
    ) -> Worker:
        """Starts a worker.

        Args:
            name: its instance id.
            having: settings by section that differ from the world's.
            options: of `Worker`.
        """
        sections = {**(having or {}), "worker": {"instance_id": name}}
        update = {
            section: getattr(self.stage.settings, section).model_copy(update=dict(values))
            for section, values in sections.items()
        }
        made = Worker(self.stage.settings.model_copy(update=update), self.shelf, **options)
        self._made.append(made)
        return made

    async def click(self, user: str, *event_ids: str, copies: int = 1) -> None:
        """Sends clicks of a user, each on an item and at a time of its own; some of them several times."""
        await self.clicks(*((user, event_id) for event_id in event_ids for _ in range(copies)))

    async def clicks(self, *clicks: tuple[str, str]) -> None:
        """Sends clicks, each a user and an event id, all at once."""
        events = [
            Click(
                event_id=event_id,
                user_id=user,
                item_id=ITEMS[number(event_id)],
                action=self.action,
                at=NOW + number(event_id),
            )
            for user, event_id in clicks
        ]
        await self._send([(event.user_id, encode(event)) for event in events])
        for user, event_id in clicks:
            self.sent.setdefault(user, set()).add(event_id)

    async def garbage(self, user: str) -> None:
        """Sends a click that cannot be read, under a user's key."""
        await self._send([(user, b"\x81")])

    async def _send(self, values: Sequence[tuple[str, bytes]]) -> None:
        topic = self.stage.topic(Topic.CLICKS)
        outputs = [
            Output(topic=topic, key=user.encode(), value=value, headers={CONTENT_TYPE: MSGPACK})
            for user, value in values
        ]
        for place in await asyncio.to_thread(self.stage.send, outputs):
            self.ends[place.partition] = place.offset + 1

    async def set_back(self, copy: Path) -> None:
        """Puts a copy of the store in its place."""
        await self.shelf.store.close()
        shutil.rmtree(self._folder / "store")
        shutil.copytree(copy, self._folder / "store")
        self.shelf = await Shelf(EdgeStore(self._folder / "store")).open()

    async def copy_store(self) -> Path:
        """A copy of the store as it is; no worker may use it."""
        await self.shelf.store.close()
        copy = shutil.copytree(self._folder / "store", self._folder / "copy")
        self.shelf = await Shelf(EdgeStore(self._folder / "store")).open()
        return copy

    # What came of it.

    async def last_lists(self) -> dict[str, Recommendations]:
        """Each user's last list, for a reader of committed records."""
        return {
            found.user_id: found
            for record in await asyncio.to_thread(self.stage.read, Topic.RECOMMENDATIONS)
            for found in [decode(Recommendations, record.value, record.headers)]
        }

    async def committed(self) -> dict[int, int]:
        """The group's committed offsets of `clicks`, by partition."""
        found = await asyncio.to_thread(self.stage.committed, LANE)
        return {number: found.get((self.stage.topic(Topic.CLICKS), number), 0) for number in self.ends}

    async def dead_letters(self) -> int:
        """How many dead letters a reader of committed records finds."""
        return len(await asyncio.to_thread(self.stage.read, Topic.DEAD_LETTERS))


def user_in(partition: int) -> str:
    """A user whose records land in a partition."""
    return next(
        user for user in map("user-{}".format, range(99)) if partition_of(user.encode(), PARTITIONS) == partition
    )


def number(event_id: str) -> int:
    """What an event's id ends with: `e7` is the event of the item and the moment number 7."""
    return int(event_id[1:])
