"""Items' content as ranking compares it, kept beside the vectors that it is made of."""

import numpy as np
from numpy.typing import NDArray

from penchant.profile.fusion import Space
from penchant.profile.ranking.whitening import Calibration

__all__ = ["Compared"]

Vectors = NDArray[np.float32]


class Compared:
    """Whitened slices of the rows of an array to which rows are only ever added: each row is whitened once.

    A slice that no item has yet is of no width: nothing is computed with it.

    Args:
        space: of the vectors.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._calibration = Calibration()
        self._array: object = None
        self._slices: dict[str, Vectors] = {}
        self._done = 0

    def of(self, calibration: Calibration, vectors: Vectors) -> dict[str, Vectors]:
        """By slice, the unit vectors of all rows: shape (m, k of the slice); zeros where an item lacks it.

        Args:
            calibration: in force.
            vectors: the first m rows of an array, shape (m, d of the space). Those given before may not have changed.
        """
        if vectors.base is not self._array or calibration is not self._calibration:
            self._array, self._calibration, self._slices, self._done = vectors.base, calibration, {}, 0
        if self._done < len(vectors):
            for name, made in calibration.split(self._space, vectors[self._done :]).items():
                self._slices[name] = self._extended(name, made, len(vectors))
            self._done = len(vectors)
        return {name: kept[: len(vectors)] for name, kept in self._slices.items()}

    def _extended(self, name: str, made: Vectors, count: int) -> Vectors:
        """A slice with further rows behind those done; doubled in length where it is full."""
        kept = self._slices.get(name, np.zeros((0, 0), np.float32))
        width = made.shape[1] if kept.shape[1] or made.any() else 0
        if kept.shape[1] != width or len(kept) < count:
            longer = np.zeros((max(count, 2 * len(kept)), width), np.float32)
            longer[: self._done, : kept.shape[1]] = kept[: self._done]
            kept = longer
        if width:
            kept[self._done : count] = made
        return kept
