"""A lane over real Kafka: order, bounded memory, retries, an orderly stop, and nothing lost or published twice."""

import asyncio
import threading
from collections import Counter

import pytest
from prometheus_client import REGISTRY

from penchant.streams.lane import INBOX_BATCHES
from penchant.streams.topics import Topic
from tests.streams.lane.rig import (
    WAIT_S,
    assert_lists_are_in_order,
    committed,
    expected,
    having,
    in_order,
    lists,
    outputs,
    send,
    until,
)


@pytest.mark.parametrize("transactions", [True, False])
async def test_every_record_is_handled_in_order_published_and_committed(quick, lane_of, transactions):
    """After an orderly stop everything is handled once, published once, committed, and covered by positions."""
    settings = having(quick, kafka={"transactions": transactions})
    await send(settings, Topic.CLICKS, range(700))
    await send(settings, Topic.POSTS, range(40))
    running = lane_of(settings).start()
    await until(lambda: len(running.scribe.handled) == 740, running=[running])
    await running.stop()
    assert in_order(running.scribe.handled)
    assert await outputs(settings) == expected(700, 40)
    found, ends = await committed(settings)
    assert found == ends
    positions = await running.positions.load(ends)
    assert {source: position.next_offset for source, position in positions.items()} == {
        source: end for source, end in ends.items() if end
    }
    await assert_lists_are_in_order(settings)


async def test_a_slow_topic_is_paused_and_holds_up_no_other(quick, lane_of):
    """While one topic's handler stands still its inbox stays bounded and the other topic flows; then all is there."""
    running = lane_of(quick, batch_records=10)
    gate = asyncio.Event()
    clicks = quick.prefixed(Topic.CLICKS)

    async def before(batch):
        if batch.topic == clicks:
            await gate.wait()

    running.scribe.before = before
    await send(quick, Topic.CLICKS, range(600))
    running.start()
    for start in range(0, 300, 100):
        await send(quick, Topic.POSTS, range(start, start + 100))
        await until(lambda end=start + 100: len(running.scribe.handled) == end, running=[running])
        assert running.lane._inboxes[clicks].records <= (INBOX_BATCHES + 1) * 10
    await until(lambda: {source[0] for source in running.lane._paused} == {clicks}, running=[running])
    gate.set()
    await until(lambda: len(running.scribe.handled) == 900, running=[running])
    await running.stop()
    assert in_order(running.scribe.handled)
    assert await outputs(quick) == expected(600, 300)


async def test_who_is_behind_handles_more_at_once_within_bounds(quick, lane_of):
    """Whatever waits, so many batches' records are handled together and as many wait; the rest stays in the log."""
    running = lane_of(quick, batch_records=10, together=4)
    sizes, waiting = [], []
    clicks = quick.prefixed(Topic.CLICKS)

    async def slowly(batch):
        await asyncio.sleep(0.1)
        sizes.append(len(batch.records))
        waiting.append(running.lane._inboxes[clicks].records)

    running.scribe.before = slowly
    await send(quick, Topic.CLICKS, range(600))
    running.start()
    await until(lambda: len(running.scribe.handled) == 600, running=[running])
    await until(
        lambda: REGISTRY.get_sample_value("penchant_lag_records", {"lane": "test", "topic": clicks}) == 0,
        running=[running],
    )
    await running.stop()
    assert max(sizes) == 40
    assert max(waiting) <= 50  # one more take, for what is in hand cannot be given back
    assert in_order(running.scribe.handled)
    assert await outputs(quick) == expected(600, 0)


@pytest.mark.parametrize("stands", [True, False])
async def test_lists_are_made_while_the_publication_before_is_on_its_way(quick, lane_of, stands):
    """Where that fails, they are made again: nothing is committed on top of what is not."""
    running = lane_of(quick)
    asked, go_on = threading.Event(), threading.Event()
    answers = iter([stands])

    def ask(current):
        asked.set()
        assert go_on.wait(WAIT_S)
        return next(answers, True) and current()

    running.publisher.ask = ask
    await send(quick, Topic.CLICKS, [0])
    running.start()
    await until(asked.is_set, running=[running])
    await send(quick, Topic.CLICKS, [1, 2])
    await until(lambda: {"user-1", "user-2"} <= set(running.scribe.listed), running=[running])
    assert running.lane._ledger.backlog == 3
    go_on.set()
    await until(lambda: running.lane._ledger.backlog == 0, running=[running])
    await running.stop()
    assert running.scribe.listed.count("user-0") == (1 if stands else 2)
    assert await outputs(quick) == {f"clicks-{number}": 1 for number in range(3)}
    await assert_lists_are_in_order(quick)
    assert sorted(await lists(quick)) == ["user-0", "user-1", "user-2"]


async def test_what_is_unavailable_is_tried_again(quick, lane_of):
    """Handler, lists and publication may fail for a while: each output is visible once in the end."""
    running = lane_of(quick)
    running.scribe.failures = Counter(handle=3, refresh=2)
    refusals = iter([False, False])
    running.publisher.ask = lambda current: next(refusals, True) and current()
    await send(quick, Topic.CLICKS, range(200))
    running.start()
    await until(lambda: len(running.scribe.handled) == 200, running=[running])
    await until(lambda: running.lane._ledger.backlog == 0, running=[running])
    await running.stop()
    assert next(refusals, None) is None
    assert not +running.scribe.failures
    assert await outputs(quick) == expected(200, 0)
    await assert_lists_are_in_order(quick)


async def test_an_error_that_waiting_does_not_heal_stops_the_lane_with_that_error(quick, lane_of):
    """A mistake is not retried for ever, nor committed past: the lane ends with the error itself."""
    running = lane_of(quick)

    async def before(_):
        raise ZeroDivisionError("a mistake")

    running.scribe.before = before
    await send(quick, Topic.CLICKS, range(10))
    running.start()
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await asyncio.wait_for(running.task, WAIT_S)
    found, _ = await committed(quick)
    assert not any(found.values())


async def test_a_stop_finishes_what_has_begun_and_the_next_goes_on_from_there(quick, lane_of):
    """Stopped in the midst of much: nothing is handled or published twice, or skipped, by the two together."""
    await send(quick, Topic.CLICKS, range(3_000))
    first = lane_of(quick, batch_records=50)

    async def slowly(_):
        await asyncio.sleep(0.01)

    first.scribe.before = slowly
    first.start()
    await until(lambda: len(first.scribe.handled) >= 200, running=[first])
    await first.stop()
    assert len(first.scribe.handled) < 3_000
    second = lane_of(quick).start()
    await until(lambda: len(first.scribe.handled) + len(second.scribe.handled) >= 3_000, running=[second])
    await second.stop()
    assert in_order(first.scribe.handled + second.scribe.handled)
    assert await outputs(quick) == expected(3_000, 0)
    await assert_lists_are_in_order(quick)
