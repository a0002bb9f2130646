"""What is fitted to all interactions anew, every so many events, as a nightly job would."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from penchant.evaluation.baselines.interactions import Interactions
from penchant.evaluation.protocol import Event

__all__ = ["Model", "Refitted"]

# The items that a user likes now to scores of all items: shape (m,).
Model = Callable[[Sequence[int]], NDArray[np.floating]]


class Refitted(ABC):
    """A fit is of the events up to the last multiple of `every`; a user's own likes are always those of now.

    It is made when it is first asked for, so that none is made in vain.

    Args:
        name: of the one configuration.
        every: so many events.
        users: how many there are.
        items: likewise.
    """

    def __init__(self, name: str, every: int, users: int, items: int) -> None:
        self.names = (name,)
        self._every = every
        self._seen = Interactions(users, items)
        self._events = 0
        self._due = 0
        self._fitted: tuple[int, Model] = (0, lambda _: np.zeros(items))

    @abstractmethod
    def fit(self, matrix: "scipy.sparse.csr_array[np.float64]") -> Model:
        """A model of interactions: ones, shape (u, m)."""

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the last fit says of the user's likes."""
        if self._fitted[0] != self._due:
            self._fitted = (self._due, self.fit(self._seen.matrix(self._due)))
        return self._fitted[1](self._seen.liked[event.user])[None, unseen].astype(np.float32)

    def learn(self, event: Event) -> None:
        """Adds a positive event to the interactions."""
        self._seen.add(event)
        self._events += 1
        if self._events % self._every == 0:
            self._due = len(self._seen)
