"""What tests of the profile room share: a small space and an embedded store of their own."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Item, Items
from penchant.profile.profiles import Profiles
from penchant.profile.state import Limits
from penchant.profile.store.edge import EdgeStore

HOUR_MS = 3_600_000


@pytest.fixture
def space() -> Space:
    """Two slices of few components."""
    return Space((Slice("text", 4, 0.6, "t1"), Slice("image", 3, 0.4, "i1")))


@pytest.fixture
def horizons() -> Horizons:
    """The usual half-lives."""
    return Horizons(short_ms=8 * HOUR_MS, long_ms=50 * 24 * HOUR_MS, short_share_at=3.0)


@pytest.fixture
def limits() -> Limits:
    """Small enough for truncation to happen."""
    return Limits(strong=8, weak=6, seen_bits=1_024)


@pytest.fixture
def identity() -> Identity:
    """Keyed for tests."""
    return Identity("a key for tests")


@pytest.fixture
async def edge(tmp_path: Path, space: Space, identity: Identity, limits: Limits) -> AsyncIterator[EdgeStore]:
    """An embedded store with the collections of items and profiles."""
    store = EdgeStore(tmp_path / "store")
    layouts = Items(store, "items", space).layout, Profiles(store, "profiles", space, identity, limits).layout
    await store.open(layouts)
    yield store
    await store.close()


@pytest.fixture
def items(edge: EdgeStore, space: Space) -> Items:
    """The store's items."""
    return Items(edge, "items", space)


@pytest.fixture
def profiles(edge: EdgeStore, space: Space, identity: Identity, limits: Limits) -> Profiles:
    """The store's profiles."""
    return Profiles(edge, "profiles", space, identity, limits)


@pytest.fixture
def vectors(items: Items) -> ItemVectors:
    """The items' vectors, remembered for so short a time that every reading is fresh."""
    return ItemVectors(items, capacity=1_000, ttl_s=1e-9)


@pytest.fixture
def catalogue(items: Items, space: Space) -> Callable[..., object]:
    """Puts listed items with random content into the store; gives their vectors by id."""

    async def put(*item_ids: str, seed: int = 0, version: int = 1, **changes: object) -> dict[str, np.ndarray]:
        generator = np.random.default_rng(seed)
        made = {}
        for item_id in item_ids:
            vector = generator.normal(size=space.dimension)
            made[item_id] = (vector / np.linalg.norm(vector)).astype(np.float32)
        stored = [
            (Item(**{"item_id": item_id, "version": (version, version, 0), "listed": True, **changes}), vector)
            for item_id, vector in made.items()
        ]
        await items.put(stored)
        return made

    return put
