"""Every signal reaches the store exactly once, whoever else writes and whatever fails in between."""

import asyncio
import random

import numpy as np
import pytest

from penchant.profile.cache import ItemVectors
from penchant.profile.interest import interest_views
from penchant.profile.items import Item
from penchant.profile.profiles import Profiles
from penchant.profile.signals import Action, Signal
from penchant.profile.state import ProfileState
from penchant.profile.store.base import StoreUnavailable
from penchant.profile.updater import ProfileUpdater

NOW = 1_750_000_000_000
USERS = [f"user-{number}" for number in range(5)]
ITEMS = [f"item-{number}" for number in range(6)]


def a_signal(number, generator):
    """A signal with an id of its own."""
    action = generator.choice([Action.LIKE, Action.VIEW, Action.HIDE, Action.CLICK])
    return Signal(NOW + generator.randrange(10**7), f"e{number}", generator.choice(ITEMS), action, 1.0)


def stream(count, seed=1):
    """Signals of several users, by user."""
    generator = random.Random(seed)
    made = {user: [] for user in USERS}
    for number in range(count):
        made[generator.choice(USERS)].append(a_signal(number, generator))
    return made


class Faulty:
    """A store that fails where it is told to, before or after the write has been done.

    Attributes:
        plan: what the next writes do: "before", "after", or "" for nothing unusual.
    """

    def __init__(self, store):
        self._store = store
        self.plan = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def write(self, collection, writes):
        """Writes, or fails before or after having written."""
        fault = self.plan.pop(0) if self.plan else ""
        if fault == "before":
            raise StoreUnavailable("failed before the write")
        stands = await self._store.write(collection, writes)
        if fault == "after":
            raise StoreUnavailable("failed after the write")
        return stands


@pytest.fixture
def updater_on(edge, profiles, limits, horizons, vectors):
    """Makes updaters of one store, or of what stands before it."""

    def make(store=edge, *, capacity=100, item_vectors=vectors):
        made = Profiles(store, "profiles", profiles._space, profiles._identity, limits)
        return ProfileUpdater(made, item_vectors, horizons, limits, capacity=capacity)

    return make


@pytest.fixture
def recounted(limits):
    """What the states should be."""

    def recount(signals):
        return {user: ProfileState.empty(limits).adding(mine, limits) for user, mine in signals.items() if mine}

    return recount


async def states(profiles):
    """What the states are, as stored."""
    return {profile.user: profile.state for profile in (await profiles.load(USERS)).values()}


async def test_a_batch_is_in_the_store_when_apply_returns(updater_on, profiles, catalogue, horizons, recounted):
    """States equal a recount, and views a computation from state and items alone."""
    made = await catalogue(*ITEMS)
    signals = stream(200)
    await updater_on().apply(signals)
    stored = await profiles.load(USERS)
    assert {user: profile.state for user, profile in stored.items()} == recounted(signals)
    rows = {name: row for row, name in enumerate(made)}
    for profile in stored.values():
        views = interest_views(
            [profile.state.signals], [profile.state.as_of], rows, np.stack(list(made.values())), horizons
        )
        np.testing.assert_array_equal(profile.short, views.short[0])
        np.testing.assert_array_equal(profile.long, views.long[0])
        np.testing.assert_array_equal(profile.interest, views.interest[0])
        assert profile.rho == views.rho[0]
        assert profile.version == 1


async def test_two_writers_at_once_lose_no_signal(updater_on, profiles, catalogue, recounted):
    """Two updaters with memories of their own write the same users, interleaved, many rounds: all is there."""
    await catalogue(*ITEMS)
    signals = stream(360)
    writers = updater_on(), updater_on()

    async def write(number):
        for start in range(number, 36, 2):
            await writers[number].apply({user: mine[start * 2 : start * 2 + 2] for user, mine in signals.items()})
            await asyncio.sleep(0)

    await asyncio.gather(write(0), write(1))
    applied = {user: mine[:72] for user, mine in signals.items()}
    assert await states(profiles) == recounted(applied)
    # Whoever reads after that sees both writers' signals, or at least all of its own.
    for writer in writers:
        for user, profile in (await writer.read(USERS)).items():
            assert profile.user == user


async def test_a_batch_that_changes_nothing_is_not_written(updater_on, profiles, catalogue):
    """A replay costs no write and moves no version, for one who remembers and for one who does not."""
    await catalogue(*ITEMS)
    signals = stream(100)
    updater = updater_on()
    await updater.apply(signals)
    before = {user: (one.version, one.token) for user, one in (await profiles.load(USERS)).items()}
    await updater.apply(signals)
    await updater_on().apply({user: mine[::-1] + mine[:3] for user, mine in signals.items()})
    await updater.apply({user: [] for user in [*USERS, "a stranger"]})
    assert {user: (one.version, one.token) for user, one in (await profiles.load(USERS)).items()} == before
    assert await profiles.load(["a stranger"]) == {}


async def test_an_awaited_item_counts_once_it_is_there(updater_on, profiles, catalogue):
    """A profile notes what it waits for, counts it when told that it came, and waits no more, for a void one either."""
    updater = updater_on()
    await catalogue("here")
    signals = [
        Signal(NOW + number, name, name, Action.LIKE, 2.0) for number, name in enumerate(["here", "later", "void"])
    ]
    await updater.apply({"ada": signals})
    assert (await profiles.load(["ada"]))["ada"].awaits == {"later", "void"}
    assert [waiting.awaits async for waiting in profiles.waiting()] == [{"later", "void"}]
    before = (await profiles.load(["ada"]))["ada"].interest
    await catalogue("later", seed=5)
    await updater.apply({"ada": []})
    now = (await profiles.load(["ada"]))["ada"]
    assert now.awaits == {"void"}
    assert (now.interest != before).any()
    assert now.state.signals == tuple(reversed(signals))


async def test_a_void_item_is_awaited_by_nobody(updater_on, items, profiles):
    """What will never have content keeps nobody waiting."""
    await items.put([(Item(item_id="void", version=(1, 1, 0), listed=False), None)])
    await updater_on().apply({"ada": [Signal(NOW, "e", "void", Action.LIKE, 2.0)]})
    assert (await profiles.load(["ada"]))["ada"].awaits == frozenset()
    assert [waiting async for waiting in profiles.waiting()] == []


@pytest.mark.parametrize("seed", range(4))
async def test_a_store_that_fails_loses_and_doubles_nothing(  # noqa: PLR0917  all are fixtures
    updater_on, edge, profiles, catalogue, recounted, seed
):
    """Writes that fail before or after they were done, applied again until they succeed: the result is the same."""
    await catalogue(*ITEMS)
    generator = random.Random(seed)
    faulty = Faulty(edge)
    updater = updater_on(faulty, capacity=generator.choice([1, 3, 100]))
    signals = stream(120, seed)
    for start in range(0, 120, 10):
        batch = {user: mine[start : start + 10] for user, mine in signals.items()}
        faulty.plan = [generator.choice(["before", "after"]) for _ in range(generator.randrange(3))]
        while faulty.plan:
            try:
                await updater.apply(batch)
            except StoreUnavailable:
                continue
            break
        faulty.plan = []
        await updater.apply(batch)
        read = await updater.read(USERS)
        assert {user: one.state for user, one in read.items()} == await states(profiles)
    assert await states(profiles) == recounted(signals)


async def test_no_more_profiles_are_remembered_than_allowed(updater_on, profiles, catalogue, recounted):
    """A memory of two serves five users, and many at once, as exactly as a large one."""
    await catalogue(*ITEMS)
    updater = updater_on(capacity=2)
    signals = stream(150)
    for start in range(0, 60, 4):
        await updater.apply({user: mine[start : start + 4] for user, mine in signals.items()})
        assert len(updater._cache) <= 2
    assert await states(profiles) == recounted({user: mine[:60] for user, mine in signals.items()})


async def test_a_reading_is_never_older_than_what_was_applied(updater_on, catalogue, limits):
    """Whatever was applied before a reading began is in it, while further batches are being applied."""
    await catalogue(*ITEMS)
    updater = updater_on(capacity=2)
    signals = stream(200)
    applied = {user: [] for user in USERS}
    writing = True

    async def watch():
        while writing:
            expected = {user: list(mine) for user, mine in applied.items()}
            for user, profile in (await updater.read(USERS)).items():
                assert profile.state.adding(expected[user], limits) == profile.state
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for start in range(0, 40, 2):
        batch = {user: mine[start : start + 2] for user, mine in signals.items()}
        await updater.apply(batch)
        for user, mine in batch.items():
            applied[user] += mine
    writing = False
    await watching


async def test_forgetting_makes_room_for_what_others_wrote(updater_on, catalogue):
    """After everything is forgotten a reading shows what another worker has written meanwhile."""
    await catalogue(*ITEMS)
    mine, theirs = updater_on(), updater_on()
    first, second = (Signal(NOW + number, f"e{number}", "item-1", Action.LIKE, 2.0) for number in range(2))
    await mine.apply({"ada": [first]})
    await theirs.apply({"ada": [second]})
    mine.forget_all()
    assert (await mine.read(["ada"]))["ada"].state.signals == (second, first)


async def test_vectors_survive_the_store_to_the_last_bit(updater_on, profiles, items, catalogue):
    """A profile written and read back equals itself: else every replay would write it again."""
    await catalogue(*ITEMS, seed=11)
    updater = updater_on(item_vectors=ItemVectors(items, capacity=100, ttl_s=100))
    await updater.apply(stream(90, 5))
    remembered, stored = await updater.read(USERS), await profiles.load(USERS)
    for user in USERS:
        for name in ("short", "long", "interest"):
            np.testing.assert_array_equal(getattr(remembered[user], name), getattr(stored[user], name))
