"""The sweep finds every profile that waits for what is there, and goes on whatever fails."""

import asyncio

import numpy as np
import pytest

from penchant.errors import Unavailable
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.items import Item, Items
from penchant.profile.profiles import Profiles
from penchant.profile.state import Limits
from penchant.profile.store.edge import EdgeStore
from penchant.streams.events import ItemReady
from penchant.streams.sweep import PAGE, Sweeper, arrivals

SPACE = Space((Slice("text", 2, 1.0, "t"),))


@pytest.fixture
async def parts(tmp_path):
    """Items and profiles of an embedded store."""
    store = EdgeStore(tmp_path / "store")
    items = Items(store, "items", SPACE)
    profiles = Profiles(store, "profiles", SPACE, Identity("key"), Limits(strong=4, weak=4, seen_bits=64))
    await store.open([items.layout, profiles.layout])
    yield items, profiles
    await store.close()


async def put(items, *item_ids, content=True):
    """Items that are there, with or without content."""
    vector = np.array([1, 0], np.float32) if content else None
    await items.put([(Item(item_id=one, version=(1, 1, 0), listed=content), vector) for one in item_ids])


async def waiting(profiles, awaits):
    """Profiles that wait, by user."""
    empty = profiles.empty("")
    made = [
        type(empty)(
            user=user,
            state=empty.state,
            awaits=frozenset(items),
            short=empty.short,
            long=empty.long,
            interest=empty.interest,
        )
        for user, items in awaits.items()
    ]
    await profiles.write(made)


async def test_everybody_who_waits_for_what_is_there_is_told_once(parts):
    """One announcement a user, void items included; who waits for what is not there hears nothing."""
    items, profiles = parts
    await waiting(profiles, {"ada": ["a", "z"], "bob": ["z"], "cid": ["void"], "dan": ["a", "void"], "eve": []})
    await put(items, "a")
    await put(items, "void", content=False)
    found = [ready async for ready in arrivals(profiles, items)]
    assert sorted((ready.user_id, ready.item_id) for ready in found) == [("ada", "a"), ("cid", "void"), ("dan", "a")]


async def test_more_users_than_a_page_are_all_told(parts):
    """No page's end swallows anybody."""
    items, profiles = parts
    users = {f"user-{number}": ["a"] for number in range(2 * PAGE + 3)}
    await waiting(profiles, users)
    await put(items, "a")
    assert {ready.user_id async for ready in arrivals(profiles, items)} == set(users)


async def test_the_sweeper_goes_on_after_failures_and_rests_when_it_is_not_its_turn():
    """A store or broker that fails costs one sweep; another worker's turn costs nothing."""
    turns = iter([False, True, True, True])
    log, done = [], asyncio.Event()

    async def sweep():
        log.append("sweep")
        if len(log) == 1:
            raise Unavailable("the store is away")
        yield ItemReady(user_id="ada", item_id="a")

    async def announce(found):
        log.append(found)
        if len(log) == 3:
            raise Unavailable("the broker is away")
        done.set()

    sweeper = Sweeper(sweep, announce, lambda: next(turns, False), interval_s=0.001)
    running = asyncio.create_task(sweeper.run())
    await asyncio.wait_for(done.wait(), 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    ready = [ItemReady(user_id="ada", item_id="a")]
    assert log == ["sweep", "sweep", ready, "sweep", ready]
