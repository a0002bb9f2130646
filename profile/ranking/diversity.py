"""Diversity: a list should not say the same thing ten times."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["mmr"]

MOST_SIMILAR = 1 + 1e-4  # unit vectors, and rounding


def mmr(
    relevance: NDArray[np.float32], vectors: NDArray[np.float32], *, count: int, relevance_share: float
) -> list[int]:
    """Orders candidates by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Each place goes to the candidate of largest `share * relevance - (1 - share) * similarity`, where similarity is
    the largest dot product with the candidates placed before it, and at least zero: being the opposite of what is
    there already earns no place.

    Args:
        relevance: shape (n,).
        vectors: shape (n, d), unit rows.
        count: places.
        relevance_share: lambda; 1 orders by relevance alone.

    Returns:
        Indices of at most `count` candidates, in order.
    """
    count = min(count, len(relevance))
    if not count:
        return []
    worth = relevance_share * relevance
    # Of the `count` most relevant one is left at each step, whatever it resembles: what is worth less than that has
    # no chance, and its similarities need not be known.
    least = np.partition(worth, -count)[-count] - (1 - relevance_share) * MOST_SIMILAR
    within = np.flatnonzero(worth >= least)
    marginal, others = worth[within], vectors[within]
    nearest = np.zeros(len(within), np.float32)
    chosen: list[int] = []
    for _ in range(count):
        best = int((marginal - (1 - relevance_share) * nearest).argmax())
        chosen.append(int(within[best]))
        marginal[best] = -np.inf
        np.maximum(nearest, others @ others[best], out=nearest)
    return chosen
