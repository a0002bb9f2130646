"""A partition that goes to another worker and comes back finds no memory of the time before, and flows."""

import asyncio
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer, TopicPartition

from penchant.profile.updater import ProfileUpdater
from penchant.settings import Settings
from penchant.streams import member as member_module
from penchant.streams.connection import consumer_options
from penchant.streams.events import ClickAction
from penchant.streams.inbox import Batch
from penchant.streams.lane import INBOX_BATCHES, Lane
from penchant.streams.member import Member
from tests.chaos.defences.judgement import defence, judge_lists, judge_sets, judging
from tests.chaos.defences.rig import WAIT_S, World, user_in

KEPT = "profiles kept in memory"
FETCH_S = 0.2  # for the client to have what was sent; where it takes longer, once more
SILENCE_S = 3.0  # ten times what it takes to flow


@defence(KEPT)
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


@defence(KEPT)
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

        def leave_paused(lane: Lane, _: Member, __: Consumer, partitions: Sequence[TopicPartition]) -> None:
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
