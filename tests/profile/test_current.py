"""Views that are kept current are those made anew: whatever comes, leaves, is edited or cancels in between."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from penchant.profile.cache import ItemVectors
from penchant.profile.current import CurrentViews, exchanged
from penchant.profile.interest import MOST_STEPS, Change, Horizons, Sums, advanced, interest_views, sums_of, views_of
from penchant.profile.items import Item
from penchant.profile.signals import Action, Signal, merge

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
NOW = 1_750_000_000_000
HORIZONS = Horizons(short_ms=8 * HOUR_MS, long_ms=50 * DAY_MS, short_share_at=3.0)
ITEMS = [f"i{number}" for number in range(7)]
ROWS = {item: row for row, item in enumerate(ITEMS[:6])}  # the last one has no vector
VECTORS = np.random.default_rng(3).normal(size=(6, 5))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)

TIMES = st.integers(0, 20) | st.integers(0, 400 * DAY_MS)
ONE = st.builds(
    lambda age, event, item, weight: Signal(NOW - age, event, item, Action.LIKE, weight),
    TIMES,
    st.sampled_from("abcdefghijklmnop"),
    st.sampled_from(ITEMS),
    st.sampled_from([4.0, 2.0, 1.0, 0.5, 0.0, -0.3, -2.0, -4.0]) | st.floats(-4, 4, allow_subnormal=False),
)


def anew(signals):
    """A user's views, as they are made from nothing."""
    return interest_views([signals], [NOW], ROWS, VECTORS, HORIZONS)


@settings(deadline=None)
@given(st.lists(st.lists(ONE, max_size=6), min_size=1, max_size=12), st.integers(1, 6))
def test_sums_that_are_moved_on_give_the_views_of_the_set(batches, limit):
    """Batch by batch, with what joins, is superseded and leaves; wherever the sums say that they hold and are sound."""
    kept, sums = (), sums_of([()], ROWS, VECTORS, HORIZONS)
    for batch in batches:
        before, kept = kept, merge(kept, batch, limit=limit)
        added, removed = exchanged(before, kept)
        sums, holds = advanced(sums.of(0), [Change(added, removed)], ROWS, VECTORS, HORIZONS)
        views, expected = views_of(sums, [NOW], HORIZONS), anew(kept)
        if not (holds[0] and views.sound[0]):
            sums = sums_of([kept], ROWS, VECTORS, HORIZONS)
            continue
        for name in ("short", "long", "interest", "rho"):
            np.testing.assert_allclose(getattr(views, name), getattr(expected, name), atol=1e-6)


@given(st.lists(st.lists(ONE, max_size=8), min_size=2, max_size=4), st.lists(ONE, max_size=3))
def test_users_are_moved_on_together_as_they_are_alone(users, more):
    """To the last bit: what is stored for one does not depend on who else is in the batch."""
    sums = [sums_of([signals], ROWS, VECTORS, HORIZONS) for signals in users]
    change = Change(more, ())
    together, holds = advanced(Sums.together(sums), [change] * len(users), ROWS, VECTORS, HORIZONS)
    for number, one in enumerate(sums):
        alone, holds_alone = advanced(one.of(0), [change], ROWS, VECTORS, HORIZONS)
        np.testing.assert_array_equal(together.of(number).vectors, alone.vectors)
        np.testing.assert_array_equal(together.of(number).masses, alone.masses)
        assert holds[number] == holds_alone[0]


def test_what_rounding_has_left_is_not_taken_for_an_interest():
    """A great like that leaves, or is taken back to the last bit, lets the sums be made anew."""
    great, small = Signal(NOW - 1, "a", "i0", Action.LIKE, 1e9), Signal(NOW, "b", "i1", Action.LIKE, 1e-9)
    sums = sums_of([[great, small]], ROWS, VECTORS, HORIZONS)
    left, holds = advanced(sums.of(0), [Change((), [great])], ROWS, VECTORS, HORIZONS)
    assert holds[0]
    assert not views_of(left, [NOW], HORIZONS).sound[0]
    back = Signal(NOW, "c", "i0", Action.DISLIKE, -1e9)
    cancelled, _ = advanced(sums.of(0), [Change([back], ())], ROWS, VECTORS, HORIZONS)
    assert not views_of(cancelled, [NOW], HORIZONS).sound[0]


def test_the_newest_signal_does_not_leave_unseen():
    """Decay was counted from it: what is left is counted from another one."""
    signals = [Signal(NOW, "a", "i0", Action.LIKE, 2.0), Signal(NOW - 50 * DAY_MS, "b", "i1", Action.LIKE, 2.0)]
    sums = sums_of([signals], ROWS, VECTORS, HORIZONS)
    _, holds = advanced(sums, [Change((), signals[:1])], ROWS, VECTORS, HORIZONS)
    assert not holds[0]


@given(st.lists(ONE, max_size=12), st.lists(ONE, max_size=12), st.integers(1, 6))
def test_an_exchange_is_the_difference_of_sets(one, other, limit):
    """What joins and leaves, with what the two share being the same objects or their equals."""
    before = merge(one, limit=limit)
    after = merge(before, other, limit=limit)
    for now in (after, merge(map(structs.replace, after), limit=limit)):
        added, removed = exchanged(before, now)
        assert set(added) == set(now) - set(before)
        assert set(removed) == set(before) - set(now)
        assert (len(added), len(removed)) == (len(set(added)), len(set(removed)))


@pytest.fixture
def current(items, horizons):
    """Views kept for a few users; and the items' vectors, fresh at each look."""
    vectors = ItemVectors(items, capacity=50, ttl_s=1e-9)
    return CurrentViews(vectors, horizons, capacity=4), vectors


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_views_are_of_the_set_and_of_the_items_as_they_are(  # noqa: PLR0917  all are fixtures
    current, items, profiles, catalogue, limits, horizons, seed
):
    """Late events, replays, edits, items that come late, that lose their content, and a memory too small for all."""
    views, vectors = current
    chance = random.Random(seed)
    names = [f"item-{number}" for number in range(12)]
    await catalogue(*names[:8])
    known = {user: profiles.empty(user) for user in ("ada", "bob", "cy", "dee", "eve")}
    time = NOW
    for step in range(120):
        version = step + 2
        if chance.random() < 0.1:
            await catalogue(chance.choice(names), seed=version, version=version)
        elif chance.random() < 0.05:
            void = Item(item_id=chance.choice(names), version=(version, version, 0), listed=False)
            await items.put([(void, None)])
        batch = []
        for user in chance.sample(sorted(known), chance.randint(1, 4)):
            signals = []
            for _ in range(chance.choice([0, 1, 1, 2, 9])):
                time += chance.choice([1, 1_000, HOUR_MS, 10 * DAY_MS])
                action = chance.choice([Action.LIKE, Action.VIEW, Action.DISLIKE])
                event = f"e{step}" if chance.random() < 0.8 else f"e{chance.randrange(step + 1)}"
                weight = -2.0 if action is Action.DISLIKE else 2.0
                late = chance.choice([0, 0, 5 * DAY_MS])
                signals.append(Signal(time - late, event, chance.choice(names), action, weight))
            before = known[user]
            batch.append((before.state, structs.replace(before, state=before.state.adding(signals, limits))))
        for profile in await views.renewed(batch):
            known[profile.user] = profile
            state = profile.state
            content = await vectors.gather([signal.item_id for signal in state.signals])
            expected = interest_views([state.signals], [state.as_of], content.rows, content.vectors, horizons)
            assert profile.awaits == content.missing
            for name in ("short", "long", "interest", "rho"):
                np.testing.assert_allclose(getattr(profile, name), getattr(expected, name)[0], atol=1e-6)


async def test_sums_are_made_anew_now_and_then(current, profiles, catalogue, limits):
    """So that rounding adds up over a bounded number of steps."""
    views, _ = current
    await catalogue(*ITEMS)
    profile = profiles.empty("ada")
    steps = set()
    for number in range(MOST_STEPS + 3):
        signal = Signal(NOW + number, f"e{number}", ITEMS[number % 6], Action.LIKE, 2.0)
        [profile] = await views.renewed(
            [(profile.state, structs.replace(profile, state=profile.state.adding([signal], limits)))]
        )
        steps.add(views._known.get("ada").steps)
    assert steps == set(range(MOST_STEPS + 1))
