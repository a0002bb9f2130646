"""Where a lane goes on: after a stop, a crash, a store that was set back, and in another log."""

import asyncio
import time

import pytest

from penchant.errors import ConfigurationError
from penchant.profile.positions import Position
from penchant.streams.assignment import LogRecreated
from penchant.streams.connection import open_admin
from penchant.streams.topics import Topic, create_topics, describe_topics
from tests.streams.lane.rig import (
    WAIT_S,
    expected,
    outputs,
    send,
    until,
)


async def set_back(settings, lane_of):
    """Has a lane cover 90 records, and sets its positions back; gives how many records lie behind them."""
    await send(settings, Topic.CLICKS, range(90))
    first = lane_of(settings).start()
    await until(lambda: len(first.scribe.handled) == 90, running=[first])
    await first.stop()
    known = await first.positions.load([(settings.prefixed(Topic.CLICKS), number) for number in range(3)])
    await first.positions.save(
        {source: Position(topic_id=one.topic_id, next_offset=2) for source, one in known.items()}
    )
    return sum(one.next_offset - 2 for one in known.values())


async def test_a_store_that_was_set_back_catches_up(quick, lane_of):
    """Where positions lie behind the commits, the lane reads again from the positions."""
    again = await set_back(quick, lane_of)
    second = lane_of(quick).start()
    await until(lambda: len(second.scribe.handled) == again, running=[second])
    await second.stop()


async def test_a_lane_that_stores_nothing_goes_on_from_what_is_committed(quick, lane_of):
    """It keeps no positions, reads nothing again, and misses nothing."""
    for sent in (range(90), range(90, 120)):
        await send(quick, Topic.CLICKS, sent)
        running = lane_of(quick)
        running.lane._positions = None
        running.start()
        await until(lambda running=running, sent=sent: len(running.scribe.handled) == len(sent), running=[running])
        await running.stop()
        assert len(running.scribe.handled) == len(sent)
    clicks = quick.prefixed(Topic.CLICKS)
    assert not await running.positions.load([(clicks, number) for number in range(3)])
    assert await outputs(quick) == expected(120, 0)


async def test_lists_owed_to_a_store_that_was_set_back_survive_a_crash(quick, lane_of):
    """Where the store has caught up and the lists are not published yet, the next worker publishes them."""
    again = await set_back(quick, lane_of)
    second = lane_of(quick)
    second.scribe.failures["refresh"] = 1_000_000
    second.start()
    await until(lambda: len(second.scribe.handled) == again, running=[second])
    await asyncio.sleep(0.5)  # for the positions behind it
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    third = lane_of(quick).start()
    await until(lambda: len(third.scribe.handled) == again, running=[third])
    await until(lambda: third.lane._ledger.backlog == 0, running=[third])
    await third.stop()


async def test_a_topic_that_was_created_anew_stops_the_lane(quick, lane_of):
    """Before the start and while it is read: another log is never taken for the former one."""
    admin, clicks = open_admin(quick), quick.prefixed(Topic.CLICKS)

    def create_anew():
        former = describe_topics(admin, [clicks])[clicks].id
        admin.delete_topics([clicks])[clicks].result()
        while True:
            create_topics(quick)
            known = describe_topics(admin, [clicks])
            if clicks in known and known[clicks].id != former:
                return
            time.sleep(0.1)

    await send(quick, Topic.CLICKS, range(90))
    first = lane_of(quick).start()
    await until(lambda: len(first.scribe.handled) == 90, running=[first])
    await until(lambda: first.lane._ledger.backlog == 0, running=[first])
    await asyncio.to_thread(create_anew)
    await send(quick, Topic.CLICKS, range(9))
    await send(quick, Topic.POSTS, range(9))
    with pytest.raises(ConfigurationError):
        await asyncio.wait_for(first.task, WAIT_S)
    second = lane_of(quick).start()
    with pytest.raises(LogRecreated, match="created anew"):
        await asyncio.wait_for(second.task, WAIT_S)
