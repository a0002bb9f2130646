"""Last item: what was liked right after the item that the user liked last.

A Markov chain of first order over items, estimated by counting: the simplest of the sequential recommenders in Rendle,
Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains" (WWW 2010).
"""

from collections import Counter, defaultdict

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event

__all__ = ["LastItem"]


class LastItem:
    """Counts of transitions; knows nothing of contents.

    Args:
        items: how many there are.
    """

    names = ("last item",)

    def __init__(self, items: int) -> None:
        self._items = items
        self._last: dict[int, int] = {}
        self._next: defaultdict[int, Counter[int]] = defaultdict(Counter)

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """How often each item came after the user's last."""
        counts = np.zeros(self._items, np.float32)
        if following := self._next.get(self._last.get(event.user, -1)):
            counts[list(following)] = list(following.values())
        return counts[None, unseen]

    def learn(self, event: Event) -> None:
        """Counts the transition that a positive event makes."""
        if not event.positive:
            return
        if (last := self._last.get(event.user)) is not None:
            self._next[last][event.item] += 1
        self._last[event.user] = event.item
