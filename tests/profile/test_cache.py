"""Bounded memories: never more than they may hold, and never an absence remembered."""

import asyncio

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.cache import Bounded, ItemVectors, Remembered
from penchant.profile.items import Item, Items


@given(st.integers(1, 5), st.lists(st.tuples(st.sampled_from(["get", "put", "drop"]), st.sampled_from("abcdefg"))))
def test_a_bounded_memory_keeps_the_most_recently_used(capacity, steps):
    """Exactly the last used keys, whatever is done in whatever order."""
    memory = Bounded(capacity)
    model = []  # least recently used first
    for number, (step, key) in enumerate(steps):
        if step == "put":
            memory.put(key, number)
            model = [*(one for one in model if one[0] != key), (key, number)][-capacity:]
        elif step == "drop":
            memory.drop(key)
            model = [one for one in model if one[0] != key]
        else:
            assert memory.get(key) == dict(model).get(key)
            model.sort(key=lambda one, asked=key: one[0] == asked)
        assert len(memory) == len(model) <= capacity


async def test_an_item_that_comes_is_seen_at_once(items, catalogue):
    """Absence is asked for again every time."""
    vectors = ItemVectors(items, capacity=10, ttl_s=1_000)
    assert (await vectors.gather(["a"])).missing == {"a"}
    made = await catalogue("a")
    content = await vectors.gather(["a"])
    assert content.missing == frozenset()
    np.testing.assert_array_equal(content.vectors[content.rows["a"]], made["a"])


async def test_an_item_that_others_change_is_seen_when_dropped_or_when_its_time_is_up(
    edge, items, catalogue, monkeypatch
):
    """A vector is remembered for a time, and no longer than until someone says that it has changed."""
    now = 0.0
    monkeypatch.setattr(type(edge), "shared", True)
    here = Items(edge, "items", items.space)  # as of another process than the one that writes
    vectors = ItemVectors(here, capacity=10, ttl_s=30, clock=lambda: now)

    async def seen():
        content = await vectors.gather(["a"])
        return content.vectors[content.rows["a"]].tolist()

    first = (await catalogue("a", seed=1))["a"].tolist()
    assert await seen() == first
    second = (await catalogue("a", seed=2, version=2))["a"].tolist()
    assert await seen() == first
    vectors.drop("a")
    assert await seen() == second
    third = (await catalogue("a", seed=3, version=3))["a"].tolist()
    now = 31.0
    assert await seen() == third


async def test_an_item_that_this_process_changes_is_seen_at_once(items, catalogue):
    """Where nobody else writes, what is remembered is good until then: also where it was being read meanwhile."""
    vectors = ItemVectors(items, capacity=10, ttl_s=1e-9)
    await catalogue("a", seed=1)
    reading = asyncio.create_task(vectors.gather(["a"]))
    await asyncio.sleep(0)
    second = (await catalogue("a", seed=2, version=2))["a"]
    await reading
    for _ in range(2):
        content = await vectors.gather(["a"])
        np.testing.assert_array_equal(content.vectors[content.rows["a"]], second)
    third = (await catalogue("a", seed=3, version=3))["a"]
    content = await vectors.gather(["a"])
    np.testing.assert_array_equal(content.vectors[content.rows["a"]], third)


async def test_rows_hold_until_an_item_changes(items, catalogue):
    """Written here: at once. Others that are read meanwhile change nothing, as long as nothing is forgotten."""
    await catalogue("a", "b", "c")
    vectors = ItemVectors(items, capacity=10, ttl_s=1_000)
    content = await vectors.gather(["a", "b"])
    await vectors.gather(["c"])
    assert vectors.holds(content.mark, ["a", "b"])
    await catalogue("b", seed=1, version=2)
    assert vectors.holds(content.mark, ["a"])
    assert not vectors.holds(content.mark, ["a", "b"])


async def test_what_was_forgotten_and_read_again_may_have_changed(edge, items, catalogue, monkeypatch):
    """On a store that is shared, however small the memory is by then."""
    monkeypatch.setattr(type(edge), "shared", True)
    await catalogue("a", "b", "c")
    vectors = ItemVectors(Items(edge, "items", items.space), capacity=2, ttl_s=1_000)
    content = await vectors.gather(["a", "b"])
    await vectors.gather(["c"])  # "a" is forgotten
    await catalogue("a", seed=1, version=2)
    vectors.drop("c")
    await vectors.gather(["a"])
    assert not vectors.holds(content.mark, ["a"])


async def test_void_items_are_neither_rows_nor_missing(items, catalogue):
    """An item without content does not count, and nobody waits for it."""
    await catalogue("full")
    await items.put([(Item(item_id="void", version=(1, 1, 0), listed=False), None)])
    content = await ItemVectors(items, capacity=10, ttl_s=30).gather(["full", "void", "absent"])
    assert set(content.rows) == {"full"}
    assert content.missing == {"absent"}


async def test_more_may_be_gathered_than_is_remembered(items, catalogue):
    """The capacity bounds memory, not a computation."""
    made = await catalogue(*(f"i{number}" for number in range(20)))
    vectors = ItemVectors(items, capacity=3, ttl_s=1_000)
    for _ in range(2):
        content = await vectors.gather(made)
        assert {name: content.vectors[row].tolist() for name, row in content.rows.items()} == {
            name: vector.tolist() for name, vector in made.items()
        }


async def test_what_is_stored_is_read_once():
    """Absence, too, until its time is up; what was written counts at once, and what was forgotten is read again."""
    now, stored, reads = 0.0, {"a": 1}, []
    remembered = Remembered(10, 5.0, clock=lambda: now)

    async def read(names):
        reads.append(sorted(names))
        return {name: stored[name] for name in names if name in stored}

    assert await remembered.get(["a", "b"], read) == {"a": 1}
    assert await remembered.get(["a", "b"], read) == {"a": 1}
    remembered.wrote({"b": 2, "c": 3})
    assert await remembered.get("abc", read) == {"a": 1, "b": 2, "c": 3}
    assert reads == [["a", "b"]]
    remembered.forget(["a"])
    now = 6.0
    stored = {"a": 4}
    assert await remembered.get("abc", read) == {"a": 4}
    assert reads == [["a", "b"], ["a", "b", "c"]]


async def test_a_reading_that_is_overtaken_by_a_writing_is_not_remembered():
    """What began before a value was written may have found the one before."""
    remembered, going_on = Remembered(10, 1_000.0), asyncio.Event()

    async def slow(names):
        await going_on.wait()
        return dict.fromkeys(names, "old")

    reading = asyncio.create_task(remembered.get(["a", "b", "c"], slow))
    await asyncio.sleep(0)
    remembered.wrote({"a": "new"})
    remembered.forget(["b"])
    going_on.set()
    await reading

    async def read(names):
        return dict.fromkeys(names, "read")

    assert await remembered.get("abc", read) == {"a": "new", "b": "read", "c": "old"}
