"""One space for all modalities: an item's content is one vector of slices.

Slice m of an item is the unit vector of modality m scaled by sqrt(a_m), where the shares `a` are renormalised
over the modalities that the item has. So items have unit length, a dot product of two items is the share-weighted
mean of their cosines by modality, and a score splits exactly by slice.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["Slice", "Space", "space_of"]

Vector = NDArray[np.float32]


class Slice(Struct, frozen=True):
    """One modality's place in the space.

    Attributes:
        dimension: components.
        share: how much the modality counts beside the others.
        fingerprint: of the encoder that fills the slice.
    """

    name: str
    dimension: int
    share: float
    fingerprint: str


class Space(Struct, frozen=True, dict=True):
    """The space that items and interests live in: slices side by side."""

    slices: tuple[Slice, ...]

    @property
    def dimension(self) -> int:
        """Components of a content vector."""
        return sum(part.dimension for part in self.slices)

    @property
    def fingerprint(self) -> str:
        """Tells spaces apart whose vectors must not be mixed."""
        return ";".join(f"{part.name}={part.fingerprint}:{part.dimension}*{part.share:g}" for part in self.slices)

    def bounds(self) -> dict[str, slice]:
        """Where each slice lies in a content vector."""
        bounds: dict[str, slice] = {}
        start = 0
        for part in self.slices:
            bounds[part.name] = slice(start, start + part.dimension)
            start += part.dimension
        return bounds

    def fuse(self, vectors: Mapping[str, Vector]) -> Vector | None:
        """The content vector of an item from its modalities' unit vectors; None where it has none.

        Args:
            vectors: by slice name, shape (dimension of the slice,); all-zero ones count as absent.

        Returns:
            Shape (dimension,), unit length.
        """
        present = {name for name, vector in vectors.items() if vector.any()}
        total = sum(part.share for part in self.slices if part.name in present)
        if not total:
            return None
        content = np.zeros(self.dimension, np.float32)
        for part, bounds in zip(self.slices, self.bounds().values(), strict=True):
            if part.name in present:
                content[bounds] = vectors[part.name] * np.sqrt(part.share / total)
        return content

    def parts(self, query: Vector, items: NDArray[np.float32]) -> NDArray[np.float32]:
        """Dot products of a query with items, by slice.

        Args:
            query: shape (dimension,).
            items: shape (n, dimension).

        Returns:
            Shape (n, slices); rows sum to the dot products.
        """
        return np.stack([items[:, bounds] @ query[bounds] for bounds in self.bounds().values()], axis=1)

    def norms(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lengths of each slice: shape (n, slices) for `vectors` of shape (n, dimension)."""
        return np.stack([np.linalg.norm(vectors[:, bounds], axis=1) for bounds in self.bounds().values()], axis=1)


def space_of(dimensions: Mapping[str, int], fingerprints: Mapping[str, str], shares: Mapping[str, float]) -> Space:
    """The space of a set of encoders: one slice a modality, in the encoders' order."""
    names: Sequence[str] = list(dimensions)
    return Space(tuple(Slice(name, dimensions[name], shares[name], fingerprints[name]) for name in names))
