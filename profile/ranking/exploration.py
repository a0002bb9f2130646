"""Exploration: which new items are tried, so that it is found out whether anybody likes them.

Ranking alone never learns of an item that it does not list. So a few places of each list go to new items, and which of
them is drawn by Thompson sampling: of each, the chance to be liked when listed is drawn from what is known of it, and
the largest wins. What little is known of leaves room for large draws, what was listed often without being liked does
not (Chapelle and Li, "An Empirical Evaluation of Thompson Sampling", NIPS 2011).

What is known of an item's chance is the Beta(a + likes, b + times listed - likes) distribution. Its prior has the mean
of all that was listed and weighs one like, a = 1: in so many listings as bring one like on average an item has shown
what it is.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np
from msgspec import Struct

from penchant.profile.cache import Bounded

__all__ = ["Arms"]

PRIOR_LIKES = 1.0
# Until lists have shown what is usual: one like in so many listings.
USUAL_LIKES, USUAL_LISTINGS = 1.0, 50.0


class Arm(Struct):
    """How often an item was listed, and how often it was liked when it was."""

    listings: int = 0
    likes: int = 0


class Arms:
    """What this worker has seen come of listing items.

    Args:
        capacity: items remembered; those neither listed nor liked for the longest time are forgotten.
    """

    def __init__(self, capacity: int) -> None:
        self._arms: Bounded[str, Arm] = Bounded(capacity)
        self._listings = USUAL_LISTINGS
        self._likes = USUAL_LIKES

    def listed(self, item_ids: Iterable[str]) -> None:
        """Notes that items were listed; one that stays on a user's list is listed once."""
        for item_id in item_ids:
            arm = self._arms.get(item_id)
            if arm is None:
                self._arms.put(item_id, arm := Arm())
            arm.listings += 1
            self._listings += 1

    def liked(self, item_ids: Iterable[str]) -> None:
        """Notes that somebody liked items while they were on their list; who was not seen listed is left out."""
        for item_id in item_ids:
            arm = self._arms.get(item_id)
            if arm is not None and arm.likes < arm.listings:
                arm.likes += 1
                self._likes += 1

    def listings(self, item_id: str) -> int:
        """How often an item was listed, as far as is remembered."""
        arm = self._arms.peek(item_id)
        return 0 if arm is None else arm.listings

    def drawn(self, item_ids: Iterable[str], *, seed: str) -> Iterator[str]:
        """Items in the order of their draws, the largest first.

        Args:
            item_ids: in any order, which changes nothing.
            seed: the same one gives the same draws while nothing else has become known.
        """
        names = sorted(item_ids)
        if not names:
            return
        likes, listings = np.zeros(len(names)), np.zeros(len(names))
        for place, item_id in enumerate(names):
            if (arm := self._arms.peek(item_id)) is not None:
                likes[place], listings[place] = arm.likes, arm.listings
        misses = PRIOR_LIKES * (self._listings / self._likes - 1)
        digest = blake2b(seed.encode(), digest_size=8, person=b"exploration").digest()
        generator = np.random.default_rng(int.from_bytes(digest, "little"))
        draws = generator.beta(PRIOR_LIKES + likes, misses + listings - likes)
        for place in np.argsort(-draws, kind="stable").tolist():
            yield names[place]
