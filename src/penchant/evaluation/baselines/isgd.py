"""ISGD: a matrix factorisation that takes one gradient step an event.

Vinagre, Jorge and Gama, "Fast incremental matrix factorization for recommendation with positive-only feedback"
(UMAP 2014), algorithm 2.
"""

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event

__all__ = ["Isgd"]

FACTORS = 16
RATE = 0.1
REGULARISATION = 0.01
SPREAD = 0.1  # of the first factors


class Isgd:
    """Users' factors p and items' factors q, with p·q towards 1 for what is liked.

    Args:
        users: how many there are.
        items: likewise.
        seed: of the first factors.
    """

    names = ("ISGD",)

    def __init__(self, users: int, items: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self._users = random.normal(0.0, SPREAD, (users, FACTORS)).astype(np.float32)
        self._items = random.normal(0.0, SPREAD, (items, FACTORS)).astype(np.float32)

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """p·q of each item."""
        products: NDArray[np.float32] = self._items @ self._users[event.user]
        return products[None, unseen]

    def learn(self, event: Event) -> None:
        """One step: e = 1 - p·q, then p += η (e q - λ p), and q += η (e p - λ q) with the new p."""
        if not event.positive:
            return
        user, item = self._users[event.user], self._items[event.item]  # views: the steps are taken in place
        error = 1 - user @ item
        user += RATE * (error * item - REGULARISATION * user)
        item += RATE * (error * user - REGULARISATION * item)
