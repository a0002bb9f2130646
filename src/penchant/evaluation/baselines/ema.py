"""Plain EMA: a user is the exponential moving average of the content vectors of what they liked, in order of events.

The usual first design of a content-based profile that follows a stream; no clock, no whitening, one memory.
"""

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event

__all__ = ["Ema"]

NEWEST = 0.3  # weight of the newest item


class Ema:
    """p ← (1 - a) p + a x_i, and items ranked by their dot product with p.

    Args:
        users: how many there are.
        vectors: of items, rows of unit length or zero: shape (items, d).
    """

    names = (f"EMA {NEWEST:g}",)

    def __init__(self, users: int, vectors: NDArray[np.float32]) -> None:
        self._vectors = vectors
        self._profiles = np.zeros((users, vectors.shape[1]), np.float32)

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Dot products with the user's average."""
        products: NDArray[np.float32] = self._vectors @ self._profiles[event.user]
        return products[None, unseen]

    def learn(self, event: Event) -> None:
        """Moves the user towards the item of a positive event."""
        if event.positive:
            self._profiles[event.user] += NEWEST * (self._vectors[event.item] - self._profiles[event.user])
