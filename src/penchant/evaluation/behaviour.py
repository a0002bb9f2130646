"""What the affinity collection holds, in memory: rows by item, and beside them who follows whom."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penchant.profile.affinity import (
    POPULARITY_HALF_LIVES_MS,
    ROW_HALF_LIFE_MS,
    Row,
    Transition,
    Weighted,
    growth,
    item_key,
    row_measure,
)

__all__ = ["Behaviour"]

Floats = NDArray[np.float64]


class Behaviour:
    """The rows of a catalogue, and an index of them by the items that came before.

    Args:
        items: names by code; m of them.
    """

    def __init__(self, items: Sequence[str]) -> None:
        self._items = items
        self._codes = {item: code for code, item in enumerate(items)}
        self._by_key = {item_key(item): code for code, item in enumerate(items)}
        self._rows = [Row(item_id=item) for item in items]
        self._followers: list[dict[int, float]] = [{} for _ in items]
        self._masses = np.zeros(len(items))
        self._popularity = np.zeros((len(POPULARITY_HALF_LIVES_MS) + 1, len(items)))

    def learn(self, transition: Transition) -> None:
        """Adds a transition to its item's row."""
        code = self._codes[transition.item_id]
        before, row = self._rows[code], self._rows[code].adding([transition])
        kept = row.keys.tolist()
        for key in set(before.keys.tolist()).difference(kept):
            del self._followers[self._by_key[key]][code]
        for key, share in zip(kept, row.sums.tolist(), strict=True):
            self._followers[self._by_key[key]][code] = share
        self._rows[code] = row
        self._masses[code] = row.mass
        self._popularity[:, code] = *row.popularity, row.count

    def transitions(self, recent: Sequence[Weighted], now_ms: int) -> Floats:
        """`penchant.profile.affinity.transition_scores` of all items for one user: shape (m,)."""
        codes, shares = [], []
        measure = row_measure(self._masses, now_ms)
        for item, weight in recent:
            code = self._codes[item]
            followers = self._followers[code]
            codes.append(np.fromiter(followers.keys(), np.int64, len(followers)))
            shares.append(np.fromiter(followers.values(), np.float64, len(followers)) * (weight / measure[code]))
        if not codes:
            return np.zeros(len(self._items))
        sums = np.bincount(np.concatenate(codes), np.concatenate(shares), len(self._items))
        decayed: Floats = sums / (growth(now_ms, ROW_HALF_LIFE_MS) * measure)
        return decayed

    @property
    def counts(self) -> Floats:
        """How often each item was liked: shape (m,)."""
        counts: Floats = self._popularity[-1]
        return counts

    def popularity(self, now_ms: int) -> Floats:
        """`Row.popularity_at` of all items: shape (3, m)."""
        weights = [growth(now_ms, half_life_ms) for half_life_ms in POPULARITY_HALF_LIVES_MS]
        decayed: Floats = self._popularity / np.array([*weights, 1.0])[:, None]
        return decayed
