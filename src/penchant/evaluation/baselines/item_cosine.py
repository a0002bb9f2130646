"""Item-item cosine: what the users liked who liked what this user liked.

Sarwar et al., "Item-based collaborative filtering recommendation algorithms" (WWW 2001), with all items as neighbours:

    s_i = Σ_{j liked} f^(age of j) x_i·x_j / √((n_i + b) (n_j + b))

over the columns x of the matrix of interactions as they are at that moment, with n ones each. The two parameters make
it stronger than its textbook form (b = 0, f = 1): few common users prove little, and what was liked last says most.
"""

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.baselines.interactions import Interactions
from penchant.evaluation.protocol import Event

__all__ = ["ItemCosine"]


DAMPING = 5.0  # b: ones that a column is said to have besides its own
FADE = 0.95  # f: an item's weight against that of the item liked after it


class ItemCosine:
    """Never out of date: a score is two passes over the interactions, and no table of pairs is kept.

    Args:
        users: how many there are.
        items: likewise.
    """

    names = ("item-item cosine",)

    def __init__(self, users: int, items: int) -> None:
        self._seen = Interactions(users, items)
        self._counts = np.zeros(items)

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """The sums of similarities."""
        users, items = self._seen.shape
        scale = 1 / np.sqrt(self._counts + DAMPING)
        liked = self._seen.liked[event.user]
        weights = np.zeros(items)
        weights[liked] = FADE ** np.arange(len(liked))[::-1] * scale[liked]
        likeness = np.bincount(self._seen.users, weights[self._seen.items], minlength=users)
        sums = np.bincount(self._seen.items, likeness[self._seen.users], minlength=items) * scale
        return sums[None, unseen].astype(np.float32)

    def learn(self, event: Event) -> None:
        """Adds a positive event to the matrix."""
        if self._seen.add(event):
            self._counts[event.item] += 1
