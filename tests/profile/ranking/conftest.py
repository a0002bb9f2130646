"""What tests of ranking share: an affinity collection beside items and profiles, and profiles made of signals."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from penchant.profile.affinity import Transition
from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.rows import Rows
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits
from penchant.profile.store.edge import EdgeStore
from penchant.profile.updater import ProfileUpdater

NOW = 1_750_000_000_000


@pytest.fixture
async def edge(tmp_path: Path, space: Space, identity: Identity, limits: Limits) -> AsyncIterator[EdgeStore]:
    """An embedded store with the collections that ranking reads."""
    store = EdgeStore(tmp_path / "store")
    layouts = Items(store, "items", space).layout, Profiles(store, "profiles", space, identity, limits).layout
    await store.open([*layouts, Rows(store, "affinity").layout])
    yield store
    await store.close()


@pytest.fixture
def rows(edge: EdgeStore) -> Rows:
    """The store's rows."""
    return Rows(edge, "affinity")


@pytest.fixture
def liked(rows: Rows) -> Callable[..., Awaitable[None]]:
    """Notes that an item was liked so many times, after others."""
    noted = 0

    async def note(item_id: str, *before: str, times: int = 1, at: int = NOW) -> None:
        nonlocal noted
        previous = tuple((one, 0.9**place) for place, one in enumerate(before))
        made = [
            Transition(item_id=item_id, at=at, previous=previous, origin=("clicks", 0), offset=noted + number)
            for number in range(times)
        ]
        noted += times
        await rows.apply({item_id: made})

    return note


@pytest.fixture
def profile_of(
    profiles: Profiles, vectors: ItemVectors, horizons: Horizons, limits: Limits
) -> Callable[..., Awaitable[Profile]]:
    """A user's profile after signals on items, a millisecond apart."""

    async def make(user: str, *item_ids: str, action: Action = Action.LIKE, weight: float = 2.0) -> Profile:
        updater = ProfileUpdater(profiles, vectors, horizons, limits, capacity=10)
        signals = [
            Signal(NOW + place, f"{user}-{place}", item_id, action, weight) for place, item_id in enumerate(item_ids)
        ]
        await updater.apply({user: signals})
        return (await updater.read([user]))[user]

    return make
