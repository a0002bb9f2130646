"""The store has every event once: not lost to another writer, not doubled by a replay, not missing after a restore."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import pytest

from penchant.profile import profiles as profiles_module
from penchant.profile import state as state_module
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.signals import Action, Signal
from penchant.profile.store.base import Write
from penchant.profile.store.edge import EdgeStore
from penchant.streams import starts as starts_module
from penchant.streams.assignment import PartitionLog, Start
from tests.chaos.defences.judgement import defence, judge_sets, judging
from tests.chaos.defences.rig import ITEMS, NOW, Shelf, World


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

        monkeypatch.setattr(starts_module, "start_of", from_committed)
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
