"""The affinity lane's handler: transitions into rows, bad ones out of the way."""

import msgspec
import pytest

from penchant.profile.affinity import MOST_PREVIOUS
from penchant.profile.rows import Rows
from penchant.profile.store.edge import EdgeStore
from penchant.settings import load_settings
from penchant.streams.affinity import AffinityHandler
from penchant.streams.codec import encode
from penchant.streams.dead_letters import REASON
from penchant.streams.events import MAX_PREVIOUS, SourcePosition, Transition
from penchant.streams.lane import Batch
from penchant.streams.records import Record

NOW = 1_750_000_000_000


@pytest.fixture
async def lane(tmp_path):
    """Handler and rows on an embedded store."""
    store = EdgeStore(tmp_path / "store")
    rows = Rows(store, "affinity")
    await store.open([rows.layout])
    yield AffinityHandler(load_settings(), rows), rows
    await store.close()


def batch(*values, first=0):
    """A batch, each record under the key of its item."""
    records = [
        Record(
            topic="transitions",
            partition=2,
            offset=first + number,
            timestamp=NOW,
            key=None if isinstance(value, bytes) else value.item_id.encode(),
            value=value if isinstance(value, bytes) else encode(value),
        )
        for number, value in enumerate(values)
    ]
    return Batch(topic="transitions", records=records, assignments={2: 1})


def told(item, offset, *previous):
    """A transition, of a record of partition 0."""
    origin = SourcePosition(topic="clicks", partition=0, offset=offset)
    return Transition(item_id=item, at=NOW, previous=tuple((one, 1.0) for one in previous), origin=origin)


async def test_each_transition_counts_once(lane):
    """In a batch that is handled again, and published again behind others from an earlier offset on."""
    handler, rows = lane
    some = [told("a", 0), told("b", 1, "a"), told("a", 2, "b")]
    for first in (0, 0, 3):
        handled = await handler.handle(batch(*some, first=first))
        assert (handled.outputs, handled.touched) == ([], {})
    await handler.handle(batch(told("b", 5, "a"), first=6))
    found = await rows.get(["a", "b", "c"])
    assert {item: row.count for item, row in found.items()} == {"a": 2, "b": 2}


def test_a_transition_may_be_as_long_as_those_that_are_sent():
    """The wire's bound is the mathematics' own."""
    assert MAX_PREVIOUS == MOST_PREVIOUS


async def test_what_is_no_transition_is_a_dead_letter(lane):
    """Its neighbours count all the same."""
    handler, rows = lane
    handled = await handler.handle(batch(told("a", 0), b"\x81", told("a", 1)))
    assert [(partition, output.headers[REASON]) for partition, output in handled.outputs] == [(2, b"malformed")]
    assert (await rows.get(["a"]))["a"].count == 2
    assert await handler.refresh([]) == []
    await handler.release()


@pytest.mark.parametrize("changes", [{"offset": 10**30}, {"offset": -1}, {"partition": 2**31}, {"topic": ""}])
async def test_an_origin_that_no_record_has_is_a_dead_letter(lane, changes):
    """A number that Kafka has none of would be refused by the store, again and again."""
    handler, rows = lane
    forged = msgspec.to_builtins(told("a", 0))
    forged["origin"] |= changes
    record = msgspec.structs.replace(batch(told("a", 1)).records[0], value=msgspec.json.encode(forged))
    handled = await handler.handle(Batch(topic="transitions", records=[record], assignments={2: 1}))
    assert [output.headers[REASON] for _, output in handled.outputs] == [b"invalid"]
    assert await rows.get(["a"]) == {}
