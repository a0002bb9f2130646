"""Who liked what so far: the sparse matrix that neighbourhood and factor models are made of."""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event

__all__ = ["Interactions"]


class Interactions:
    """Positive events in the order in which they came, each user and item once: u users, m items, n pairs.

    Being append-only, it can be looked at as it was at any earlier moment, by how many pairs it had then.
    """

    def __init__(self, users: int, items: int) -> None:
        self.shape = (users, items)
        self.liked: list[list[int]] = [[] for _ in range(users)]
        self._pairs: set[tuple[int, int]] = set()
        self._users = np.zeros(1_024, np.int64)
        self._items = np.zeros(1_024, np.int64)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def users(self) -> NDArray[np.int64]:
        """Of each pair: shape (n,)."""
        return self._users[: len(self)]

    @property
    def items(self) -> NDArray[np.int64]:
        """Of each pair: shape (n,)."""
        return self._items[: len(self)]

    def add(self, event: Event) -> bool:
        """Takes an event into account; whether that says anything new."""
        pair = (event.user, event.item)
        if not event.positive or pair in self._pairs:
            return False
        if len(self) == len(self._users):
            self._users, self._items = (np.resize(column, 2 * len(self)) for column in (self._users, self._items))
        self._users[len(self)], self._items[len(self)] = pair
        self._pairs.add(pair)
        self.liked[event.user].append(event.item)
        return True

    def matrix(self, pairs: int) -> "scipy.sparse.csr_array[np.float64]":
        """The first `pairs` pairs as ones: shape (u, m)."""
        entries = (np.ones(pairs), (self._users[:pairs], self._items[:pairs]))
        return scipy.sparse.csr_array(entries, shape=self.shape)
