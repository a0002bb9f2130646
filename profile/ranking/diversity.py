"""Diversity: a list should not say the same thing ten times."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["mmr"]


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
    nearest = np.zeros(len(relevance), np.float32)
    open_places = np.ones(len(relevance), bool)
    chosen: list[int] = []
    for _ in range(min(count, len(relevance))):
        marginal = np.where(open_places, relevance_share * relevance - (1 - relevance_share) * nearest, -np.inf)
        best = int(marginal.argmax())
        chosen.append(best)
        open_places[best] = False
        nearest = np.maximum(nearest, vectors @ vectors[best])
    return chosen
