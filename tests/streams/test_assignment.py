"""Where a lane starts to read: never past what store and group both cover, and never in silence past a hole."""

import pytest

from penchant.profile.positions import Position
from penchant.streams.assignment import LogRecreated, PartitionLog, Start, describe, start_of


def at(offset, topic_id="t"):
    """A stored position."""
    return None if offset is None else Position(topic_id=topic_id, next_offset=offset)


@pytest.mark.parametrize(
    ("low", "high", "committed", "stored", "start", "lost"),
    [
        (0, 0, None, None, 0, 0),  # a new topic
        (0, 50, None, None, 0, 0),  # never read: from the beginning
        (20, 50, None, None, 20, 0),  # never read: what is gone was never asked for
        (0, 50, 30, 30, 30, 0),  # an orderly restart
        (0, 50, 50, 50, 50, 0),  # at the end
        (0, 50, 10, 30, 10, 0),  # a crash between store and commit
        (0, 50, 30, 10, 10, 0),  # a store that was set back
        (0, 50, 30, None, 0, 0),  # a new store beside a known group
        (0, 50, None, 30, 0, 0),  # a new group beside a known store
        (20, 50, 30, 10, 20, 10),  # the store was set back further than the log reaches
        (20, 50, 10, 30, 20, 10),  # lists are owed of records that are gone
        (20, 50, 30, None, 20, 20),  # a new store, and the log's beginning is gone
        (40, 50, 30, 30, 40, 10),  # the worker was away for longer than the retention
        (50, 50, 30, 30, 50, 20),  # and nothing is left at all
    ],
)
def test_the_start_is_the_smaller_of_what_store_and_group_cover(  # noqa: PLR0917  a table's columns
    low, high, committed, stored, start, lost
):
    """A table of all that store, group and log may say together."""
    found = PartitionLog(topic_id="t", low=low, high=high, committed=committed)
    assert start_of("clicks[0]", found, at(stored)) == Start(offset=start, lost=lost)


@pytest.mark.parametrize(
    ("found", "stored", "words"),
    [
        (PartitionLog(topic_id="new", low=0, high=50, committed=None), at(5, "old"), "created anew"),
        (PartitionLog(topic_id="t", low=0, high=50, committed=30), at(51), "the store covers it up to 51"),
        (PartitionLog(topic_id="t", low=0, high=50, committed=51), at(30), "it was committed up to 51"),
        (PartitionLog(topic_id="t", low=0, high=0, committed=1), None, "it was committed up to 1"),
    ],
    ids=["another topic", "store ahead of the log", "group ahead of the log", "an empty log"],
)
def test_another_log_of_the_same_name_is_refused(found, stored, words):
    """Profiles made from another log are not continued; the error names the partition and says what to do."""
    with pytest.raises(LogRecreated, match=words) as refused:
        start_of("clicks[0]", found, stored)
    assert "clicks[0]" in str(refused.value)
    assert "fresh data_dir" in refused.value.hint


def test_starts_are_told_in_one_line():
    """The log of an assignment can be read by a person."""
    starts = {("posts", 1): Start(offset=3, lost=0), ("clicks", 0): Start(offset=7, lost=0)}
    assert describe(starts) == "clicks[0]@7, posts[1]@3"
