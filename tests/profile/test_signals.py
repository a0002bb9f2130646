"""Sets of signals merge the same whatever the order, the split and the repetitions; weights say what they should."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.signals import (
    DEFAULT_WEIGHTS,
    Action,
    Signal,
    Strength,
    joined,
    merge,
    signal_weight,
    strength_of,
)

LIMITS = st.integers(1, 5)
# Few values, so that ids collide, times are equal, and one event comes with several contents.
ONE = st.builds(
    Signal,
    time=st.integers(0, 6),
    event_id=st.sampled_from("abcdefgh"),
    item_id=st.sampled_from("xyz"),
    action=st.sampled_from([Action.LIKE, Action.HIDE, Action.POST]),
    weight=st.sampled_from([-3.0, 0.0, 0.5, 2.0]),
)
PARTS = st.lists(ONE, max_size=14)


def newest(signals, limit):
    """The naive answer: the largest record of each event, of these the newest."""
    standing = {}
    for signal in sorted(signals, key=lambda one: (one.time, one.item_id, one.action, one.weight)):
        standing[signal.event_id] = signal
    ordered = sorted(standing.values(), key=lambda one: (one.time, one.event_id), reverse=True)
    return tuple(ordered[:limit])


@given(PARTS, LIMITS)
def test_a_merge_is_what_a_recount_of_everything_gives(signals, limit):
    """The largest record of each event stands, and of these the newest stay, newest first."""
    assert merge(signals, limit=limit) == newest(signals, limit)


@given(PARTS, LIMITS)
def test_merging_is_idempotent(part, limit):
    """What is merged with itself stays as it is."""
    once = merge(part, limit=limit)
    assert merge(once, once, limit=limit) == once
    assert merge(once, part, limit=limit) == once


@given(PARTS, PARTS, LIMITS)
def test_merging_is_commutative(one, other, limit):
    """It does not matter which of two parts comes first."""
    assert merge(one, other, limit=limit) == merge(other, one, limit=limit)


@given(PARTS, PARTS, PARTS, LIMITS)
def test_merging_is_associative_though_each_step_truncates(one, two, three, limit):
    """It does not matter which parts are merged, and cut, first."""

    def merged(*parts):
        return merge(*parts, limit=limit)

    assert merged(merged(one, two), three) == merged(one, merged(two, three)) == merged(one, two, three)


@given(st.lists(PARTS, min_size=1, max_size=5), LIMITS)
def test_the_newest_of_a_union_are_the_newest_of_the_newest_of_its_parts(parts, limit):
    """Parts may be cut before they are joined: nothing is lost that a cut of the whole would keep."""
    everything = [signal for part in parts for signal in part]
    assert merge(*(merge(part, limit=limit) for part in parts), limit=limit) == newest(everything, limit)


@given(PARTS, PARTS, LIMITS)
def test_joining_a_set_is_merging_it(one, other, limit):
    """The quick way with a set that is already merged gives what any merge gives, and the set itself where it stays."""
    kept = merge(one, limit=limit)
    assert joined(kept, other, limit=limit) == merge(kept, other, limit=limit)
    assert joined(kept, one, limit=limit) is kept


def test_views_clicks_and_skips_are_weak_and_all_else_strong():
    """A flood of what costs nothing pushes out nothing that was meant."""
    weak = {action for action in Action if strength_of(action) is Strength.WEAK}
    assert weak == {Action.VIEW, Action.CLICK, Action.SKIP}


@pytest.mark.parametrize(
    ("value", "expected"), [(5.0, 2.0), (0.5, -2.0), (2.75, 0.0), (99.0, 2.0), (-99.0, -2.0), (3.875, 1.0)]
)
def test_a_rating_counts_by_its_distance_from_the_middle(value, expected):
    """From -w at the lowest to +w at the highest rating; what lies outside of the scale counts as its end."""
    weight = signal_weight(Action.RATE, value=value, dwell_ms=None, weights=DEFAULT_WEIGHTS, rating_range=(0.5, 5.0))
    assert weight == pytest.approx(expected)


@pytest.mark.parametrize(("dwell_ms", "factor"), [(None, 1), (10_000, 1), (0, 0.1), (5_000, 0.5), (86_400_000, 3)])
def test_a_view_counts_by_how_long_it_lasted(dwell_ms, factor):
    """Relative to ten seconds, within a tenth and three times."""
    weight = signal_weight(Action.VIEW, value=None, dwell_ms=dwell_ms, weights=DEFAULT_WEIGHTS, rating_range=(0.5, 5.0))
    assert weight == pytest.approx(factor * DEFAULT_WEIGHTS[Action.VIEW])


@given(st.sampled_from(Action), st.none() | st.floats(-1e9, 1e9), st.none() | st.integers(0, 86_400_000))
def test_no_event_weighs_more_than_three_times_its_action(action, value, dwell_ms):
    """Whatever a producer says of an event, what it does to a profile is bounded."""
    weight = signal_weight(action, value=value, dwell_ms=dwell_ms, weights=DEFAULT_WEIGHTS, rating_range=(0.5, 5.0))
    assert abs(weight) <= 3 * abs(DEFAULT_WEIGHTS[action])
