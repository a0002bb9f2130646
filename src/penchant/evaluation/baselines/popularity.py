"""Popularity: how often an item was liked, with the past fading by half-lives."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event

__all__ = ["Popularity"]

DAY_MS = 86_400_000
RESCALE_AT = 64.0  # half-lives behind which the sums are scaled down, well within a float's range


class Popularity:
    """Decayed counts, a configuration a half-life.

    The sums are kept forward-decayed: a newcomer weighs 2^((t - t0)/H), and nothing else changes until the landmark t0
    moves. Cormode et al., "Forward Decay" (ICDE 2009).

    Args:
        items: how many there are.
        half_lives: in days by name; infinite counts all time.
    """

    def __init__(self, items: int, half_lives: Mapping[str, float]) -> None:
        self.names = tuple(half_lives)
        self._half_lives_ms = np.array(list(half_lives.values())) * DAY_MS
        self._landmark: int | None = None
        self._sums = np.zeros((len(half_lives), items))

    def scores(self, _: Event, unseen: NDArray[np.int64]) -> NDArray[np.float32]:
        """The sums: at one moment their common factor orders nothing."""
        return self._sums[:, unseen].astype(np.float32)

    def learn(self, event: Event) -> None:
        """Counts a positive event."""
        if not event.positive:
            return
        if self._landmark is None:
            self._landmark = event.time
        ages = (event.time - self._landmark) / self._half_lives_ms
        if ages.max() > RESCALE_AT:
            self._sums *= np.exp2(-ages)[:, None]
            self._landmark, ages = event.time, np.zeros(len(ages))
        self._sums[:, event.item] += np.exp2(ages)
