"""Each defence is needed: every scenario holds with it, and fails without it.

A scenario plays one fault on real parts, always in the same order. It is judged by what was left behind: the sets in
the store against what was sent, and what a reader of committed records finds. It is played as penchant is, and again
with one defence taken out or something weaker in its place: then the judgement must fail, with the very loss that the
defence is there against. So none of these tests could pass on a scenario in which nothing can go wrong.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition

from penchant.broker import LocalBroker
from penchant.profile import profiles as profiles_module
from penchant.profile import state as state_module
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.signals import Action, Signal
from penchant.profile.store.base import Write
from penchant.profile.store.edge import EdgeStore
from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings, load_settings
from penchant.streams import lane as lane_module
from penchant.streams import member as member_module
from penchant.streams import publish as publish_module
from penchant.streams.assignment import PartitionLog, Start
from penchant.streams.codec import decode, encode
from penchant.streams.connection import consumer_options
from penchant.streams.events import Click, ClickAction, ItemReady, Post, Recommendations
from penchant.streams.interest import InterestHandler
from penchant.streams.lane import INBOX_BATCHES, Batch, Lane
from penchant.streams.ledger import Debt, Due, Handled, Ledger
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from tests.chaos.defences_rig import (
    IDENTITY,
    ITEMS,
    NOW,
    QUICK,
    WAIT_S,
    ObservedPublisher,
    Shelf,
    Stalling,
    World,
    judge_lists,
    judge_sets,
    user_in,
)
from tests.stage import Stage

IN_PLACE = ""
AT_ONCE = "batches at once"
NO_TRANSACTIONS = "no transactions"
OVERTAKE_S = 0.3  # for one who is held back, and would not overtake in any time
FETCH_S = 0.2  # for the client to have what was sent; where it takes longer, once more
SILENCE_S = 3.0  # ten times what it takes to flow
LONG_S = 3_600.0


@pytest.fixture
async def world(kafka: LocalBroker, make_stage: Callable[..., Stage], tmp_path: Path) -> AsyncIterator[World]:
    """A log, a store, and nobody at work yet."""
    with make_stage(kafka, kafka={"options": QUICK}, recommend={"interval_s": 0}) as stage:
        made = await World(stage, tmp_path).open()
        yield made
        await made.close()


@pytest.fixture
async def shelf(tmp_path: Path) -> AsyncIterator[Shelf]:
    """A store with a catalogue, and no Kafka."""
    made = await Shelf(EdgeStore(tmp_path / "store")).open()
    await made.put_items(*ITEMS)
    yield made
    await made.store.close()


def defence(*weaker: str) -> Any:
    """Plays a scenario with the defence in place, and with something weaker instead."""
    return pytest.mark.parametrize("instead", [IN_PLACE, *weaker], ids=["in place", *weaker])


def judging(instead: str, failure: str) -> Any:
    """Judges: with something weaker than the defence, the judgement within must fail, and in this way."""
    return pytest.raises(AssertionError, match=failure) if instead else contextlib.nullcontext()


# The write token.


@defence("no condition", "a counter")
async def test_a_write_token_guards_what_another_writer_wrote(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: compare and set on a random token. Fault: two workers take themselves for the owner of a user.

    Each remembers the profile as it last wrote it, and they write in turns. Unconditional writes undo each other; and
    of two who count from r to r + 1, the one that was refused reads r + 1 back and believes that its write stands.
    """
    if instead == "no condition":

        async def unconditionally(store: EdgeStore, collection: str, writes: Sequence[Write]) -> set[Any]:
            await store.put(collection, [write.point for write in writes])
            return {write.point.id for write in writes}

        monkeypatch.setattr(EdgeStore, "write", unconditionally)
    elif instead:
        write = Profiles.write

        async def counting(profiles: Profiles, changed: Sequence[Profile]) -> dict[str, Profile]:
            tokens = iter([profile.version + 1 for profile in changed])
            monkeypatch.setattr(profiles_module, "new_token", lambda: next(tokens))
            return await write(profiles, changed)

        monkeypatch.setattr(Profiles, "write", counting)
    writers = shelf.updater(), shelf.updater()
    sent: dict[str, set[str]] = {"ada": set(), "bob": set()}
    for turn in range(8):
        await writers[turn % 2].apply(
            {user: [Signal(NOW + turn, f"e{turn}", ITEMS[turn], Action.LIKE, 2.0)] for user in sent}
        )
        for event_ids in sent.values():
            event_ids.add(f"e{turn}")
    with judging(instead, "lost"):
        judge_sets(sent, await shelf.signals())


# One write in flight per user, one batch at a time, committed in order.


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


# The merge of sets.


@defence("adding up")
async def test_a_set_counts_duplicates_and_replays_once(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: union by event id. Fault: a producer sends twice, and a crash before the commit has all read again.

    What is added up, as a running sum of vectors is, counts every record, however often it comes.
    """
    if instead:

        def adding_up(*parts: Iterable[Signal], limit: int) -> tuple[Signal, ...]:
            newest_first = sorted(chain(*parts), key=lambda signal: (signal.time, signal.event_id), reverse=True)
            return tuple(newest_first[:limit])

        monkeypatch.setattr(state_module, "joined", adding_up)
    sleep = world.sleep()
    worker = world.worker(sleep=sleep)
    await world.click("ada", "e1", "e2")
    await world.click("bob", "e3", copies=2)
    await worker.until(lambda: sleep.reached)
    await worker.crash()
    await world.worker().until_committed(world.ends)
    with judging(instead, "doubled"):
        judge_sets(world.sent, await world.shelf.signals())


# The transaction.


@defence(NO_TRANSACTIONS)
async def test_a_transaction_fences_a_stale_list(world: World, instead: str) -> None:
    """Defence: outputs and offsets in one transaction of the group. Fault: a worker sleeps while it publishes.

    It had made sure that the partitions are its own; then it sleeps, another one takes a partition over and publishes
    a newer list, and it wakes. Without the transaction its older list comes last, and its dead letter a second time.
    """
    await oversleep(world, before_sending=bool(instead), transactions=not instead)
    with judging(instead, "stale"):
        judge_lists(await world.shelf.stored(), await world.last_lists())
    with judging(instead, "published twice"):
        assert await world.dead_letters() == 1, "published twice"


@defence("the group is not asked")
async def test_a_transaction_of_the_group_fences_a_second_copy(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: offsets are part of the transaction, so that the group's generation decides. Fault: as above.

    A transaction by itself is no fence: what the sleeper had sent would be seen as soon as it wakes, a second time.
    """
    if instead:
        resumed = publish_module.resumed

        def less_the_group(call: Callable[..., None], *arguments: object) -> None:
            if call.__name__ != "send_offsets_to_transaction":
                resumed(call, *arguments)

        monkeypatch.setattr(publish_module, "resumed", less_the_group)
    await oversleep(world)
    with judging(instead, "published twice"):
        assert await world.dead_letters() == 1, "published twice"


@defence("the worker is not asked")
async def test_a_transaction_is_given_up_where_the_partitions_are_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: the lane is asked whether the partitions are its own still. Fault: as above, asleep before it sends.

    When it wakes it is a member of the group's new generation, which the broker takes offsets from, of any partition:
    the older list would come last, and the committed offset go back.
    """
    if instead:
        monkeypatch.setattr(ObservedPublisher, "_asked", lambda *_: True)
    await oversleep(world, before_sending=True)
    with judging(instead, "stale"):
        judge_lists(await world.shelf.stored(), await world.last_lists())
    with judging(instead, "set back"):
        assert await world.committed() == world.ends, "set back"


async def oversleep(world: World, *, before_sending: bool = False, transactions: bool = True) -> None:
    """One worker falls asleep while it publishes; another takes over and publishes; the first one wakes."""
    having = {"kafka": {"transactions": transactions}}
    user = user_in(2)
    sleep = world.sleep()
    await world.garbage(user)
    await world.click(user, "e1")
    sleeper = world.worker("one", sleep=sleep, before_sending=before_sending, having=having)
    await sleeper.until(lambda: sleep.reached)  # it has found both, and publishes what they come to together
    awake = world.worker("two", having=having)
    await awake.until_owns(2)  # partitions are dealt in the order of names
    await world.click(user, "e2")
    await awake.until_committed(world.ends)
    await sleeper.until(lambda: sleeper.owned == {0, 1}, awake)
    sleep.wake()
    await sleeper.until(lambda: sleeper.publisher.failures or sleeper.publisher.published, awake)


@defence(NO_TRANSACTIONS)
async def test_a_transaction_shows_what_a_crash_interrupted_once(world: World, instead: str) -> None:
    """Defence: outputs and offsets in one transaction. Fault: a crash after the outputs were sent, before the commit.

    The successor reads the records again and publishes what they come to. A reader of committed records would see the
    outputs of both.
    """
    having = {"kafka": {"transactions": instead != NO_TRANSACTIONS}}
    sleep = world.sleep()
    worker = world.worker(sleep=sleep, having=having)
    await world.garbage("ada")
    await worker.until(lambda: sleep.reached)
    await worker.crash()
    await world.worker(having=having).until_committed(world.ends)
    with judging(instead, "published twice"):
        assert await world.dead_letters() == 1, "published twice"


# Stored positions.


@defence("committed offsets alone")
async def test_stored_positions_let_a_restored_store_catch_up(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: positions in the store, behind what they cover. Fault: an older copy of the store is put in its place.

    The committed offsets know nothing of that: read from there, what lies between the copy and them is lost.
    """
    if instead:

        def from_committed(_: str, found: PartitionLog, __: object) -> Start:
            return Start(offset=found.committed or found.low, lost=0)

        monkeypatch.setattr(lane_module, "start_of", from_committed)
    worker = world.worker()
    await world.click("ada", "e1")
    await worker.until_committed(world.ends)
    await worker.stop()
    copy = await world.copy_store()
    worker = world.worker()
    await world.click("ada", "e2", "e3")
    await worker.until_committed(world.ends)
    await worker.stop()
    await world.set_back(copy)
    worker = world.worker()
    await world.click("ada", "e4")
    await worker.until_committed(world.ends)
    with judging(instead, "lost"):
        judge_sets(world.sent, await world.shelf.signals())


# The cache dropped on reassignment.


@defence("profiles kept in memory")
async def test_a_cache_dropped_on_reassignment_is_of_no_former_version(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: memory is dropped when partitions move. Fault: a partition goes to another worker and comes back.

    The other one writes a newer version. Then a duplicate comes, which changes nothing and so writes nothing that could
    be refused: a worker that remembers publishes the former version, last. It is a view: of a like the profile would at
    least note that it was heard again.
    """
    world.action = ClickAction.VIEW
    if instead:
        monkeypatch.setattr(ProfileUpdater, "forget_all", lambda _: None)
    user = user_in(1)
    mine = world.worker("m")  # partitions are dealt in the order of names
    await world.click(user, "e1")
    await mine.until_committed(world.ends)
    other = world.worker("a")
    await mine.until_owns(2)
    await world.click(user, "e2")
    await other.until_committed(world.ends)
    world.worker("z")
    await mine.until_owns(1)
    await world.click(user, "e1")
    await mine.until_committed(world.ends)
    with judging(instead, "stale"):
        judge_lists(await world.shelf.stored(), await world.last_lists())


@defence("profiles kept in memory")
async def test_a_batch_begun_before_a_reassignment_leaves_nothing_to_remember(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence and fault as above, while a batch with records of the partition that goes is still in hand.

    Where partitions move one by one, a batch is worked off for the sake of those that stay, and brings users of those
    that went back into memory. Nothing is revoked when they return: what comes must be forgotten too.
    """
    world.action = ClickAction.VIEW
    if instead:
        monkeypatch.setattr(ProfileUpdater, "forget_all", lambda _: None)

    def nameless(settings: Settings, group: str) -> Consumer:
        options = consumer_options(settings, group)
        del options["group.instance.id"]  # so that its partitions are free when it leaves, and not a session later
        return Consumer(options)

    monkeypatch.setattr(member_module, "open_consumer", nameless)
    users = {number: user_in(number) for number in range(3)}
    having = {"kafka": {"group_protocol": "consumer", "options": {}}}
    armed, held, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hold_one_of_all(batch: Batch) -> None:
        if armed.is_set() and len(batch.assignments) == len(users):
            armed.clear()
            held.set()
            await go.wait()

    mine = world.worker("mine", before=hold_one_of_all, having=having)
    for user in users.values():
        await world.click(user, "e1")
    await mine.until_committed(world.ends)
    armed.set()
    while not held.is_set():
        with mine.not_taking():
            await world.clicks(*((user, "e1") for user in users.values()))
            await asyncio.sleep(FETCH_S)
    other = world.worker("other", having=having)
    await mine.until(lambda: mine.owned and other.owned and len(mine.owned | other.owned) == len(users), other)
    gone = min(other.owned)
    before = mine.handled
    go.set()
    await mine.until(lambda: mine.handled > before, other)
    await world.click(users[gone], "e2")
    await other.until_committed({gone: world.ends[gone]})
    await other.stop()
    await mine.until_owns(*users)
    await world.click(users[gone], "e1")
    await mine.until_committed(world.ends)
    with judging(instead, "stale"):
        judge_lists(await world.shelf.stored(), await world.last_lists())


# A pause lifted when partitions go.


@defence("left paused")
async def test_a_pause_lifted_in_time_lets_partitions_that_come_back_flow(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: what goes is resumed first. Fault: a worker that is behind loses a partition, and has it back later.

    The client remembers a pause beyond the assignment that it was made in. The worker does not, takes nothing of the
    partition any more, and nobody ever knows why.
    """
    if instead:

        def leave_paused(lane: Lane, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
            lane._call(lane._revoked({(partition.topic, partition.partition) for partition in partitions}))

        monkeypatch.setattr(Lane, "_on_revoke", leave_paused)
    user = user_in(1)
    begun, go = asyncio.Event(), asyncio.Event()

    async def behind(_: Batch) -> None:
        begun.set()
        await go.wait()

    mine = world.worker("m", before=behind, batch_records=1)  # partitions are dealt in the order of names
    await world.click(user, "e0")
    await mine.until(begun.is_set)
    await world.click(user, *(f"e{number}" for number in range(1, 1 + INBOX_BATCHES)))
    await mine.until(lambda: mine.lane._paused)
    other = world.worker("a")
    await mine.until_owns(2)
    go.set()
    await mine.until(lambda: not mine.inbox.records and not mine.lane._paused)
    await other.until_committed(world.ends)
    world.worker("z")
    await mine.until_owns(1)
    await world.click(user, "e7")
    with judging(instead, "silent"):
        try:
            async with asyncio.timeout(SILENCE_S if instead else WAIT_S):
                await mine.until_committed(world.ends)
        except TimeoutError:
            raise AssertionError("silent") from None
        judge_sets(world.sent, await world.shelf.signals())


# Publishing for users whose profiles did not change.


@defence("changed users alone")
async def test_publishing_for_unchanged_users_pays_what_a_crash_left_owed(
    world: World, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """Defence: every user of a batch is due. Fault: a crash between the write to the store and the transaction.

    The successor reads the records again, and they change nothing any more. The list is owed all the same.
    """
    if instead:
        handle = InterestHandler.handle

        async def for_changed(handler: InterestHandler, batch: Batch) -> Handled:
            users = [(record.key or b"").decode() for record in batch.records]
            versions = {user: one.version for user, one in (await handler._updater.read(users)).items()}
            handled = await handle(handler, batch)
            after = await handler._updater.read(users)
            return msgspec.structs.replace(
                handled,
                touched={
                    user: touch
                    for user, touch in handled.touched.items()
                    if user in after and after[user].version != versions.get(user)
                },
            )

        monkeypatch.setattr(InterestHandler, "handle", for_changed)
    sleep = world.sleep()
    worker = world.worker(sleep=sleep)
    await world.click("ada", "e1")
    await worker.until(lambda: sleep.reached)
    await worker.crash()
    await world.worker().until_committed(world.ends)
    judge_sets(world.sent, await world.shelf.signals())
    with judging(instead, "without a list"):
        judge_lists(await world.shelf.stored(), await world.last_lists())


# Batches without Kafka.


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
