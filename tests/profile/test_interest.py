"""Interest vectors are what a slow loop in double precision gives, and the signals account for all of a score."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penchant.profile.interest import Horizons, interest_views
from penchant.profile.signals import Action, Signal

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
HORIZONS = Horizons(short_ms=8 * HOUR_MS, long_ms=50 * DAY_MS, short_share_at=3.0)
D = 6
NOW = 1_750_000_000_000
ITEMS = [f"i{number}" for number in range(8)]
# The items i6 and i7 have no vector; i5's is all zero.
ROWS = {item: row for row, item in enumerate(ITEMS[:6])}
VECTORS = np.random.default_rng(7).normal(size=(6, D))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float32)
VECTORS[5] = 0

AGES = st.integers(0, 3 * DAY_MS) | st.integers(0, 400 * DAY_MS)
WEIGHTS = st.sampled_from([4.0, 2.0, 1.0, 0.5, 0.1, 0.0, -0.3, -2.0]) | st.floats(0.01, 4)
ONE = st.builds(
    lambda age, item, weight: Signal(NOW - age, "e", item, Action.LIKE, weight), AGES, st.sampled_from(ITEMS), WEIGHTS
)
USER = st.lists(ONE, max_size=12)


def slowly(signals, as_of):
    """One user's views, signal by signal in fractions, which no age underflows: short, long, interest, rho."""

    def horizon(half_life):
        total, mass = [Fraction(0)] * D, Fraction(0)
        for signal in signals:
            if signal.item_id in ROWS:
                halvings, rest = divmod((as_of - signal.time) / half_life, 1)
                weight = Fraction(signal.weight) * Fraction(2.0**-rest) / 2 ** int(halvings)
                mass += abs(weight)
                for place, component in enumerate(VECTORS[ROWS[signal.item_id]]):
                    total[place] += weight * Fraction(float(component))
        return [float(component / mass) if mass else 0.0 for component in total], float(mass)

    def unit(vector):
        length = math.sqrt(math.fsum(component * component for component in vector))
        return [component / length for component in vector] if length > 1e-12 else [0.0] * D

    short, short_mass = horizon(HORIZONS.short_ms)
    long, _ = horizon(HORIZONS.long_ms)
    rho = short_mass / (short_mass + HORIZONS.short_share_at)
    mix = [rho * a + (1 - rho) * b for a, b in zip(unit(short), unit(long), strict=True)]
    return np.array(short), np.array(long), np.array(unit(mix)), rho


def views(*users, as_of=NOW):
    """The views under test."""
    return interest_views(list(users), [as_of] * len(users), ROWS, VECTORS, HORIZONS)


@example([[Signal(NOW - 30_390_660_893, "e", ITEMS[0], Action.LIKE, 1.03125)]])  # its short weight is subnormal
@given(st.lists(USER, min_size=1, max_size=4))
def test_views_equal_a_slow_loop_in_double_precision(users):
    """All vectors, and the share of the short one, to what single precision holds."""
    made = views(*users)
    for row, signals in enumerate(users):
        short, long, interest, rho = slowly(signals, NOW)
        np.testing.assert_allclose(made.short[row], short, atol=1e-6)
        np.testing.assert_allclose(made.long[row], long, atol=1e-6)
        np.testing.assert_allclose(made.interest[row], interest, atol=1e-6)
        assert made.rho[row] == pytest.approx(rho)


@given(st.lists(USER, min_size=2, max_size=5))
def test_a_batch_equals_its_users_one_by_one(users):
    """Nobody's vectors depend on who else is in the batch, to the last bit: else replays would write for ever."""
    made = views(*users)
    for row, signals in enumerate(users):
        alone = views(signals)
        for name in ("short", "long", "interest", "short_mass", "long_mass", "rho"):
            np.testing.assert_array_equal(getattr(made, name)[row], getattr(alone, name)[0])


@given(USER, st.integers(0, 80 * 365 * DAY_MS))
def test_a_later_moment_turns_no_horizon(signals, later):
    """As of any later moment, decades on, short and long point where they did; only the mix moves, to the long."""
    then, now = views(signals, as_of=NOW + later), views(signals)
    np.testing.assert_allclose(then.short, now.short, atol=1e-6)
    np.testing.assert_allclose(then.long, now.long, atol=1e-6)
    assert then.rho[0] <= now.rho[0]


@given(USER)
def test_signals_on_items_without_vectors_do_not_count(signals):
    """An item that is not there yet moves no vector."""
    present = [signal for signal in signals if signal.item_id in ROWS]
    np.testing.assert_array_equal(views(signals).interest, views(present).interest)


@pytest.mark.parametrize(
    "signals",
    [
        [],
        [Signal(NOW, "e", "i6", Action.LIKE, 2.0)],
        [Signal(NOW, "e", "i5", Action.LIKE, 2.0)],
        [Signal(NOW, "e", "i0", Action.RATE, 0.0)],
        [Signal(NOW, "a", "i0", Action.LIKE, 2.0), Signal(NOW, "b", "i0", Action.DISLIKE, -2.0)],
    ],
    ids=["nothing", "absent item", "void item", "no weight", "like and dislike at once"],
)
def test_who_has_no_direction_has_a_vector_of_zeros(signals):
    """No signal that counts, no interest: and no division by zero."""
    made = views(signals)
    assert not made.interest.any()
    assert not made.short.any()


def test_what_cancels_but_for_rounding_is_no_interest():
    """0.1 and 0.2 less 0.3 is nothing; what rounding leaves of it must not be blown up to a direction."""
    weights = (0.1, 0.2, -0.3)
    signals = [Signal(NOW, str(weight), "i0", Action.VIEW, weight) for weight in weights]
    assert not views(signals).interest.any()


def test_what_nearly_cancels_still_has_the_direction_of_what_is_left():
    """A like taken back a second later leaves the dislike, however little it is more."""
    signals = [Signal(NOW - 1_000, "a", "i0", Action.LIKE, 2.0), Signal(NOW, "b", "i0", Action.DISLIKE, -2.0)]
    np.testing.assert_allclose(views(signals).interest[0], -VECTORS[0], atol=1e-6)


def test_the_short_view_outlives_a_newest_signal_that_does_not_count():
    """Years after all that counts, the short view still points there, though the mix hardly asks it."""
    past = [Signal(NOW - 3 * 365 * DAY_MS - age, str(age), f"i{age % 3}", Action.LIKE, 2.0) for age in range(3)]
    newest = Signal(NOW, "new", "i7", Action.LIKE, 2.0)
    made = views([newest, *past])
    np.testing.assert_allclose(made.short, views(past, as_of=past[0].time).short, atol=1e-6)
