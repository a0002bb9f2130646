"""Two configurations are called different where they are, and not where chance would do."""

import numpy as np
import pytest
from scipy.stats import chi2

from penchant.evaluation.compare import mcnemar, resampled


def test_the_interval_holds_the_mean_and_narrows_with_users():
    """It is centred about the mean of the probes, and four times the users halve it."""
    random = np.random.default_rng(0)
    widths = []
    for users in (100, 400):
        values = random.random((1, users * 5))
        found = resampled(values, np.repeat(np.arange(users), 5), seed=1).mean(0)
        assert found.low < found.value < found.high
        assert found.value == pytest.approx(values.mean())
        widths.append(found.high - found.low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.2)


def test_users_are_drawn_whole():
    """Probes of one user that agree are no more evidence than one: the interval does not narrow with their number."""
    per_user = np.random.default_rng(0).random(50)
    once = resampled(per_user[None], np.arange(50), seed=1).mean(0)
    many = resampled(np.repeat(per_user, 20)[None], np.repeat(np.arange(50), 20), seed=1).mean(0)
    assert (many.low, many.high) == pytest.approx((once.low, once.high))


def test_a_difference_is_of_the_same_users():
    """What two configurations have in common does not blur their difference; turned round it changes its sign."""
    random = np.random.default_rng(0)
    common = random.random(2_000)
    found = resampled(np.stack([common + 0.01, common]), np.repeat(np.arange(200), 10), seed=1)
    assert (found.difference(0, 1).low, found.difference(0, 1).high) == pytest.approx((0.01, 0.01))
    assert found.difference(1, 0).value == pytest.approx(-0.01)
    assert found.mean(0).high - found.mean(0).low > 0.01


def test_the_same_seed_gives_the_same_interval():
    """An interval can be repeated."""
    values, users = np.random.default_rng(0).random((1, 60)), np.arange(60) % 12
    assert resampled(values, users, seed=5).mean(0) == resampled(values, users, seed=5).mean(0)


def test_mcnemar_counts_what_only_one_has_hit():
    """Probes that both hit or both missed say nothing; the split of the others is judged exactly."""
    ours, theirs = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1], bool), np.array([0, 0, 0, 0, 0, 0, 1, 0, 1], bool)
    assert mcnemar(ours, theirs) == (6, 1, pytest.approx(2 * (1 + 7) / 2**7))
    assert mcnemar(theirs, ours) == (1, 6, pytest.approx(2 * (1 + 7) / 2**7))
    assert mcnemar(ours, ours) == (0, 0, 1.0)


def test_mcnemar_agrees_with_the_approximation_where_that_holds():
    """With many probes the exact test is the usual chi-square with continuity correction."""
    ours = np.array([True] * 460 + [False] * 400)
    _, _, p = mcnemar(ours, ~ours)
    assert p == pytest.approx(chi2.sf((460 - 400 - 1) ** 2 / 860, 1), rel=0.02)
