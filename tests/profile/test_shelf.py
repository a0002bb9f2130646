"""The catalogue in memory: it answers as the store does, and knows at once what this process has written."""

import asyncio
import contextlib

import numpy as np
import pytest

from penchant.profile.items import Item, Items
from penchant.profile.seen import SeenItems
from penchant.profile.shelf import Shelf, Wanted
from penchant.profile.signals import Action, Signal
from penchant.profile.state import ProfileState

LIMIT = 7


@pytest.fixture
async def shelf_of():
    """Shelves that run until the test ends, given when they are stocked."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(items, most=100):
            shelf = Shelf(items, most=most)
            task = asyncio.create_task(shelf.run())
            stack.callback(task.cancel)
            await until(lambda: shelf.stocked)
            return shelf

        yield make


async def until(condition):
    """Waits for what another task does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


def query(vector, author="nobody", without=(), of_old=()):
    """What a user asks for who has met some items, and others of which only the filter knows."""
    signals = tuple(Signal(0, item_id, item_id, Action.LIKE, 1.0) for item_id in without)
    seen = SeenItems(16_384).adding([*without, *of_old])
    return Wanted(vector=vector, author=author, state=ProfileState(strong=signals, seen=seen))


async def found_by(searching, vector, author="nobody", without=(), limit=LIMIT):
    """What a search finds."""
    [found] = await searching.search([query(vector, author, without)], limit=limit, least=limit)
    return found


@pytest.mark.parametrize("count", [0, 1, LIMIT, 40])
async def test_memory_answers_as_the_store_does(items, catalogue, shelf_of, count):
    """The same items, in the same order; one's own and those that the user has met are left out by both."""
    made = await catalogue(*(f"i{number}" for number in range(count)))
    await catalogue("mine", seed=1, author="me")
    await catalogue("hidden", seed=2, listed=False)
    await items.put([(Item(item_id="void", version=(1, 1, 0), listed=False), None)])
    memory, store = await shelf_of(items), Shelf(items, most=0)
    generator = np.random.default_rng(1)
    for author in ("me", "nobody"):
        for without in ([], list(made)[::2], [*made, "unknown"]):
            vector = generator.normal(size=items.space.dimension).astype(np.float32)
            expected = await found_by(store, vector, author, without)
            assert await found_by(memory, vector, author, without) == expected
            assert await memory.listed(expected) == await store.listed(expected)
            assert ("mine" in expected) == (author != "me") or len(expected) == LIMIT


async def test_many_are_answered_at_once(items, catalogue, shelf_of):
    """Each query has its own answer."""
    made = await catalogue(*(f"i{number}" for number in range(30)))
    wanted = [query(vector, without=[name]) for name, vector in made.items()]
    memory, store = await shelf_of(items), Shelf(items, most=0)
    answers, expected = [await one.search(wanted, limit=LIMIT, least=1) for one in (memory, store)]
    assert answers == expected
    assert not any(name in mine for name, mine in zip(made, answers, strict=True))


@pytest.mark.parametrize("met", [0, 40, 197, 200])
async def test_who_has_met_what_is_near_gets_what_is_further_away(items, catalogue, shelf_of, met):
    """However much that is: also where only the filter knows of it, and most of the catalogue is in it."""
    made = await catalogue(*(f"i{number}" for number in range(200)))
    memory, store = await shelf_of(items, most=200), Shelf(items, most=0)
    nearest = await found_by(store, made["i0"], limit=200)
    known = nearest[:met]
    asked = query(made["i0"], without=known[-5:], of_old=known)
    for shelf in (memory, store):
        [found] = await shelf.search([asked], limit=4, least=4)
        assert found == [name for name in nearest if name not in asked.state.seen][:4]


async def test_what_this_process_writes_is_there_at_once(items, catalogue, shelf_of):
    """New items, new versions and withdrawals."""
    await catalogue(*(f"i{number}" for number in range(5)))
    shelf = await shelf_of(items)
    new = (await catalogue("new", seed=9))["new"]
    assert (await found_by(shelf, new))[0] == "new"
    other = (await catalogue("new", seed=8, version=2))["new"]
    assert (await found_by(shelf, other))[0] == "new"
    assert (await shelf.listed(["new"]))["new"].at == 2
    await catalogue("new", version=3, listed=False)
    assert set(await found_by(shelf, other)) == {f"i{number}" for number in range(5)}
    assert (await shelf.listed(["new", "i1"])).keys() == {"i1"}
    [stored] = await items.stored(["i1"])
    await items.replace([stored])
    assert set(await shelf.listed(["i1", "i2", "unknown"])) == {"i1", "i2"}


async def test_what_others_write_is_found(edge, items, catalogue, shelf_of, monkeypatch):
    """On a store that is shared: by its token, at the next look."""
    monkeypatch.setattr("penchant.profile.shelf.REFRESH_S", 0.05)
    monkeypatch.setattr(type(edge), "shared", True)
    made = await catalogue("i0", "i1", "i2")
    others = Items(edge, "items", items.space)  # as of another process
    shelf = await shelf_of(others)
    await catalogue("i0", version=2, listed=False)
    await catalogue("i3", seed=3)
    async with asyncio.timeout(10):
        while set(await found_by(shelf, made["i1"])) != {"i1", "i2", "i3"}:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)


async def test_a_catalogue_that_is_too_large_stays_in_the_store(items, catalogue, shelf_of, monkeypatch):
    """It is searched there, and what has grown too large is let go of."""
    monkeypatch.setattr("penchant.profile.shelf.REFRESH_S", 0.05)
    made = await catalogue("i0", "i1")
    shelf = await shelf_of(items, most=2)
    made |= await catalogue("i2", seed=2)
    await until(lambda: not shelf.stocked)
    assert set(await found_by(shelf, made["i2"])) == {"i0", "i1", "i2"}
    assert set(await shelf.listed(made)) == set(made)


async def test_it_is_stocked_while_items_are_written(items, catalogue, shelf_of):
    """Whatever is written while the catalogue is read is on the shelf behind that."""
    await catalogue(*(f"i{number}" for number in range(300)))
    writing = asyncio.create_task(catalogue(*(f"n{number}" for number in range(50)), seed=4))
    shelf = await shelf_of(items, most=1_000)
    made = await writing
    assert set(await shelf.listed(made)) == set(made)


async def test_what_nobody_asks_for_is_not_noted(items, catalogue, shelf_of, monkeypatch):
    """Memory is bounded: where the store answers, and where more has changed than is worth looking at one by one."""
    unused = Shelf(items, most=0)
    await catalogue(*(f"i{number}" for number in range(20)))
    assert not unused._changed
    shelf = await shelf_of(items)
    monkeypatch.setattr("penchant.profile.shelf.MANY", 5)
    made = await catalogue(*(f"n{number}" for number in range(10)), seed=1)
    assert set(await shelf.listed(made)) == set(made)  # by the store
    assert not shelf.stocked
    assert not shelf._changed
