"""What a collection remembers about its making, and the checks that both stores share.

Each collection holds one point that is no data: under a fixed id, with no vectors, it keeps the fingerprint and
the dimensions that the collection was created with. Every search, scroll and count leaves it out by its id.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

import numpy as np

from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    LayoutMismatch,
    Point,
    SearchFilter,
    Write,
    new_token,
)

__all__ = [
    "META_ID",
    "SPARSE",
    "check_layout",
    "check_points",
    "check_writes",
    "excluded_ids",
    "fields",
    "meta_point",
    "slices",
]

META_ID = UUID("6e1f0c3a-2d57-4b0e-9c41-70656e636861")
FINGERPRINT = "fingerprint"
SPARSE = "sparse"

T = TypeVar("T")
Fields = Sequence[str] | bool


def meta_point(layout: CollectionLayout) -> Point:
    """The point that remembers `layout`."""
    payload = {
        FINGERPRINT: layout.fingerprint,
        "vectors": dict(layout.vectors),
        SPARSE: sorted(layout.sparse),
        TOKEN: new_token(),
    }
    return Point(id=META_ID, payload=payload)


def check_layout(
    layout: CollectionLayout,
    *,
    held: Mapping[str, object] | None,
    dimensions: Mapping[str, int],
    sparse: Iterable[str],
) -> None:
    """Compares the layout that is wanted with the one that a collection has.

    Args:
        layout: what is wanted.
        held: the payload of the collection's meta point; None where there is none.
        dimensions: of the collection's vectors, by name.
        sparse: names of its sparse vectors.

    Raises:
        LayoutMismatch: they differ; the message names every difference.
    """
    differences = []
    if held is None:
        differences.append(f"fingerprint {layout.fingerprint} expected, none stored")
    elif held[FINGERPRINT] != layout.fingerprint:
        differences.append(f"fingerprint {layout.fingerprint} expected, {held[FINGERPRINT]} stored")
    for name in sorted(layout.vectors.keys() | dimensions.keys()):
        wanted, had = layout.vectors.get(name), dimensions.get(name)
        if wanted != had:
            differences.append(f"vector {name}: dimension {wanted or 'none'} expected, {had or 'none'} stored")
    if set(sparse) != set(layout.sparse):
        expected, stored = (", ".join(sorted(names)) or "none" for names in (layout.sparse, sparse))
        differences.append(f"sparse vectors {expected} expected, {stored} stored")
    if differences:
        raise LayoutMismatch(
            f"The collection {layout.name} was made otherwise than this worker would make it: {'; '.join(differences)}",
            hint="Start with the encoders and settings that filled it. To change encoders or their shares, `penchant "
            "reindex --from` the settings of this store makes one for the new ones beside it, in another `data_dir` or "
            "`store.generation`. Another `namespace` or `data_dir` starts empty and fills from Kafka.",
        )


def check_points(layout: CollectionLayout, points: Iterable[Point]) -> None:
    """Refuses vectors that the collection cannot hold, before an engine refuses a whole batch for one of them.

    Raises:
        ValueError: a vector has a name or a shape that the layout does not know.
    """
    for point in points:
        for name, vector in point.vectors.items():
            if name not in layout.vectors:
                raise ValueError(f"The collection {layout.name} has no vector {name}")
            if vector.shape != (layout.vectors[name],):
                raise ValueError(
                    f"The vector {name} of {layout.name} has the shape ({layout.vectors[name]},), not {vector.shape}"
                )
        for name, sparse in point.sparse.items():
            if name not in layout.sparse:
                raise ValueError(f"The collection {layout.name} has no sparse vector {name}")
            if sparse.indices.shape != sparse.values.shape or len(np.unique(sparse.indices)) < len(sparse.indices):
                raise ValueError(f"The sparse vector {name} of {layout.name} needs one value an index, each index once")


def check_writes(layout: CollectionLayout, writes: Sequence[Write]) -> None:
    """Refuses a batch whose outcome could not be told by reading tokens back.

    Raises:
        ValueError: an id appears twice, a token is missing or not fresh, or a vector does not fit the layout.
    """
    if len({write.point.id for write in writes}) < len(writes):
        raise ValueError(f"A batch for {layout.name} names a point twice: the later write would hide the earlier")
    if any(write.point.token is None or write.point.token == write.expected for write in writes):
        raise ValueError(f"A point for {layout.name} carries no fresh token: set payload[TOKEN] = new_token()")
    check_points(layout, (write.point for write in writes))


def excluded_ids(where: SearchFilter) -> set[UUID]:
    """The ids that `where` leaves out, the meta point's among them."""
    return {META_ID, *where.without}


def fields(payload: Fields) -> list[str] | bool:
    """The payload fields to return: those named, all or none."""
    return payload if isinstance(payload, bool) else list(payload)


def slices(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """`items` in runs of at most `size`."""
    return [items[start : start + size] for start in range(0, len(items), size)]
