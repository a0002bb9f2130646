"""The filter of items seen: a set that only grows, joins in any order and never forgets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.seen import SeenItems, hashed

SIZES = st.sampled_from([64, 128, 1_024, 16_384, 65_536])
ITEMS = st.lists(st.text(min_size=1, max_size=8), max_size=30)


@given(SIZES, ITEMS)
def test_no_item_that_was_added_is_ever_denied(size, items):
    """There are no false negatives, however small the filter."""
    seen = SeenItems(size).adding(items)
    assert all(item in seen for item in items)


@given(SIZES, ITEMS, ITEMS)
def test_many_items_are_asked_for_at_once(size, items, others):
    """With the answer that each gets alone, false positives included."""
    seen, asked = SeenItems(size).adding(items), [*items, *others]
    assert seen.lacking(hashed(asked)).tolist() == [item not in seen for item in asked]


@given(SIZES, ITEMS, ITEMS, ITEMS)
def test_union_is_a_join(size, one, two, three):
    """Idempotent, commutative, associative; and the same as adding everything at once, in any order."""
    a, b, c = (SeenItems(size).adding(items) for items in (one, two, three))
    assert a.union(a) == a
    assert a.union(b) == b.union(a)
    assert a.union(b).union(c) == a.union(b.union(c)) == SeenItems(size).adding(three + one + two)
    assert a.adding(one) == a


@given(SIZES, ITEMS)
def test_a_packed_filter_comes_back_as_it_was(size, items):
    """Size and content survive the store, of an empty filter too."""
    seen = SeenItems(size).adding(items)
    assert SeenItems.unpack(seen.pack()) == seen


@pytest.mark.parametrize("items", [0, 1, 60, 80, 2_000])
def test_a_full_filter_is_packed_as_it_is_and_an_empty_one_small(items):
    """What compressing would not make much smaller is not compressed; either way it comes back."""
    seen = SeenItems(16_384).adding(f"item-{number}" for number in range(items))
    assert SeenItems.unpack(seen.pack()) == seen
    assert len(seen.pack()) <= 16_384 // 8 + 1
    assert items or len(seen.pack()) < 64


def test_filters_of_different_sizes_are_not_joined():
    """A changed setting is an error, not a filter that forgets."""
    with pytest.raises(ValueError, match=r"64 and 128 bits"):
        SeenItems(64).union(SeenItems(128))


def test_the_usual_filter_rarely_takes_an_item_for_another():
    """16,384 bits hold 1,700 items at about one false positive in a hundred."""
    seen = SeenItems(16_384).adding(f"item-{number}" for number in range(1_700))
    wrong = sum(f"other-{number}" in seen for number in range(10_000))
    assert wrong < 200
