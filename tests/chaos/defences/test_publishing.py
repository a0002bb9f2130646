"""What a reader of committed records finds is complete, said once, and the newest last, whoever sleeps or crashes."""

from collections.abc import Callable

import msgspec
import pytest

from penchant.streams import publish as publish_module
from penchant.streams.inbox import Batch
from penchant.streams.interest import InterestHandler
from penchant.streams.ledger import Handled
from tests.chaos.defences.judgement import defence, judge_letters, judge_lists, judge_sets, judging
from tests.chaos.defences.rig import ObservedPublisher, World, user_in

NO_TRANSACTIONS = "no transactions"


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
        judge_letters(await world.dead_letters())


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
        judge_letters(await world.dead_letters())


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
        judge_letters(await world.dead_letters())


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
