"""What a store holds, read so that it can be compared with the log while workers write it."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sys import intern
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from pydantic import SecretStr

from penchant.errors import ConfigurationError
from penchant.parts import Parts, build_parts
from penchant.profile.cache import Bounded
from penchant.profile.identity import OWN_PREFIX
from penchant.profile.items import Item, Items
from penchant.profile.positions import Position, Positions
from penchant.profile.profiles import Profile
from penchant.profile.signals import Signal
from penchant.profile.store.edge_shard import copy_shards
from penchant.settings import Settings
from penchant.streams import interest
from penchant.streams.records import SourceKey
from penchant.verify.choice import Choice, Named
from penchant.verify.report import Fact
from penchant.verify.snapshot import STORE, take_snapshot
from penchant.verify.views import views_of

__all__ = ["Held", "Kept", "at_baseline", "at_rest", "awaited", "read_sets", "read_store"]

TOLERANCE = 1e-5
CHUNK = 128  # profiles
HTTP_PORT = 6_333

ItemVector = NDArray[np.float32] | None
T = TypeVar("T")


class Kept(Struct, frozen=True, kw_only=True):
    """A profile as stored, without its vectors.

    Attributes:
        deviation: of its vectors from those of its signals and items.
        newest_item_ms: when the newest version of its items was published, or one of them placed in the knowledge graph
            anew, where the vectors deviate.
        forgotten: items that are missing in the store, and that the profile does not wait for.
    """

    strong: tuple[Fact, ...]
    weak: tuple[Fact, ...]
    waits: bool = False
    deviation: float = 0.0
    newest_item_ms: int = 0
    forgotten: tuple[str, ...] = ()


class Held(Struct, frozen=True, kw_only=True):
    """What a store holds: at least what its positions cover."""

    positions: dict[SourceKey, Position]
    users: dict[str, Kept]


@contextmanager
def at_rest(settings: Settings) -> Iterator[Settings]:
    """The store as it is now, in a place where nobody else writes it; a server's store is read where it is."""
    if settings.store.url:
        yield settings
        return
    with temporary_data(settings) as moved:
        take_snapshot(settings, moved.data_dir / STORE)
        yield moved


@contextmanager
def at_baseline(settings: Settings, baseline: str) -> Iterator[Settings]:
    """A snapshot, in a place where it may be opened: opening writes. One restored on a server is read there.

    Args:
        settings: of this process.
        baseline: the snapshot's folder, or a Qdrant server's address. Its gRPC port is the one after its HTTP port.
    """
    if "://" in baseline:
        port = (urlsplit(baseline).port or HTTP_PORT) + 1
        changes: dict[str, object] = {"url": baseline, "grpc_port": port}
        if urlsplit(baseline).hostname != urlsplit(settings.store.url).hostname:
            changes["api_key"] = SecretStr("")  # the key is for the other host alone
        store = settings.store.model_copy(update=changes)
        yield settings.model_copy(update={"store": store})
        return
    if not Path(baseline).is_dir():
        raise ConfigurationError(f"{baseline} is no snapshot's folder", hint="`penchant snapshot` makes one.")
    with temporary_data(settings) as moved:
        copy_shards(Path(baseline), moved.data_dir / STORE)
        yield moved


@contextmanager
def temporary_data(settings: Settings) -> Iterator[Settings]:
    """The same settings with the embedded store in a new folder beside the store, where there is space for one."""
    beside = settings.data_dir if settings.data_dir.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="verify-", dir=beside) as folder:
        store = settings.store.model_copy(update={"url": ""})
        yield settings.model_copy(update={"data_dir": Path(folder).resolve(), "store": store})


def read_sets(settings: Settings, partitions: Collection[SourceKey], choice: Choice) -> Held:
    """A store's positions, and what profiles hold; their vectors are not looked at."""
    return awaited(read(settings, partitions, choice, views=False))


def read_store(settings: Settings, partitions: Collection[SourceKey], choice: Choice) -> Held:
    """A store's positions, and what profiles hold, with how far their vectors are from those of their signals."""
    return awaited(read(settings, partitions, choice, views=True))


def awaited(reading: Coroutine[Any, Any, T]) -> T:
    """What `reading` gives.

    Not as the result of the task that `asyncio.run` makes: Python before 3.11.8 and 3.12.1 writes that out as text,
    twice, which for a large store takes minutes and much memory.
    """
    found: list[T] = []

    async def keep() -> None:
        found.append(await reading)

    asyncio.run(keep())
    return found[0]


async def read(settings: Settings, partitions: Collection[SourceKey], choice: Choice, *, views: bool) -> Held:
    """Reads positions first, so that the profiles read after them hold at least what they cover."""
    parts = build_parts(settings)
    await parts.store.open([parts.items.layout, parts.profiles.layout], create=False)
    try:
        group = settings.prefixed(interest.GROUP)
        positions = await Positions(parts.store, parts.profiles.layout.name, group).load(partitions)
        viewer = Viewer(parts, settings)
        users: dict[str, Kept] = {}
        async for profiles in chunks(chosen(parts, choice)):
            users |= await viewer.kept(profiles) if views else {profile.user: bare(profile) for profile in profiles}
        return Held(positions=positions, users=users)
    finally:
        await parts.store.close()


async def chosen(parts: Parts, choice: Choice) -> AsyncIterator[Profile]:
    """The profiles of those who are chosen."""
    if isinstance(choice, Named):
        for profile in (await parts.profiles.load(choice.users)).values():
            yield profile
        return
    async for profile in parts.profiles.all():
        if choice.admit(profile.user):
            yield profile


async def chunks(profiles: AsyncIterator[Profile]) -> AsyncIterator[list[Profile]]:
    """Profiles, some at a time."""
    some: list[Profile] = []
    async for profile in profiles:
        some.append(profile)
        if len(some) == CHUNK:
            yield some
            some = []
    if some:
        yield some


class Viewer:
    """Compares vectors with those that the signals beside them and the items' stored vectors make."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self.items: Items = parts.items
        self.dimension = parts.space.dimension
        self.settings = settings.profile
        self.known: Bounded[str, tuple[ItemVector]] = Bounded(settings.profile.cached_items)

    async def kept(self, profiles: Sequence[Profile]) -> dict[str, Kept]:
        """What profiles hold, and how far their vectors are off."""
        wanted = {signal.item_id for profile in profiles for signal in profile.state.signals}
        stored = await self.vectors(wanted)
        return {profile.user: await self.one(profile, stored) for profile in profiles}

    async def one(self, profile: Profile, stored: dict[str, ItemVector]) -> Kept:
        """One profile. What it waits for does not count yet, even if it has come since: a sweep will see to that."""
        kept = bare(profile)
        facts = [*kept.strong, *kept.weak]
        needed = {fact.item_id for fact in facts} - profile.awaits
        content = {item_id: vector for item_id in needed if (vector := stored.get(item_id)) is not None}
        views = views_of(facts, content, self.dimension, self.settings)
        pairs = zip(views, (profile.short, profile.long, profile.interest), strict=True)
        deviation = max(float(np.abs(view - vector).max(initial=0)) for view, vector in pairs)
        newest_item_ms = 0
        if deviation > TOLERANCE:
            # A user's own items are announced to them when they change: they excuse nothing.
            edited = [item_id for item_id in content if not item_id.startswith(OWN_PREFIX)]
            items = (await self.items.get(edited)).values()
            newest_item_ms = max((max(item.version[1], placed_ms(item)) for item in items), default=0)
        return Kept(
            strong=kept.strong,
            weak=kept.weak,
            waits=bool(profile.awaits),
            deviation=deviation,
            newest_item_ms=newest_item_ms,
            forgotten=tuple(sorted(needed - stored.keys())),
        )

    async def vectors(self, item_ids: Collection[str]) -> dict[str, ItemVector]:
        """The vectors of the items that exist; None for those without content."""
        known = {item_id: entry[0] for item_id in item_ids if (entry := self.known.get(item_id)) is not None}
        found = await self.items.vectors([item_id for item_id in item_ids if item_id not in known])
        for item_id, vector in found.items():
            self.known.put(item_id, (vector,))
        return known | found


def placed_ms(item: Item) -> int:
    """When an item was last placed in the knowledge graph, epoch milliseconds."""
    return 0 if item.placed is None else item.placed.at


def bare(profile: Profile) -> Kept:
    """What a profile holds; its vectors are not looked at."""
    return Kept(strong=facts_of(profile.state.strong), weak=facts_of(profile.state.weak))


def facts_of(signals: Sequence[Signal]) -> tuple[Fact, ...]:
    """Signals as ordinary tuples."""
    return tuple(
        Fact(signal.time, signal.event_id, intern(signal.item_id), signal.action.value, signal.weight)
        for signal in signals
    )
