"""Ways to fuse an item's modalities into one vector, and the mathematics of a user's vector made of such.

- *concat*: slices side by side by their shares of what an item has; with even ones a cosine is the mean of the slices'
  cosines.
- *average*: slices projected to a common dimension, and their mean.
- *attention*: slices weighted for each user by how well each has told what the user liked of late, after the
  normalised exponential of Bahdanau, Cho and Bengio (ICLR 2015); for each candidate over the slices that it has.

A user's vector follows U <- 0.6 U + 0.4 x of each item liked, in their order: over what is remembered, newest first,
that is the sum of 0.4 * 0.6^k x_k. So it is a function of the set of signals, and late events land where they belong.

Slices of different encoders have nothing in common but the items, so a projection to a common dimension can only keep
what varies most in each (Hotelling, 1933): it is each slice's principal components, loudest first, side by side by
rank. That makes *average* a defensible and not a meaningful mode: component k of a text and of a graph are the k-th
loudest of each, and nothing else joins them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ADDED",
    "KEPT",
    "REMEMBERED",
    "attention",
    "average",
    "concat",
    "even",
    "moving",
    "projected",
    "told",
    "unit_rows",
]

Vectors = NDArray[np.float32]
Floats = NDArray[np.float64]

KEPT, ADDED = 0.6, 0.4  # U = 0.6 u + 0.4 x_m
REMEMBERED = 64  # likes: less than a trillionth is left of what was before
EVIDENCE_KEPT = 0.8  # of what a slice has told, from one liked item to the next
TEMPERATURE = 0.1  # of attention: cosines differ by tenths
CANCELLED = 1e-12


def concat(slices: Mapping[str, Vectors], shares: Mapping[str, float] | None = None) -> Vectors:
    """Slices side by side, scaled by the root of their shares of what an item has: unit rows, shape (n, sum of d).

    Args:
        slices: by name, unit vectors of n items, shape (n, d); zeros where an item lacks the slice.
        shares: by name; None: all alike.
    """
    weights = np.array([1.0 if shares is None else shares.get(name, 0.0) for name in slices])
    present = np.stack([vectors.any(axis=1) for vectors in slices.values()], axis=1)
    totals = present @ weights
    scales = np.sqrt(weights / np.where(totals > 0, totals, 1)[:, None])
    scaled = [vectors * scales[:, place, None] for place, vectors in enumerate(slices.values())]
    return np.concatenate(scaled, axis=1).astype(np.float32)


def projected(slices: Mapping[str, Vectors], loudest: Mapping[str, NDArray[np.int64]]) -> dict[str, Vectors]:
    """Slices of one dimension, that of the narrowest: unit rows of each one's loudest components, zeros where absent.

    Args:
        slices: as for `concat`, of principal components.
        loudest: by slice, its components, the loudest first.
    """
    dimension = min(len(order) for order in loudest.values())
    return {name: unit_rows(vectors[:, loudest[name][:dimension]]) for name, vectors in slices.items()}


def average(slices: Mapping[str, Vectors], shares: Mapping[str, float] | None = None) -> Vectors:
    """The mean of the slices that an item has, of one dimension each: unit rows, shape (n, d).

    Args:
        slices: as for `concat`.
        shares: that they count by; None: all alike.
    """
    weighted = [vectors * (1.0 if shares is None else shares.get(name, 0.0)) for name, vectors in slices.items()]
    return unit_rows(np.sum(weighted, axis=0))


def moving(count: int) -> Floats:
    """What each of so many liked items counts in U, the newest first: shape (count,)."""
    shares: Floats = ADDED * np.power(KEPT, np.arange(count, dtype=float))
    return shares


def even(count: int) -> Floats:
    """What each of so many counts in a mean: shape (count,)."""
    return np.full(count, 1 / max(count, 1))


def told(liked: Vectors) -> float:
    """How well a slice has told what a user liked of late: mean cosine of what was liked with U as it was before.

    The newest count most, each a fifth of what is left by those after it.

    Args:
        liked: unit vectors of the items, newest first, zeros where absent: shape (k, d).
    """
    gaps = np.subtract.outer(np.arange(len(liked)), np.arange(len(liked)))  # negative: how much earlier it was
    before = np.where(gaps < 0, KEPT ** (-gaps - 1.0), 0.0)
    users = unit_rows(before @ liked)
    cosines = (users * liked).sum(axis=1)
    return float((1 - EVIDENCE_KEPT) * (EVIDENCE_KEPT ** np.arange(len(liked)) @ cosines))


def attention(evidence: Floats, present: NDArray[np.bool_]) -> Floats:
    """Weights of slices for one user and each candidate; they sum to 1 over what the candidate has.

    Args:
        evidence: by slice, what it has `told`: shape (s,).
        present: which slices each candidate has: shape (n, s).

    Returns:
        Shape (n, s).
    """
    powers = np.exp((evidence - evidence.max()) / TEMPERATURE) * present
    totals = powers.sum(axis=1, keepdims=True)
    weights: Floats = np.divide(powers, totals, out=np.zeros_like(powers), where=totals > 0)
    return weights


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Rows of length one; those without a direction are zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > CANCELLED).astype(
        np.float32
    )
    return found
