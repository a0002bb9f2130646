"""First records: of each event one, whatever is sent again, read again or cut into batches."""

from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.signals import Action, Signal
from penchant.profile.told import MEMORY, Telling, Told, telling_of


def log_of(events, partition=0):
    """Records of one partition, by the events that they tell of."""
    return [Telling(event, "clicks", partition, offset) for offset, event in enumerate(events)]


def firsts_of(log):
    """What the rule says, in the plainest way: not among the last `MEMORY` first ones before."""
    found = []
    for telling in log:
        if telling.event not in [one.event for one in found[-MEMORY:]]:
            found.append(telling)
    return found


logs = st.lists(st.integers(0, 400), max_size=600).map(log_of)


@given(log=logs, data=st.data())
def test_crashes_and_batches_change_nothing(log, data):
    """However a log is read, with what is not committed read again at any time, the same records are first ones."""
    expected = set(firsts_of(log))
    told, published, committed, reached = Told(), set(), 0, 0
    while committed < len(log):
        end = data.draw(st.integers(committed, len(log)))
        settled = {("clicks", 0): committed}
        told, found = Told.unpack(told.pack()).hearing(log[committed:end], settled)
        reached = max(reached, end)
        assert found == {telling for telling in log[committed:end] if telling in expected}
        if data.draw(st.booleans()) or end == len(log):  # else the transaction fails, and all is read again
            published |= found
            committed = end
    assert published == expected


@given(log=logs)
def test_memory_is_bounded_by_what_is_committed(log):
    """Once everything is committed no more than `MEMORY` records are remembered."""
    told = Told()
    for telling in log:
        told, _ = told.hearing([telling], {telling.origin: telling.offset})
        assert len(told.firsts) <= MEMORY + 1


def test_an_event_sent_again_is_no_first_one_in_any_partition():
    """A copy without a key may lie in another partition: it is known all the same."""
    told, found = Told().hearing(log_of([7]), {})
    again = Telling(7, "clicks", 5, 3)
    _, copies = told.hearing([again], {})
    assert found == set(log_of([7]))
    assert copies == set()


def test_what_was_heard_and_is_heard_again_changes_nothing():
    """A replay leaves the memory as it is, to the object: nothing has to be written."""
    log = log_of([1, 2, 1, 3])
    told, _ = Told().hearing(log, {})
    again, found = told.hearing(log[1:], {})
    assert again is told
    assert found == {log[1], log[3]}


def test_events_are_told_apart_by_their_ids_alone():
    """One event said with other content is the same event."""
    one, other = Signal(1, "e", "a", Action.LIKE, 2.0), Signal(2, "e", "b", Action.SAVE, 2.0)
    assert telling_of(one, ("clicks", 0), 1).event == telling_of(other, ("clicks", 0), 9).event


def test_first_records_must_be_kept_until_they_are_committed():
    """More likes than are remembered, read again after a crash: all are found, and without that defence not all."""
    log = log_of(range(3 * MEMORY))
    told, found = Told().hearing(log, {})
    assert told.hearing(log, {})[1] == found == set(log)
    hasty, _ = Told().hearing(log, {("clicks", 0): len(log)})
    assert len(hasty.hearing(log, {})[1]) == MEMORY
