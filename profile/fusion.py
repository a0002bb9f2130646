"""One space for all modalities: an item's content is one vector of slices.

Slice m of an item is the unit vector of modality m scaled by sqrt(a_m), where the shares `a` are renormalised
over the modalities that the item has. So items have unit length, a dot product of two items is the share-weighted
mean of their cosines by modality, and a score splits exactly by slice.

What a knowledge graph knows of an item is a slice *apart*: its share stands against that of all other slices together,
so that a film with nothing but a title leans on the graph no more than one with pictures and sound.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["GRAPH", "Slice", "Space", "space_of"]

GRAPH = "graph"
# Which model fills the graph's slice may change while a worker runs: that is kept with the items, not with the space.
PUBLISHED = "published"

Vector = NDArray[np.float32]


class Slice(Struct, frozen=True):
    """One modality's place in the space.

    Attributes:
        dimension: components.
        share: how much the modality counts beside the others.
        fingerprint: of the encoder that fills the slice.
        apart: the share is the slice's part of the whole, and the others share the rest.
    """

    name: str
    dimension: int
    share: float
    fingerprint: str
    apart: bool = False


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
        return ";".join(
            f"{part.name}={part.fingerprint}:{part.dimension}{'/' if part.apart else '*'}{part.share:g}"
            for part in self.slices
        )

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
        shares = self.shares({name for name, vector in vectors.items() if vector.any()})
        if not shares:
            return None
        content = np.zeros(self.dimension, np.float32)
        for name, bounds in self.bounds().items():
            if name in shares:
                content[bounds] = vectors[name] * np.sqrt(shares[name])
        return content

    def shares(self, present: AbstractSet[str]) -> dict[str, float]:
        """The shares of an item that has the slices named; they sum to 1, or there are none."""
        parts = [part for part in self.slices if part.name in present and part.share]
        apart = sum(part.share for part in parts if part.apart)
        beside = sum(part.share for part in parts if not part.apart)
        if not (apart and beside):
            return {part.name: part.share / (apart + beside) for part in parts}
        return {part.name: part.share if part.apart else part.share * (1 - apart) / beside for part in parts}

    def split(self, content: Vector) -> dict[str, Vector]:
        """The unit vectors that a content vector was fused from, by slice; absent slices are left out.

        Args:
            content: shape (dimension,).
        """
        found: dict[str, Vector] = {}
        for name, bounds in self.bounds().items():
            length = np.linalg.norm(content[bounds])
            if length:
                found[name] = (content[bounds] / length).astype(np.float32)
        return found

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


def space_of(
    dimensions: Mapping[str, int],
    fingerprints: Mapping[str, str],
    shares: Mapping[str, float],
    *,
    graph_dimension: int = 0,
) -> Space:
    """The space of a set of encoders: one slice a modality, in the encoders' order, and the graph's where it has one.

    Args:
        dimensions: of the encoders' outputs, by modality.
        fingerprints: of the encoders.
        shares: of the slices; those of no encoder here are left alone.
        graph_dimension: of the graph's slice; 0: there is none.
    """
    slices = [Slice(name, dimensions[name], shares[name], fingerprints[name]) for name in dimensions]
    if graph_dimension:
        slices.append(Slice(GRAPH, graph_dimension, shares[GRAPH], PUBLISHED, apart=True))
    return Space(tuple(slices))
