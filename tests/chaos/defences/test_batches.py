"""Batches are handled one at a time and committed in order, however slow the store is and whoever crashes meanwhile."""

import asyncio
import contextlib
import sys
from typing import Any

import msgspec
import pytest

from penchant.settings import load_settings
from penchant.streams.codec import decode, encode
from penchant.streams.events import Click, ItemReady, Post, Recommendations
from penchant.streams.inbox import Batch
from penchant.streams.interest import InterestHandler
from penchant.streams.lane import Lane
from penchant.streams.ledger import Debt, Due, Handled, Ledger
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from tests.chaos.defences.judgement import IN_PLACE, defence, judge_lists, judge_sets, judging
from tests.chaos.defences.rig import IDENTITY, ITEMS, NOW, WAIT_S, Shelf, Stalling, World, user_in

AT_ONCE = "batches at once"
OVERTAKE_S = 0.3  # for one who is held back, and would not overtake in any time
LONG_S = 3_600.0


@defence(AT_ONCE)
async def test_one_batch_at_a_time_keeps_an_announcement_from_being_overtaken(shelf: Shelf, instead: str) -> None:
    """Defence: the handler's lock. Fault: the store is slow while a post's item arrives and is announced.

    The post's profile was made when the item was missing, and is on its way to the store. An announcement handled in
    that moment finds nobody who waits; then the profile is written, and waits for what nobody announces again.
    """
    slow = Stalling(shelf.store, "write", "profiles", answered=False)
    handler = handler_on(slow, instead)
    own = IDENTITY.own_item("ada", "p1")
    posting = asyncio.create_task(handler.handle(a_batch(Topic.POSTS, a_post("p1"))))
    await slow.reached.wait()
    await shelf.put_items(own)
    announcing = asyncio.create_task(handler.handle(a_batch(Topic.ITEM_READY, ItemReady(user_id="ada", item_id=own))))
    await overtake(announcing, instead)
    slow.go.set()
    await asyncio.gather(posting, announcing)
    profile = (await shelf.stored())["ada"]
    with judging(instead, "waits for ever"):
        assert not profile.awaits, f"waits for ever: {profile.awaits}"
        assert profile.interest.any()


@defence(AT_ONCE)
async def test_one_write_in_flight_per_user_keeps_memory_from_going_back(shelf: Shelf, instead: str) -> None:
    """Defence: the handler's lock. Fault: the store is slow to answer who reads, while another topic's batch writes.

    The reader has the former version in hand, and would remember it over the newer one that was written meanwhile. Its
    own record is a duplicate, so that it writes nothing that could be refused, and publishes the former version last.
    """
    await shelf.put_items(IDENTITY.own_item("ada", "p1"))
    slow = Stalling(shelf.store, "retrieve", "profiles", answered=True)
    await handler_on(shelf.store).handle(a_batch(Topic.POSTS, a_post("p1")))
    handler = handler_on(slow, instead)
    again = asyncio.create_task(handler.handle(a_batch(Topic.POSTS, a_post("p1"))))
    await slow.reached.wait()
    clicking = asyncio.create_task(
        handler.handle(a_batch(Topic.CLICKS, Click(event_id="e1", user_id="ada", item_id=ITEMS[1], at=NOW + 1)))
    )
    await overtake(clicking, instead)
    slow.go.set()
    handled = [await again, await clicking]
    with judging(instead, "stale"):
        judge_lists(await shelf.stored(), await lists(handler, handled[-1]))


@defence(AT_ONCE)
async def test_one_batch_at_a_time_keeps_positions_behind_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: a topic's batches one after the other. Fault: a batch hangs, and the worker crashes.

    A later batch that is handled meanwhile moves the position and the committed offset past the one that hangs, and
    nobody reads that again.
    """
    if instead:

        async def all_at_once(lane: Lane, topic: str) -> None:
            async with asyncio.TaskGroup() as handling:
                while (batch := await lane._inboxes[topic].get()) is not None:
                    handling.create_task(lane._handle(batch))

        monkeypatch.setattr(Lane, "_work", all_at_once)
    hanging = asyncio.Event()

    async def hang_once(_: Batch) -> None:
        if not hanging.is_set():
            hanging.set()
            await asyncio.sleep(LONG_S)

    worker = world.worker(before=hang_once)
    await world.click("ada", "e1")
    await worker.until(hanging.is_set)
    await world.click("ada", "e2")
    if instead:
        await worker.until_committed(world.ends)
    else:
        await worker.until(lambda: worker.inbox.records)
    await worker.crash()
    await world.worker().until_committed(world.ends)
    with judging(instead, "lost"):
        judge_sets(world.sent, await world.shelf.signals())


@defence("committed at once")
async def test_commits_in_order_wait_for_the_lists_that_are_owed(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: the ledger commits no batch before its users' lists. Fault: a crash while a list is held back.

    A user who had a list a moment ago has to wait for the next. Were the record that it is owed for committed along
    with other users' lists, a crash would leave the user with the former list.
    """
    if instead:
        owe = Ledger._owe

        def forgiven(ledger: Ledger, user: str, debt: Debt) -> None:
            owe(ledger, user, msgspec.structs.replace(debt, since=sys.maxsize))

        monkeypatch.setattr(Ledger, "_owe", forgiven)
    rested, other = user_in(0), user_in(1)
    worker = world.worker(having={"recommend": {"interval_s": LONG_S}})
    await world.click(rested, "e1")
    await worker.until_committed(world.ends)
    await world.click(rested, "e2")
    await worker.until(lambda: worker.handled == 2)
    await world.click(other, "e3")
    await worker.until(lambda: other.encode() in worker.publisher.published)
    await worker.crash()
    await world.worker().until_committed(world.ends)
    with judging(instead, "stale"):
        judge_lists(await world.shelf.stored(), await world.last_lists())


def handler_on(store: Any, instead: str = IN_PLACE) -> InterestHandler:
    """A handler on a store, without its lock if something else is wanted."""
    handler = Shelf(store).handler(load_settings())
    if instead == AT_ONCE:
        handler._one_at_a_time = contextlib.nullcontext()  # type: ignore[assignment]  # stands where the lock stood
    return handler


async def overtake(task: asyncio.Task[Handled], instead: str) -> None:
    """Lets a batch overtake one that stalls, where nothing holds it back."""
    done, _ = await asyncio.wait({task}, timeout=WAIT_S if instead else OVERTAKE_S)
    if bool(done) != bool(instead):
        raise RuntimeError("the scenario was not played")


def a_post(event_id: str) -> Post:
    """A post of Ada's."""
    return Post(event_id=event_id, user_id="ada", text="a poem", at=NOW)


def a_batch(topic: Topic, event: Click | Post | ItemReady) -> Batch:
    """A batch of one record."""
    record = Record(topic=topic, partition=0, offset=0, timestamp=NOW, key=event.user_id.encode(), value=encode(event))
    return Batch(topic=topic, records=[record], assignments={0: 1})


async def lists(handler: InterestHandler, handled: Handled) -> dict[str, Recommendations]:
    """The lists of everybody whom a batch has touched."""
    outputs = await handler.refresh([Due(user=user, touch=touch) for user, touch in handled.touched.items()])
    found = [decode(Recommendations, output.value) for output in outputs]
    return {one.user_id: one for one in found}
