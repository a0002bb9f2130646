"""Whether one configuration is better than another, or was lucky.

Two questions, two tests. McNemar's looks at probes: where just one of the two hit, was it more often the one? The
bootstrap looks at users: would another crowd have said the same? Probes of one user depend on each other, so whole
users are drawn, and the interval is the wider and the more honest for it.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy.stats import binomtest

__all__ = ["CONFIDENCE", "DRAWS", "Interval", "Resampled", "mcnemar", "resampled"]

DRAWS = 2_000
CONFIDENCE = 0.95


class Interval(Struct, frozen=True):
    """A figure, and where it lies with a confidence of 95 %."""

    value: float
    low: float
    high: float


class Resampled(Struct, frozen=True, eq=False):
    """Means of c configurations, over the probes and over as many draws of users.

    Attributes:
        means: shape (c,).
        draws: shape (draws, c); a row's entries are of the same users, so that differences may be taken.
    """

    means: NDArray[np.float64]
    draws: NDArray[np.float64]

    def mean(self, one: int) -> Interval:
        """The mean of a configuration."""
        return interval(self.means[one], self.draws[:, one])

    def difference(self, one: int, other: int) -> Interval:
        """By how much the mean of one configuration exceeds that of another."""
        return interval(self.means[one] - self.means[other], self.draws[:, one] - self.draws[:, other])


def resampled(values: NDArray[np.floating], users: NDArray[np.integer], seed: int) -> Resampled:
    """Bootstraps means over users.

    Percentile intervals: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.

    Args:
        values: of probes: shape (c, p).
        users: whom each probe is of: shape (p,).
        seed: of the draws.
    """
    codes, place = np.unique(users, return_inverse=True)
    sums = np.zeros((len(codes), len(values)))
    np.add.at(sums, place, values.T)
    sizes = np.bincount(place)
    drawn = np.random.default_rng(seed).multinomial(len(codes), np.full(len(codes), 1 / len(codes)), DRAWS)
    return Resampled(values.mean(1, dtype=np.float64), (drawn @ sums) / (drawn @ sizes)[:, None])


def interval(value: float, draws: NDArray[np.float64]) -> Interval:
    """A figure between the percentiles of its draws."""
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high))


def mcnemar(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> tuple[int, int, float]:
    """McNemar's exact test on hits: shape (p,) each. McNemar (1947); the binomial distribution and no approximation.

    Returns:
        Probes that only the one hit, that only the other hit, and how likely at least so uneven a split is by chance.
    """
    only_ours, only_theirs = int(np.count_nonzero(ours & ~theirs)), int(np.count_nonzero(theirs & ~ours))
    if not only_ours + only_theirs:
        return 0, 0, 1.0
    return only_ours, only_theirs, float(binomtest(only_ours, only_ours + only_theirs).pvalue)
