"""The figures: pure functions of ranks, lists and counts.

A probe has one relevant item, the one that the event was on, at rank r (from 1; halves where it ties). What others an
unseen item would have pleased is not known, so all figures are lower bounds, and serve to compare. A metric of a
configuration over a stretch of the stream is the mean of its probes' values: prequential evaluation with sliding
windows, Vinagre, Jorge and Gama, "Evaluation of recommender systems in streaming environments" (2015).
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

__all__ = [
    "PER_PROBE",
    "accuracy",
    "area",
    "calibration",
    "coverage",
    "diversity",
    "f1",
    "hits",
    "information_gain",
    "ndcg",
    "novelty",
    "precision",
    "recall",
    "reciprocal",
    "roc",
    "sliding",
]

Values = NDArray[np.float64]
Ranks = NDArray[np.floating]
Sparse: TypeAlias = "scipy.sparse.csr_array[np.float64]"

SMOOTHING = 0.01  # of calibration: how much of the user's own distribution is mixed into the list's
BLOCK = 512  # probes whose distributions are held at a time
NOBODY = 0.5  # how often an item counts as liked that nobody has liked, so that its self-information is finite


def hits(ranks: Ranks, k: int) -> Values:
    """1 where the item is among the first k: the hit rate, HR@k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Ranks, k: int) -> Values:
    """1 / log2(1 + r) among the first k, else 0. Järvelin and Kekäläinen (2002); one relevant item: the ideal is 1."""
    return np.where(ranks <= k, 1 / np.log2(1 + ranks), 0.0)


def reciprocal(ranks: Ranks, k: int) -> Values:
    """1 / r among the first k, else 0: MRR@k."""
    return np.where(ranks <= k, 1 / ranks, 0.0)


def precision(ranks: Ranks, k: int) -> Values:
    """Share of the first k that is relevant: at most 1/k."""
    return hits(ranks, k) / k


def recall(ranks: Ranks, k: int) -> Values:
    """Share of what is relevant that is among the first k: with one relevant item the hit rate."""
    return hits(ranks, k)


def f1(ranks: Ranks, k: int) -> Values:
    """Harmonic mean of precision and recall: at most 2 / (k + 1)."""
    return 2 * hits(ranks, k) / (k + 1)


def accuracy(ranks: Ranks, k: int, candidates: NDArray[np.integer]) -> Values:
    """Share of candidates told right if the first k are said to be relevant and the others not.

    With thousands of candidates and one relevant near 1 whatever is recommended.

    Args:
        ranks: shape (..., p).
        k: length of the lists, no longer than there are candidates.
        candidates: how many there were: shape (p,).
    """
    wrong = k + 1 - 2 * hits(ranks, k)  # a hit spares one false positive and one false negative
    return 1 - wrong / candidates


# What has one value a probe.
PER_PROBE: Mapping[str, Callable[[Ranks, int], Values]] = {
    "HR": hits,
    "NDCG": ndcg,
    "MRR": reciprocal,
    "precision": precision,
    "recall": recall,
    "F1": f1,
}


def roc(above: NDArray[np.floating], points: int = 101) -> tuple[Values, Values]:
    """The ROC curve, averaged over probes.

    Of one probe it is a step, from 0 to 1 at the share of negatives that is above its item. Scores of different probes
    are never compared, for a model need not make them comparable.

    Args:
        above: share of the sampled negatives that is above the probe's item: shape (p,).
        points: of the curve.

    Returns:
        False positive rates, evenly from 0 to 1, and true positive rates at them: shape (points,) each.
    """
    rates = np.linspace(0, 1, points)
    # A share of 0.29 and a rate of 0.29 may differ by a rounding.
    return rates, np.searchsorted(np.sort(above), rates + 1e-6, "right") / len(above)


def area(above: NDArray[np.floating]) -> float:
    """The area under that curve, exactly: how often a probe's item is above a sampled negative, ties by half."""
    return float(1 - np.mean(above, dtype=np.float64))


def information_gain(table: NDArray[np.integer]) -> tuple[float, float]:
    """What a feature tells of whether an item is the one that the user will like. Quinlan (1986).

    Args:
        table: how often a feature's value was in each bin, for others' items and for probes': shape (bins, 2).

    Returns:
        H(Y) - H(Y|X) in bits, and its share of H(Y); zeros where there is nothing to tell.
    """
    before = entropy(table.sum(0))
    if before == 0:
        return 0.0, 0.0
    sizes = table.sum(1)
    after = sum(size * entropy(row) for size, row in zip(sizes, table, strict=True) if size) / sizes.sum()
    gain = max(0.0, before - float(after))
    return gain, gain / before


def entropy(counts: NDArray[np.integer]) -> float:
    """Of a distribution given by counts, bits."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def coverage(tops: NDArray[np.integer], listed: int) -> float:
    """Share of the catalogue that was in any list.

    Args:
        tops: items of the lists, -1 for none: shape (p, k).
        listed: items that may be recommended.
    """
    return len(np.unique(tops[tops >= 0])) / listed


def novelty(tops: NDArray[np.integer], popularity: NDArray[np.integer], users: int) -> float:
    """Mean self-information of what was listed, -log2 of the share of users who liked it, bits. Zhou et al. (2010).

    Args:
        tops: as `coverage`.
        popularity: users who liked each item in the whole stream: shape (items,).
        users: how many there are.
    """
    information = -np.log2(np.maximum(popularity, NOBODY) / users)
    return float(information[tops[tops >= 0]].mean())


def diversity(tops: NDArray[np.integer], vectors: NDArray[np.float32]) -> float:
    """Mean over the lists of the mean of 1 - cosine over a list's pairs. Ziegler et al. (2005).

    Args:
        tops: as `coverage`; lists of less than two items are passed over.
        vectors: of items, rows of unit length or zero: shape (items, d).
    """
    counts = (tops >= 0).sum(1)
    tops, counts = tops[counts > 1], counts[counts > 1]
    if not len(tops):
        return 0.0
    lists = incidence(tops, len(vectors))
    squares = np.square(vectors, dtype=np.float64).sum(1)
    pairs = np.square(np.asarray(lists @ vectors), dtype=np.float64).sum(1) - lists @ squares  # |Σx|² without i = j
    return float(np.mean(1 - pairs / (counts * (counts - 1))))


def calibration(tops: NDArray[np.integer], liked: Sparse, categories: Sparse) -> float:
    """Mean over lists of how far their categories are from those that the user has liked: KL(p | q̃), 0 is best.

    p is the distribution of categories in what the user liked, q in the list, and q̃ = 0.99 q + 0.01 p, so that a
    category that the list lacks costs much and not everything. Steck, "Calibrated recommendations" (RecSys 2018), with
    natural logarithms and all items of equal weight.

    Args:
        tops: as `coverage`: shape (p, k).
        liked: ones where the probe's user had liked an item before: shape (p, items).
        categories: of each item, shares that sum up to one, or none: shape (items, categories).
    """
    lists = incidence(tops, categories.shape[0])
    values = []
    for start in range(0, len(tops), BLOCK):
        block = slice(start, start + BLOCK)
        wanted, given = (np.asarray((rows[block] @ categories).toarray()) for rows in (liked, lists))
        told = wanted.any(1) & given.any(1)
        wanted, given = (rows[told] / rows[told].sum(1, keepdims=True) for rows in (wanted, given))
        mixed = (1 - SMOOTHING) * given + SMOOTHING * wanted
        ratios = np.divide(wanted, mixed, out=np.ones_like(mixed), where=wanted > 0)
        values.append((wanted * np.log(ratios)).sum(1))
    found = np.concatenate(values) if values else np.zeros(0)
    return float(found.mean()) if len(found) else 0.0


def incidence(tops: NDArray[np.integer], items: int) -> Sparse:
    """Lists as ones: shape (p, items)."""
    probe, place = np.nonzero(tops >= 0)
    return scipy.sparse.csr_array((np.ones(len(probe)), (probe, tops[probe, place])), shape=(len(tops), items))


def sliding(values: NDArray[np.floating], window: int) -> Values:
    """Means over windows of so many probes: shape (..., p - window + 1); over all of them where they are fewer."""
    window = min(window, values.shape[-1])
    sums = np.cumsum(values, axis=-1, dtype=np.float64)
    sums[..., window:] -= sums[..., :-window].copy()
    return sums[..., window - 1 :] / window
