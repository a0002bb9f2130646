"""Centring and soft whitening: what all items have in common tells nobody's interests apart.

Encoders put everything into a narrow cone: two unrelated films are more alike than not, and a few directions carry
most of the variance (Mu and Viswanath, "All-but-the-Top", ICLR 2018; Su et al., "Whitening Sentence Representations",
2021). Taking off the catalogue's mean opens the cone; dividing principal components by the root of their standard
deviation lets the quiet ones be heard without making noise as loud as they are, as dividing by the whole would.

It is calibrated on a catalogue, once, and then frozen: vectors are comparable only under one calibration. Stored
content stays as the encoders made it, so a new calibration touches no item.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.fusion import GRAPH, Space

__all__ = ["Calibration", "Whitening", "calibrate", "whitening_of"]

Vectors = NDArray[np.float32]

POWER = 0.5  # of the standard deviations that components are divided by: 0 centres, 1 whitens
LEAST_ITEMS = 2  # for each component of a slice: fewer say little about the catalogue that is to come
QUIETEST = 1e-3  # of the loudest component's standard deviation: below, there is rounding


class Whitening(Struct, frozen=True, eq=False):
    """A slice's affine map: `(x - mean) @ map`, then unit length.

    Attributes:
        mean: shape (d,).
        map: shape (d, k), k the components that have any variance.
    """

    mean: Vectors
    map: Vectors

    def apply(self, vectors: Vectors) -> Vectors:
        """Whitened unit rows, shape (n, k), of `vectors` of shape (n, d); absent ones, all zero, stay so."""
        moved = (vectors - self.mean) @ self.map
        lengths = np.linalg.norm(moved, axis=1, keepdims=True)
        present = vectors.any(axis=1, keepdims=True) & (lengths > 0)
        return np.where(present, moved / np.where(lengths > 0, lengths, 1), 0).astype(np.float32)


class Calibration(Struct, frozen=True, eq=False):
    """The whitening of each slice that had enough items; the others stay as they are."""

    slices: Mapping[str, Whitening] = {}

    @property
    def fingerprint(self) -> str:
        """Tells calibrations apart."""
        digest = hashlib.blake2b(digest_size=8)
        for name in sorted(self.slices):
            digest.update(name.encode() + b"\0" + self.slices[name].mean.tobytes() + self.slices[name].map.tobytes())
        return digest.hexdigest()

    def split(self, space: Space, content: Vectors) -> dict[str, Vectors]:
        """Content vectors taken apart into unit vectors by slice, as ranking compares them.

        Args:
            space: of the vectors.
            content: shape (n, d of the space).

        Returns:
            By slice, shape (n, k of the slice); all zero where an item lacks it.
        """
        found = {}
        for name, bounds in space.bounds().items():
            part = content[:, bounds]
            lengths = np.linalg.norm(part, axis=1, keepdims=True)
            unit = np.divide(part, lengths, out=np.zeros_like(part), where=lengths > 0)
            found[name] = self.apply(name, unit)
        return found

    def loudest(self, name: str, dimension: int) -> NDArray[np.int64]:
        """A slice's components as `split` gives them, the loudest first: shape (dimension,).

        What a component was divided by is the length of its column, a power of its deviation. A slice that is not
        whitened is taken to have its components in order, as the graph's has.
        """
        if name not in self.slices:
            return np.arange(dimension)
        return np.argsort(np.linalg.norm(self.slices[name].map, axis=0), kind="stable")

    def apply(self, name: str, vectors: Vectors) -> Vectors:
        """A slice's unit vectors as ranking compares them, shape (n, k) from (n, d)."""
        return self.slices[name].apply(vectors) if name in self.slices else vectors


def calibrate(slices: Mapping[str, Vectors]) -> Calibration:
    """The calibration of a catalogue. The graph's vectors stay: they were made to tell these very items apart.

    Args:
        slices: by name, the unit vectors of all items, shape (n, d); all zero where an item lacks the slice.
    """
    found = {}
    for name, vectors in slices.items():
        present = vectors[vectors.any(axis=1)]
        if name != GRAPH and len(present) >= LEAST_ITEMS * vectors.shape[1]:
            found[name] = whitening_of(present)
    return Calibration(found)


def whitening_of(vectors: Vectors, *, power: float = POWER) -> Whitening:
    """The whitening of a catalogue's vectors, shape (n, d): principal components divided by sd^power.

    A component's sign is chosen so that its values lean to the positive, since nothing else fixes it.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    variances, components = np.linalg.eigh(centred.T @ centred / len(vectors))
    components *= np.where(((centred @ components) ** 3).sum(axis=0) < 0, -1, 1)
    deviations = np.sqrt(np.maximum(variances, 0))
    audible = deviations > QUIETEST * deviations.max(initial=0)
    return Whitening(
        mean=mean.astype(np.float32),
        map=(components[:, audible] / deviations[audible] ** power).astype(np.float32),
    )
