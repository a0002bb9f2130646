"""Points, filters and queries in the terms of Qdrant's engine, and back."""

from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from penchant.profile.store.base import Point, Query, Scored, SearchFilter, SparseVector
from penchant.profile.store.layout import excluded_ids

__all__ = ["PointId", "to_edge", "to_filter", "to_named", "to_point", "to_scored", "to_uuid"]

PointId = int | UUID | str  # as the engine may return it


def matches(field: str, value: Any) -> edge.FieldCondition:
    """Passes points whose field has the value."""
    # The engine takes Python's truth values for the whole numbers 0 and 1, and numpy's for what they are.
    exact: Any = np.bool_(value) if isinstance(value, bool) else value
    return edge.FieldCondition(field, match=edge.MatchValue(exact))


def to_filter(where: SearchFilter) -> edge.Filter:
    """`where` in the engine's terms."""
    return edge.Filter(
        must=[matches(*pair) for pair in where.equal.items()],
        must_not=[edge.HasIdCondition(set(excluded_ids(where))), *(matches(*pair) for pair in where.unequal.items())],
    )


def to_edge(point: Point) -> edge.Point:
    """`point` in the engine's terms."""
    vectors: dict[str, Query] = {**point.vectors, **point.sparse}
    return edge.Point(point.id, {name: to_named(vector) for name, vector in vectors.items()}, point.payload)


def to_named(vector: Query) -> Any:
    """A vector in the engine's terms. It reads any sequence of numbers, which its annotations do not say.

    Of a buffer it takes the numbers as they are; of an array each were an object of its own first, at thrice the cost.
    """
    if isinstance(vector, SparseVector):
        return edge.SparseVector(vector.indices.tolist(), vector.values.tolist())
    return vector.data


def to_point(record: edge.Record) -> Point:
    """A point that the engine returned."""
    named = record.vector if isinstance(record.vector, dict) else {}
    sparse = {name: vector for name, vector in named.items() if isinstance(vector, edge.SparseVector)}
    dense = {name: vector for name, vector in named.items() if name not in sparse}
    return Point(
        id=to_uuid(record.id),
        payload=record.payload or {},
        vectors={name: np.asarray(vector, np.float32) for name, vector in dense.items()},
        sparse={
            name: SparseVector(np.asarray(vector.indices, np.uint32), np.asarray(vector.values, np.float32))
            for name, vector in sparse.items()
        },
    )


def to_scored(hit: edge.ScoredPoint) -> Scored:
    """A point that a search found."""
    return Scored(id=to_uuid(hit.id), score=hit.score, payload=hit.payload or {})


def to_uuid(point: PointId) -> UUID:
    """An id that the engine returned."""
    return point if isinstance(point, UUID) else UUID(str(point))
