"""An inbox hands out all that it was given, in order, together where it may, and says in time that it is full."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from penchant.streams.inbox import BEARABLE_S, MOST_BYTES, Batch, Inbox
from penchant.streams.records import Record


def batch(count, first, *, partition=0, assignment=1, settled=0, size=1):
    """A batch of so many records of one partition."""
    records = [
        Record(topic="clicks", partition=partition, offset=first + n, timestamp=0, key=None, value=b"x" * size)
        for n in range(count)
    ]
    return Batch(topic="clicks", records=records, assignments={partition: assignment}, settled={partition: settled})


async def drained(inbox):
    """All that waits, as it is handed out."""
    found = []
    while inbox.records:
        found.append(await inbox.get())
    return found


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2), st.integers(1, 2)), max_size=20), st.integers(1, 30))
def test_all_is_handed_out_once_in_order_and_never_across_an_assignment(taken, together):
    """However it was taken: no more together than is allowed, and of each partition under one assignment alone."""

    async def play():
        inbox = Inbox(together=together, room=10)
        batches, first = [], 0
        for count, partition, assignment in taken:
            batches.append(batch(count, first, partition=partition, assignment=assignment, settled=first))
            first += count
        for one in batches:
            inbox.put(one)
        return batches, await drained(inbox), inbox

    batches, found, inbox = asyncio.run(play())
    assert [record for one in found for record in one.records] == [record for one in batches for record in one.records]
    assert (inbox.records, inbox.bytes) == (0, 0)
    largest = max((len(one.records) for one in batches), default=0)
    assert all(len(one.records) <= max(together, largest) for one in found)
    under = {record.offset: one.assignments[record.partition] for one in batches for record in one.records}
    for one in found:
        assert all(under[record.offset] == one.assignments[record.partition] for record in one.records)
        assert one.next_offsets == {record.partition: record.offset + 1 for record in one.records}
        assert all(offset <= one.next_offsets[number] for number, offset in one.settled.items())


async def test_no_more_is_handed_out_than_is_handled_in_a_few_seconds():
    """By what the last took; a batch is never divided, and what is quick is handled together again."""
    inbox = Inbox(together=100, room=1_000)
    for number in range(20):
        inbox.put(batch(10, 10 * number))
    sizes = []
    for seconds in (4 * BEARABLE_S, 100 * BEARABLE_S, 0.0, 1.0):
        sizes.append(len((await inbox.get()).records))
        inbox.took(sizes[-1], seconds)
    assert sizes == [100, 20, 10, 70]


async def test_what_waits_is_bounded_in_records_and_in_bytes():
    """Few large posts fill it as many small clicks do; and it hands out no more bytes together than may wait."""
    many, large = Inbox(together=100, room=20), Inbox(together=100, room=20)
    many.put(batch(19, 0))
    assert not many.full
    many.put(batch(1, 19))
    assert many.full
    for number in range(3):
        assert not large.full
        large.put(batch(1, number, size=MOST_BYTES // 3 + 1))
    assert large.full
    assert [len(one.records) for one in await drained(large)] == [2, 1]
    assert not large.full


async def test_who_waits_is_given_what_comes_and_is_let_go_when_it_closes():
    """A batch that comes later wakes who waits; closing does too, and nothing is handed out behind it."""
    inbox = Inbox(together=10, room=10)
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    one = batch(2, 0)
    inbox.put(one)
    assert await waiting is one
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put(batch(1, 2))
    inbox.close()
    assert await waiting is None
    assert await inbox.get() is None
