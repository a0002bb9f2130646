"""Rows: sums of transitions, whatever the batches; and what they say of candidates."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.affinity import (
    LANDMARK_MS,
    POPULARITY_HALF_LIVES_MS,
    ROW_HALF_LIFE_MS,
    ROW_LIMIT,
    Row,
    RowTable,
    Transition,
    growth,
    histories,
    is_positive,
    item_key,
    positives,
    predecessors,
    recent_items,
    transition_scores,
    weighted,
)
from penchant.profile.signals import Action, Signal

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
ITEMS = [f"item-{number}" for number in range(12)]


def signal(time, item, *, event_id=None, action=Action.LIKE, weight=2.0):
    """A signal, by default a like."""
    return Signal(time, event_id or f"e{time}", item, action, weight)


def like(item, at, previous=(), offset=0, partition=0):
    """A transition."""
    return Transition(item_id=item, at=at, previous=tuple(previous), origin=("clicks", partition), offset=offset)


def after(row, item):
    """A row's sum for an item that came before; 0 where there is none."""
    return dict(zip(row.keys.tolist(), row.sums.tolist(), strict=True)).get(item_key(item), 0.0)


def same(one, other):
    """Whether two rows are equal bit by bit."""
    return (
        one.count == other.count
        and one.applied == other.applied
        and (one.popularity, one.mass) == (other.popularity, other.mass)
        and np.array_equal(one.keys, other.keys)
        and np.array_equal(one.sums, other.sums)
    )


previous = st.lists(st.tuples(st.sampled_from(ITEMS), st.floats(0.01, 1.0)), max_size=6, unique_by=lambda one: one[0])
logs = st.lists(
    st.builds(
        lambda at, before, partition: (at, before, partition),
        st.integers(LANDMARK_MS - 30 * YEAR_MS, LANDMARK_MS + 60 * YEAR_MS),
        previous,
        st.integers(0, 2),
    ),
    max_size=12,
).map(lambda rows: [like("i", at, before, offset, part) for offset, (at, before, part) in enumerate(rows)])


@given(log=logs, data=st.data())
def test_batches_may_be_cut_anywhere(log, data):
    """A row is bit for bit the same however the log of its transitions is split."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)), max_size=4)))
    row = Row(item_id="i")
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        row = row.adding(log[start:end])
    assert same(row, Row(item_id="i").adding(log))


@given(log=logs, back=st.integers(0, 12))
def test_what_is_read_again_adds_nothing(log, back):
    """A log that is read again from any earlier offset changes no row."""
    row = Row(item_id="i").adding(log)
    assert row.adding(log[-back:]) is row


@given(log=logs)
def test_sums_do_not_depend_on_the_order_of_events(log):
    """But for rounding, late events weigh what their own time gives them."""
    row = Row(item_id="i").adding(log)
    backwards = [like("i", one.at, one.previous, offset, one.origin[1]) for offset, one in enumerate(reversed(log))]
    other = Row(item_id="i").adding(backwards)
    assert other.count == row.count
    assert np.array_equal(other.keys, row.keys)
    np.testing.assert_allclose(other.sums, row.sums, rtol=1e-12)
    np.testing.assert_allclose([*other.popularity, other.mass], [*row.popularity, row.mass], rtol=1e-12)


def test_an_event_counts_half_after_its_half_life():
    """Popularity is a count that halves with each half-life; in all it stays."""
    row = Row(item_id="i").adding([like("i", LANDMARK_MS)])
    for horizon, half_life_ms in enumerate(POPULARITY_HALF_LIVES_MS):
        later = row.popularity_at(LANDMARK_MS + half_life_ms)
        assert later[horizon] == pytest.approx(0.5)
        assert later[-1] == 1


def test_a_row_weighs_what_came_before_by_its_weight_and_its_age():
    """Old transitions count less than new ones, by the row's half-life."""
    row = Row(item_id="i").adding(
        [like("i", LANDMARK_MS, [("a", 1.0), ("b", 0.9)]), like("i", LANDMARK_MS + ROW_HALF_LIFE_MS, [("b", 1.0)], 1)]
    )
    assert after(row, "b") / after(row, "a") == pytest.approx(2.9)


def test_nothing_overflows_over_decades_nor_in_the_year_9999():
    """Sums stay finite and positive for every time that an event may have."""
    times = [315_532_800_000, LANDMARK_MS, LANDMARK_MS + 70 * YEAR_MS, 253_402_300_799_999]
    row = Row(item_id="i").adding([like("i", at, [("a", 1.0)], offset) for offset, at in enumerate(times)])
    assert np.isfinite(row.popularity).all()
    assert np.isfinite(row.sums).all()
    for at in times[:3]:
        alone = Row(item_id="i").adding([like("i", at)])
        assert alone.popularity_at(at).tolist() == pytest.approx([1, 1, 1])


def test_a_row_keeps_the_heaviest():
    """A row is bounded: what weighs least goes, what it has learnt to be heavy stays."""
    log = [like("i", LANDMARK_MS, [("often", 1.0), (f"once-{number}", 0.5)], number) for number in range(2 * ROW_LIMIT)]
    row = Row(item_id="i").adding(log)
    assert len(row.keys) == ROW_LIMIT
    assert after(row, "often") == pytest.approx(2 * ROW_LIMIT)
    assert row.count == 2 * ROW_LIMIT


def test_each_origin_has_an_order_of_its_own():
    """A transition from one partition says nothing of those from another."""
    row = Row(item_id="i").adding([like("i", 0, offset=7, partition=0), like("i", 0, offset=3, partition=1)])
    assert row.count == 2
    assert row.adding([like("i", 0, offset=7, partition=1)]).count == 3


def test_predecessors_are_earlier_distinct_and_other_items():
    """What came before: positive, by time, each item once at its latest, never the item itself, fading."""
    past = positives(
        [
            signal(1, "a"),
            signal(2, "b"),
            signal(3, "glance", action=Action.VIEW, weight=0.5),
            signal(4, "bad", action=Action.HIDE, weight=-3.0),
            signal(5, "a"),
            signal(6, "i"),
            signal(7, "mine", action=Action.POST),
            signal(8, "c"),
            signal(9, "i"),
            signal(10, "later"),
        ]
    )
    assert predecessors(past, of=signal(9, "i"), fade=0.5) == (("c", 1.0), ("a", 0.5), ("b", 0.25))
    assert predecessors(past, of=signal(9, "i"), most=1) == (("c", 1.0),)
    assert [item for item, _ in recent_items(past)] == ["later", "i", "c", "a", "b"]


@given(
    st.lists(
        st.builds(
            Signal,
            time=st.integers(0, 12),
            event_id=st.sampled_from("abcdefgh"),
            item_id=st.sampled_from("uvwxyz"),
            action=st.just(Action.LIKE),
            weight=st.just(2.0),
        ),
        max_size=30,
    ),
    st.data(),
    st.integers(1, 4),
)
def test_one_walk_finds_the_predecessors_of_many(signals, data, most):
    """Of any signals, in any order, whether they are among the past or not: what looking for each alone finds."""
    asked = data.draw(st.lists(st.sampled_from(signals), max_size=6)) if signals else []
    past = (
        positives(data.draw(st.lists(st.sampled_from(signals), unique_by=lambda one: (one.time, one.event_id))))
        if signals
        else []
    )
    found = dict(histories(asked, past, most=most))
    expected = [predecessors(past, of=signal, most=most) for signal in asked]
    assert [weighted(found[number]) for number in range(len(asked))] == expected


def test_what_is_private_is_never_positive():
    """Searches, posts and uploads make no transition and precede none."""
    assert not any(is_positive(signal(1, "x", action=action)) for action in (Action.SEARCH, Action.POST, Action.UPLOAD))
    assert is_positive(signal(1, "x", action=Action.CLICK, weight=1.0))


def test_scores_are_the_formula():
    """The score of a candidate: weights times row, divided by the roots of both counts."""
    rows = [
        Row(item_id="i").adding([like("i", LANDMARK_MS, [("a", 1.0), ("b", 0.9)], n) for n in range(4)]),
        None,
        Row(item_id="j").adding([like("j", LANDMARK_MS, [("b", 1.0)])]),
    ]
    recent, masses = [[("a", 1.0), ("b", 0.9)], [], [("unknown", 1.0)]], {"a": 4.0, "b": 11.0}
    found = transition_scores(recent, rows, masses, now_ms=LANDMARK_MS)
    expected = (1.0 * 4.0 / sqrt(4 + 5) + 0.9 * 3.6 / sqrt(11 + 5)) / sqrt(4 + 5)
    np.testing.assert_allclose(found[0], [expected, 0, 0.9 / sqrt(16) / sqrt(6)])
    later = transition_scores(recent, RowTable(rows), masses, now_ms=LANDMARK_MS + ROW_HALF_LIFE_MS)
    expected = (1.0 * 2.0 / sqrt(2 + 5) + 0.9 * 1.8 / sqrt(5.5 + 5)) / sqrt(2 + 5)
    np.testing.assert_allclose(later[0], [expected, 0, 0.45 / sqrt(10.5) / sqrt(5.5)])
    assert not found[1:].any()


def test_no_rows_give_no_scores():
    """Where nothing is known of any candidate every score is zero."""
    assert RowTable([]).scores([], [], LANDMARK_MS).shape == (0, 0)
    assert transition_scores([[("a", 1.0)]], [None, None], {}, now_ms=LANDMARK_MS).tolist() == [[0, 0]]


def test_growth_is_one_at_the_landmark():
    """The landmark is where weights begin."""
    assert growth(LANDMARK_MS, DAY_MS) == 1.0
