"""Making a store anew, from beginning to end: passes over the old store, until little changes."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from penchant.encoders.embedder import Embedder
from penchant.encoders.media import MediaReader
from penchant.parts import Parts, build_parts
from penchant.profile.cache import ItemVectors
from penchant.profile.remade import State
from penchant.profile.store.base import CollectionLayout, SearchFilter
from penchant.reindex.coverage import Coverage
from penchant.reindex.items import ItemCopier, Lossy, Plan, batches, plan_of
from penchant.reindex.profiles import copy_points, copy_profiles, profile_batches
from penchant.reindex.sides import InUse, Sides, sides_of
from penchant.reindex.tally import Summary, Tally
from penchant.settings import Settings
from penchant.streams.making import ItemMaker

__all__ = ["Progress", "reindex"]

# What is being done, how much of it is done, and how much there is; 0: that is not known.
Progress = Callable[[str, int, int], None]

PASSES = 5
FEW = 64  # items: what a pass takes for so few, a worker that starts catches up with


def reindex(old: Settings, new: Settings, *, progress: Progress | None = None) -> Summary:
    """Makes a store for other encoders from the one that there is. Workers may run on that meanwhile.

    Cut short, it goes on where it was when it is called again. Called again when it is done, and as long as no worker
    has used the new store, it brings that up to date.

    Args:
        old: settings of the store that there is.
        new: of the one to be made.
        progress: is told how far it is.

    Raises:
        ConfigurationError: one cannot be made from the other, or a worker has used the new one.
        Unavailable: a store does not answer, or the worker that has the old one.
    """
    return asyncio.run(remade(sides_of(old, new), progress or (lambda *_: None)))


async def remade(sides: Sides, tell: Progress) -> Summary:
    """See `reindex`."""
    started = time.monotonic()
    parts, plan = build_parts(sides.new), plan_of(sides.old.encoders, sides.new.encoders)
    async with contextlib.AsyncExitStack() as stack:
        await parts.open(half_made=True)
        stack.push_async_callback(parts.store.close)
        embedder = Embedder(sides.new.encoders)
        stack.push_async_callback(embedder.close)
        media = await stack.enter_async_context(MediaReader(sides.new.encoders))
        making = Making(sides, parts, plan, ItemMaker(embedder, media, parts.places), tell)
        calibration = await making.run()
    return Summary(
        tally=making.tally,
        embedded=plan.embedded,
        taken=plan.taken,
        calibration=calibration,
        seconds=time.monotonic() - started,
    )


class Making:
    """Makes one store from another.

    Args:
        sides: of the change.
        target: the store to be made, open.
        plan: what to embed.
        maker: embeds for it.
        tell: is told how far it is.
    """

    def __init__(self, sides: Sides, target: Parts, plan: Plan, maker: ItemMaker, tell: Progress) -> None:
        self.tally = Tally()
        self._sides = sides
        self._target = target
        self._plan = plan
        self._maker = maker
        self._tell = tell
        self._coverage = Coverage(sides)
        self._lost: set[Lossy] = set()

    async def run(self) -> str:
        """Makes it; gives the fingerprint of its calibration, if it has one.

        Raises:
            InUse: there is something else in it, or a worker uses it or has used it.
        """
        await self._check()
        items = FEW
        while items >= FEW and self.tally.passes < PASSES:
            items = -self.tally.items
            self._tell("copying the old store", 0, 0)
            async with self._sides.source() as source:
                ahead = await self._coverage.load(source)  # before anything else: whatever comes now is read again
                await self._begin()
                await self._pass(source)
            await self._coverage.save(self._target, ahead)
            self.tally.passes += 1
            items += self.tally.items
        self._tell("calibrating", 0, 0)
        calibration = await self._target.calibrations.in_force(self._sides.new.recommend.calibrate_at)
        await self._target.store.flush()  # what the note speaks of, and then the note
        await self._target.remade.move(State.WHOLE, among=[State.HALF_MADE])
        await self._target.store.flush()
        return "" if calibration is None else calibration.fingerprint

    async def _check(self) -> None:
        """Looks whether anything may be made of the store, before anything is asked of the old one."""
        target = self._target
        state = await target.remade.state()
        if state is State.IN_USE:
            raise InUse
        if state is None:
            layouts = (target.items.layout, target.profiles.layout, *self._sides.apart(target))
            if await self._coverage.load(target) or any([await counted(target, layout) for layout in layouts]):
                raise InUse

    async def _begin(self) -> None:
        """Notes that the store is being made, unless a worker has it."""
        if not await self._target.remade.move(State.HALF_MADE, among=(None, State.WHOLE, State.HALF_MADE)):
            raise InUse
        await self._target.store.flush()

    async def _pass(self, source: Parts) -> None:
        """One pass: what places items in the graph first, then items, then the profiles that look at them."""
        target = self._target
        for layout in self._sides.apart(source):
            self._tell(f"copying {layout.name}", 0, 0)
            await copy_points(source.store, target.store, layout, self._coverage.points())
        started = time.monotonic()
        await self._items(source)
        self.tally.items_s += time.monotonic() - started
        started = time.monotonic()
        await self._profiles(source)
        self.tally.profiles_s += time.monotonic() - started

    async def _items(self, source: Parts) -> None:
        target, done, total = self._target, 0, await counted(source, source.items.layout)
        copier = ItemCopier(
            self._maker,
            self._plan,
            before=source.space,
            items=target.items,
            places=target.places,
            tally=self.tally,
            lost=self._lost,
        )
        async for stored in batches(source.items.all(), self._plan):
            await copier.copy(stored)
            done += len(stored)
            self._tell("embedding items", done, total)

    async def _profiles(self, source: Parts) -> None:
        target, done, total = self._target, 0, await counted(source, source.profiles.layout)
        kept = self._sides.new.profile
        # Of this pass alone: one that remembers items from before would see them as they were.
        vectors = ItemVectors(target.items, capacity=kept.cached_items, ttl_s=kept.item_cache_s)
        async for profiles in profile_batches(source.profiles):
            self.tally.profiles += await copy_profiles(profiles, target.profiles, vectors, target.horizons)
            done += len(profiles)
            self._tell("computing profiles", done, total)


async def counted(parts: Parts, layout: CollectionLayout) -> int:
    """How many points a collection has, positions among them."""
    return await parts.store.count(layout.name, SearchFilter())
