"""The collection of rows: sums that survive crashes and rivals, and the searches that they answer."""

import asyncio
import random

import numpy as np
import pytest

from penchant.profile.affinity import (
    LANDMARK_MS,
    ROW_HALF_LIFE_MS,
    Row,
    Transition,
    growth,
    item_key,
    row_measure,
)
from penchant.profile.following import Asked, Followers, Following
from penchant.profile.rows import AS_OF, COUNT, FIGURES, MASS, Rows, engine_keys
from penchant.profile.seen import SeenItems
from penchant.profile.store.base import SearchFilter, StoreUnavailable
from penchant.profile.store.edge import EdgeStore

DAY_MS = 86_400_000
ITEMS = [f"item-{number}" for number in range(20)]


@pytest.fixture
async def store(tmp_path):
    """An embedded store with an empty collection of rows."""
    made = EdgeStore(tmp_path / "store")
    await made.open([Rows(made, "rows").layout])
    yield made
    await made.close()


def log_of(count, seed=0):
    """Transitions by item, from three partitions."""
    rng = random.Random(seed)
    found = {}
    for offset in range(count):
        item = rng.choice(ITEMS[:6])
        before = tuple((one, 0.9**number) for number, one in enumerate(rng.sample(ITEMS, rng.randint(0, 8))))
        at = LANDMARK_MS + rng.randint(0, 2_000) * DAY_MS
        made = Transition(item_id=item, at=at, previous=before, origin=("clicks", rng.randrange(3)), offset=offset)
        found.setdefault(item, []).append(made)
    return found


def recounted(log):
    """What the rows should be."""
    return {item: Row(item_id=item).adding(mine) for item, mine in log.items()}


def same(one, other):
    """Whether two rows are equal bit by bit."""
    return (
        (one.count, one.popularity, one.mass, one.as_of, one.applied)
        == (other.count, other.popularity, other.mass, other.as_of, other.applied)
        and np.array_equal(one.keys, other.keys)
        and np.array_equal(one.sums, other.sums)
    )


async def check(rows, log):
    """The stored rows are those of the log, and nothing else is."""
    expected = recounted(log)
    stored = {row.item_id: row async for row in rows.all()}
    assert stored.keys() == expected.keys()
    assert all(same(stored[item], row) for item, row in expected.items())


async def test_rows_return_exactly(store):
    """Every sum bit by bit; items that nobody liked have no row."""
    rows, log = Rows(store, "rows"), log_of(200)
    assert await rows.apply(log) == 0
    await check(rows, log)
    assert await rows.get(["nobody's"]) == {}
    assert (await rows.get(["item-1"]))["item-1"].count == len(log["item-1"])


async def test_a_batch_applied_again_is_not_even_written(store):
    """A replay from any offset changes no row and no token."""
    rows, log = Rows(store, "rows"), log_of(200)
    await rows.apply(log)
    before = {point.id: point.token async for point in store.scroll("rows", SearchFilter())}
    await rows.apply({item: mine[3:] for item, mine in log.items()})
    assert {point.id: point.token async for point in store.scroll("rows", SearchFilter())} == before


async def test_two_writers_at_once_count_everything_once(store):
    """A zombie and its successor add the same batches, interleaved: each transition counts once."""
    log = log_of(240)

    async def write(rows):
        for start in range(0, 60, 4):
            await rows.apply({item: mine[start : start + 4] for item, mine in log.items()})
            await asyncio.sleep(0)

    await asyncio.gather(write(Rows(store, "rows")), write(Rows(store, "rows")))
    await check(Rows(store, "rows"), {item: mine[:60] for item, mine in log.items()})


class Faulty:
    """A store whose writes fail, before or after they were done."""

    def __init__(self, store, rng):
        self._store, self._rng = store, rng

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def write(self, collection, writes):
        """Writes, or does not, or does and does not say so."""
        fate = self._rng.choice(["well", "before", "after"])
        if fate == "before":
            raise StoreUnavailable("before")
        stands = await self._store.write(collection, writes)
        if fate == "after":
            raise StoreUnavailable("after")
        return stands


async def test_a_store_that_fails_loses_and_doubles_nothing(store):
    """Batches applied until they succeed, on a store that fails at every step."""
    log, rng = log_of(300, seed=3), random.Random(3)
    rows = Rows(Faulty(store, rng), "rows")
    for start in range(0, 80, 5):
        while True:
            try:
                await rows.apply({item: mine[start : start + 5] for item, mine in log.items()})
            except StoreUnavailable:
                continue
            break
    await check(Rows(store, "rows"), {item: mine[:80] for item, mine in log.items()})


async def test_what_follows_is_found_by_what_was_liked(store):
    """Items whose rows know a user's recent ones, best first."""
    rows = Rows(store, "rows")

    def after(item, *before, offset):
        previous = tuple((one, 1.0) for one in before)
        return Transition(item_id=item, at=LANDMARK_MS, previous=previous, origin=("clicks", 0), offset=offset)

    log = {
        "often": [after("often", "a", offset=number) for number in range(9)],
        "once": [after("once", "a", "b", offset=20)],
        "other": [after("other", "c", offset=21)],
        "first": [after("first", offset=22)],
    }
    await rows.apply(log)
    users = ([("a", 1.0)], [("b", 0.5), ("a", 0.1)], [("x", 1.0)])
    asked = [Rows.asked(recent, {"a": 10.0}, LANDMARK_MS) for recent in users]
    assert await rows.following(asked, limit=5) == [["often", "once"], ["once", "often"], []]
    following = Following(await rows.after(list(log)))
    nobody = SeenItems(64)
    everything = [Asked(recent=one, seen=nobody) for one in asked]
    assert following.search(everything, limit=5) == [["often", "once"], ["once", "often"], []]
    assert following.search(everything, limit=1) == [["often"], ["once"], []]
    met = [Asked(recent=one, seen=nobody.adding(["often"])) for one in asked]
    assert following.search(met, limit=1) == [["once"], ["once"], []]
    fewer = Following(await rows.after(["once", "unknown"]))
    assert fewer.search(everything, limit=5) == [["once"], ["once"], []]
    assert Following({}).search(everything, limit=5) == [[], [], []]


async def test_memory_finds_what_follows_as_the_engine_does(store):
    """Of many rows, for many users: the same items in the same order."""
    rows, log = Rows(store, "rows"), log_of(400)
    await rows.apply(log)
    asked = [Rows.asked([(item, 1.0), ("item-3", 0.5)], {}, LANDMARK_MS) for item in log]
    following = Following(await rows.after(list(log)))
    for limit in (2, 10, 1_000):
        in_memory = following.search([Asked(recent=one, seen=SeenItems(64)) for one in asked], limit=limit)
        assert in_memory == await rows.following(asked, limit=limit)
        assert any(in_memory)


async def test_what_follows_is_made_anew_when_rows_have_changed(store):
    """In memory as long as the items of interest are known; a moment behind the store."""
    rows, log = Rows(store, "rows"), log_of(50)
    followers = Followers(rows)
    assert followers.among([]) is None
    [asked] = [Asked(recent=Rows.asked([("item-3", 1.0)], {}, LANDMARK_MS), seen=SeenItems(64))]
    await rows.apply(log)

    async def found():
        following = followers.among([*log, "later"])
        return following.search([asked], limit=1_000)[0] if following else None

    async with asyncio.timeout(10):
        while not await found():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        assert "later" not in await found()
        later = Transition(
            item_id="later", at=LANDMARK_MS, previous=(("item-3", 1.0),), origin=("clicks", 0), offset=1_000
        )
        await rows.apply({"later": [later]})
        while "later" not in await found():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
    assert followers.among([]) is None


async def test_what_trends_depends_on_the_horizon(store):
    """Much liked of late, much liked once: each first by its own horizon, whatever the size of the weights."""
    rows = Rows(store, "rows")

    def liked(item, times, at):
        made = [Transition(item_id=item, at=at, previous=(), origin=("clicks", 0), offset=n) for n in range(times)]
        return {item: made}

    now = LANDMARK_MS + 20_000 * DAY_MS
    await rows.apply(liked("old", 50, now - 1_000 * DAY_MS) | liked("year", 20, now - 200 * DAY_MS))
    await rows.apply(liked("new", 9, now))
    assert await rows.trending(0, limit=3) == ["new", "year", "old"]
    assert await rows.trending(1, limit=1) == ["year"]
    assert await rows.trending(2, limit=3) == ["old", "year", "new"]


async def test_figures_of_many_rows_are_those_of_each(store):
    """Popularity, counts, masses and times as the rows have them, in the order asked for; no row, no figures."""
    rows, log = Rows(store, "rows"), log_of(200)
    await rows.apply(log)
    names = ["item-3", "nobody's", "item-1"]
    figures = await rows.figures(names)
    assert figures.shape == (3, FIGURES)
    assert np.exp2(figures[1]).tolist() == [0, 0, 0, 0, 1]
    for row, figure in zip((await rows.get(names)).values(), figures[[0, 2]], strict=True):
        assert np.exp2(figure[:COUNT]) == pytest.approx(np.array(row.popularity), rel=1e-4)
        assert np.exp2(figure[[COUNT, MASS, AS_OF]]) == pytest.approx(
            [row.count, row.mass, growth(row.as_of, ROW_HALF_LIFE_MS)], rel=1e-4
        )
    assert (await rows.figures([])).shape == (0, FIGURES)
    assert (await Rows(store, "rows").figures(names)).tolist() == figures.tolist()  # written and read, or read alone


async def test_what_came_before_is_read_as_it_is_searched_by(store):
    """The dot product of what is read with a query is the score that orders what follows."""
    rows, log = Rows(store, "rows"), log_of(200)
    await rows.apply(log)
    [found] = await rows.following([Rows.asked([("item-7", 1.0)], {}, LANDMARK_MS)], limit=10)
    after = await rows.after([*found, "nobody's"])
    assert sorted(after) == sorted(found)
    for item, stored in (await Rows(store, "rows").after(found)).items():  # as by another process
        assert stored.indices.tolist() == after[item].indices.tolist()
        assert stored.values.tolist() == after[item].values.tolist()
    [key] = engine_keys(np.array([item_key("item-7")], np.uint64))
    values = [float(after[item].values[after[item].indices == key][0]) for item in found]
    assert values == sorted(values, reverse=True)
    row = (await rows.get(found[:1]))[found[0]]
    [exact] = row.sums[row.keys == item_key("item-7")] / row_measure(row.mass, row.as_of)
    assert values[0] == pytest.approx(exact, rel=1e-6)
