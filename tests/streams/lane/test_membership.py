"""Who has the partitions: a lane among others of its group, and among its own former selves."""

import asyncio
import threading

import pytest

from penchant.errors import ConfigurationError
from penchant.streams.assignment import Start
from penchant.streams.connection import open_consumer
from penchant.streams.hearing import Deaf
from penchant.streams.starts import Found
from penchant.streams.topics import Topic
from tests.streams.lane.rig import (
    GROUP,
    TOPICS,
    WAIT_S,
    assert_lists_are_in_order,
    committed,
    expected,
    having,
    outputs,
    send,
    until,
)


async def test_a_fenced_worker_comes_back_when_nobody_has_its_name(quick, lane_of):
    """A member of its name that is heard of no more, as it is itself after a long silence, does not end it."""
    running = lane_of(quick).start()
    await until(lambda: running.owned == 6, running=[running])
    intruder = open_consumer(quick, GROUP)

    def intrude():
        intruder.subscribe([quick.prefixed(topic) for topic in TOPICS])
        while not intruder.assignment():
            intruder.poll(0.1)
        intruder.close()  # a static member does not leave by that

    releases = running.scribe.releases
    await asyncio.to_thread(intrude)
    await until(lambda: running.scribe.releases > releases, running=[running])
    await until(lambda: running.owned == 6, running=[running])
    await send(quick, Topic.CLICKS, range(60))
    await until(lambda: len(running.scribe.handled) == 60, running=[running])
    await running.stop()
    assert await outputs(quick) == expected(60, 0)


async def test_what_a_client_says_that_was_given_up_takes_nothing_from_its_successor(quick, lane_of, monkeypatch):
    """A deaf client takes longer to close than the lane waits: by then another one has the partitions."""
    running = lane_of(quick).start()
    await until(lambda: running.owned == 6, running=[running])
    former, said = running.lane._member, []
    revoked_by = running.lane._revoked_by

    async def noted(member, partitions):
        said.append((member, member.left))
        await revoked_by(member, partitions)

    monkeypatch.setattr(running.lane, "_revoked_by", noted)
    go_on, closed = threading.Event(), threading.Event()

    class Reluctant:
        """The client, which closes when it is told to."""

        def __init__(self, consumer):
            self.consumer = consumer

        def close(self):
            go_on.wait(WAIT_S)
            self.consumer.close()
            closed.set()

    def deaf(_):
        former._consumer = Reluctant(former._consumer)
        raise Deaf("told to be")

    monkeypatch.setattr(former, "_take", deaf)
    try:
        with monkeypatch.context() as hurry:
            hurry.setattr("penchant.streams.lane.LEAVE_S", 0.2)
            await until(lambda: running.lane._member is not former and running.owned == 6, running=[running])
    finally:
        go_on.set()
    await until(closed.is_set, running=[running])
    assert (former, True) in said
    await running.lane._assigned(former, Found(starts={("clicks", 9): Start(offset=0, lost=0)}, logs={}))
    assert running.owned == 6
    assert not running.lane.owns("clicks", 9)
    await send(quick, Topic.CLICKS, range(60))
    await until(lambda: len(running.scribe.handled) == 60, running=[running])
    await running.stop()
    assert await outputs(quick) == expected(60, 0)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_partitions_move_between_workers_and_nothing_is_skipped_or_stale(quick, lane_of, protocol):
    """A second worker joins and the first one leaves while records come: each output once, no list goes back."""
    one, two = (
        having(quick, kafka={"group_protocol": protocol}, worker={"instance_id": name}) for name in ("one", "two")
    )
    sent = 0

    async def more(count):
        nonlocal sent
        await send(quick, Topic.CLICKS, range(sent, sent + count))
        await send(quick, Topic.POSTS, range(sent, sent + count))
        sent += count

    await more(300)
    first = lane_of(one, batch_records=20).start()
    await until(lambda: len(first.scribe.handled) >= 200, running=[first])
    second = lane_of(two, batch_records=20).start()
    while not (first.owned and second.owned and first.owned + second.owned == 6):
        await more(30)
        await until(lambda: True, running=[first, second])
    assert first.scribe.releases
    await more(300)
    await first.stop()
    while second.owned < 6:
        await more(30)
        await until(lambda: True, running=[second])
    await more(300)
    handled = first.scribe.handled, second.scribe.handled
    await until(lambda: len({*handled[0], *handled[1]}) == 2 * sent, running=[second])
    await until(lambda: second.lane._ledger.backlog == 0, running=[second])
    await second.stop()
    assert await outputs(quick) == expected(sent, sent)
    await assert_lists_are_in_order(quick)


@pytest.mark.parametrize("successor", ["restarted under its name", "another worker"])
async def test_a_worker_that_was_asleep_publishes_nothing(quick, lane_of, successor):
    """Held between sending its outputs and committing, while another takes over: what it sent is seen by nobody."""
    options = {"max.poll.interval.ms": 6_000}
    sleeper = having(quick, kafka={"options": options}, worker={"instance_id": "one"})
    awake = having(sleeper, worker={"instance_id": "one" if successor.startswith("restarted") else "two"})
    asleep, wake = threading.Event(), threading.Event()

    def ask(_):
        asleep.set()
        wake.wait(WAIT_S)
        return True  # it does not know better

    zombie = lane_of(sleeper)
    zombie.publisher.ask = ask
    await send(quick, Topic.CLICKS, range(60))
    zombie.start()
    try:
        await until(asleep.is_set, running=[zombie])
        zombie.lane._member._thread.submit(wake.wait, WAIT_S)  # it does not hear from its group either
        second = lane_of(awake).start()
        await until(lambda: len(second.scribe.handled) >= 60, running=[second])
        while (await committed(quick))[0] != (await committed(quick))[1]:
            await until(lambda: True, running=[second])
    finally:
        wake.set()
    await send(quick, Topic.CLICKS, range(60, 90))
    await until(lambda: len({*second.scribe.handled, *zombie.scribe.handled}) == 90)
    if successor.startswith("restarted"):
        with pytest.raises(ConfigurationError):
            await asyncio.wait_for(zombie.task, WAIT_S)
    else:
        await zombie.stop()
    await second.stop()
    # Readers of committed records are held back until the broker has ended the sleeper's transaction.
    for _ in range(int(WAIT_S)):
        if len(await outputs(quick)) == 90:
            break
        await asyncio.sleep(1)
    assert await outputs(quick) == expected(90, 0)
    await assert_lists_are_in_order(quick)
