"""Profiles by fused content alone: each way of fusing, and the articles' presets, with a line of their own.

The modes are those that a worker can rank by; here each ranks a whole catalogue, which is fused once. They are what
penchant's ranking is measured against in its own terms: no popularity, no behaviour of others, one memory.
"""

from collections import deque
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penchant.evaluation.protocol import Event
from penchant.profile.modes import REMEMBERED
from penchant.profile.ranking.fused import MODES, Liked, mode_of
from penchant.profile.ranking.whitening import Calibration

__all__ = ["Fusions", "line_of"]

Vectors = NDArray[np.float32]

PRESETS: Mapping[str, str] = {
    "F": "preset F",
    "U": "preset U",
    "R": "preset R",
    "UR-concat": "preset U and R concatenated",
    "UR-average": "preset U and R averaged",
    "M": "preset M",
}


def line_of(mode: str) -> str:
    """The name of a mode's configuration."""
    return PRESETS.get(mode, f"fusion {mode}")


class Fusions:
    """One configuration for each mode.

    Args:
        users: how many there are.
        slices: by name, the items' unit vectors as encoders and graph give them, shape (m, d); zeros where one is not.
        calibration: of the slices.
        shares: of the slices, as the settings have them.
    """

    def __init__(
        self, users: int, slices: Mapping[str, Vectors], calibration: Calibration, shares: Mapping[str, float]
    ) -> None:
        self.names = tuple(line_of(mode) for mode in MODES)
        modes = [mode_of(mode, calibration, shares) for mode in MODES]
        self._fused = [(mode, mode.fused(slices)) for mode in modes]
        self._content = np.any([vectors.any(axis=1) for vectors in slices.values()], axis=0)
        self._liked: list[deque[tuple[int, int]]] = [deque(maxlen=REMEMBERED) for _ in range(users)]

    def scores(self, event: Event, unseen: NDArray[np.int64]) -> Vectors:
        """As a worker scores its candidates."""
        rows, times = np.array(self._liked[event.user], np.int64).reshape(-1, 2).T
        liked = Liked(rows=rows, ages_ms=event.time - times)
        return np.stack([mode.scores(liked, fused, fused)[unseen] for mode, fused in self._fused])

    def learn(self, event: Event) -> None:
        """Remembers what was liked, if it has any content."""
        if event.positive and self._content[event.item]:
            self._liked[event.user].appendleft((event.item, event.time))
