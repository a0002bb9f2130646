"""Ways to fuse an item's modalities into one vector, and the articles' formulas as they stand.

- *concat*: slices side by side, all alike; a cosine is the mean of the slices' cosines.
- *weighted*: the same by shares, F = 0.5 x_t + 0.3 x_i + 0.2 x_a, renormalised over what an item has.
- *average*: slices projected to a common dimension, and their mean.
- *attention*: slices weighted for each user by how well each has told what the user liked of late, after the
  normalised exponential of Bahdanau, Cho and Bengio (ICLR 2015); for each candidate over the slices that it has.

Slices of different encoders have nothing in common but the items, so a projection to a common dimension can only keep
what varies most in each (Hotelling, 1933): it is each slice's principal components, largest first, side by side by
rank. That makes *average* a defensible and not a meaningful mode: component k of a text and of a graph are the k-th
loudest of each, and nothing else joins them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

__all__ = ["attention", "average", "concat", "projected", "unit_rows"]

Vectors = NDArray[np.float32]

CANCELLED = 1e-12
TEMPERATURE = 0.1  # of attention: cosines differ by tenths


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


def projected(slices: Mapping[str, Vectors], dimension: int) -> dict[str, Vectors]:
    """Each slice's leading principal components: unit rows of a common dimension, zeros where a slice is absent.

    A component's sign is chosen so that its values lean to the positive, since nothing else fixes it.

    Args:
        slices: as for `concat`.
        dimension: at most that of the narrowest slice.
    """
    found = {}
    for name, vectors in slices.items():
        present = vectors.any(axis=1)
        centred = vectors[present] - vectors[present].mean(axis=0)
        _, components = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
        values = centred @ components[:, ::-1][:, :dimension]
        values = values * np.where((values**3).sum(axis=0) < 0, -1, 1)
        found[name] = np.zeros((len(vectors), dimension), np.float32)
        found[name][present] = unit_rows(values)
    return found


def average(slices: Mapping[str, Vectors]) -> Vectors:
    """The mean of the slices that an item has, of one dimension each: unit rows, shape (n, d)."""
    return unit_rows(np.sum(list(slices.values()), axis=0))


def attention(evidence: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights of slices for one user and each candidate; they sum to 1 over what the candidate has.

    Args:
        evidence: by slice, the mean cosine of what the user liked of late with what they had liked before: shape (s,).
        present: which slices each candidate has: shape (n, s).

    Returns:
        Shape (n, s).
    """
    powers = np.exp((evidence - evidence.max()) / TEMPERATURE) * present
    totals = powers.sum(axis=1, keepdims=True)
    weights: NDArray[np.float64] = np.divide(powers, totals, out=np.zeros_like(powers), where=totals > 0)
    return weights


def unit_rows(vectors: NDArray[np.floating]) -> Vectors:
    """Rows of length one; those without a direction are zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > CANCELLED).astype(
        np.float32
    )
    return found
