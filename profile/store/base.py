"""What penchant asks of a store of points, and the values that pass between them.

A *point* is an id, a payload and named vectors; a *collection* holds points of one layout. The interface is
Qdrant's model reduced to what penchant needs, asynchronous, and the same for the embedded engine and a server;
`tests/profile/store/` holds the one suite of cases that both pass.

**Compare and set.** Every written point carries a *write token*, a random 63-bit number under `TOKEN` in its
payload. `write` replaces a point only where the stored token is the one that the writer read (or the point is
absent where the writer found none), and reports by reading back which of its points stand. A counter would not
do: two writers who both go from r to r + 1 both read r + 1 back and both believe that they won.

A write that is reported as standing was applied. One that is not may have been applied all the same, and replaced
before it was read back; its author reads the point again and finds its part in it, or merges it again.
"""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import ConfigurationError, Unavailable

__all__ = [
    "TOKEN",
    "CollectionLayout",
    "LayoutMismatch",
    "NoCollection",
    "Point",
    "Query",
    "Scored",
    "SearchFilter",
    "SparseVector",
    "Store",
    "StoreUnavailable",
    "Write",
    "new_token",
]

TOKEN = "token"  # noqa: S105  a payload key, no secret

Vector = NDArray[np.float32]


class StoreUnavailable(Unavailable):
    """The store did not answer, or refused for now. What was asked may or may not have been done."""


class LayoutMismatch(ConfigurationError):
    """A collection exists with another fingerprint, dimension or key: its vectors must not be mixed with ours."""


class NoCollection(ConfigurationError):
    """A collection is missing where nothing is to be created."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(
            f"There is no collection {name} in {where}",
            hint="A worker creates it at its first start. See that `namespace`, `data_dir` and `store.url` are those "
            "of the worker.",
        )


class CollectionLayout(Struct, frozen=True, kw_only=True):
    """What a collection holds.

    Attributes:
        name: with its namespace.
        vectors: dimension by name; all are compared by dot product.
        sparse: names of sparse vectors, compared likewise.
        indexes: payload fields that filters use, by name: "keyword", "integer" or "bool".
        fingerprint: stands for whatever made the vectors; compared on opening, never computed with.
    """

    name: str
    vectors: Mapping[str, int]
    sparse: Sequence[str] = ()
    indexes: Mapping[str, str]
    fingerprint: str


class SparseVector(Struct, frozen=True, eq=False):
    """A vector of which only some components are not zero.

    Attributes:
        indices: which, distinct; uint32, shape (m,).
        values: their values; float32, shape (m,).
    """

    indices: NDArray[np.uint32]
    values: Vector


Query = Vector | SparseVector


class Point(Struct, frozen=True, kw_only=True):
    """A stored point. `vectors` holds float32 arrays of shape (dimension,); absent names have no vector."""

    id: UUID
    payload: dict[str, Any]
    vectors: dict[str, Vector] = {}
    sparse: dict[str, SparseVector] = {}

    @property
    def token(self) -> int | None:
        """The write token that the point was stored with."""
        token = self.payload.get(TOKEN)
        return token if isinstance(token, int) else None


class Write(Struct, frozen=True, kw_only=True):
    """A point to store, on condition that the stored one still has the token `expected` (None: is absent)."""

    point: Point
    expected: int | None


class SearchFilter(Struct, frozen=True, kw_only=True):
    """Which points a search may return.

    Attributes:
        equal: payload fields and the values that they must have.
        unequal: payload fields and the values that they must not have; a point without the field passes.
        without: ids that must not be returned.
    """

    equal: Mapping[str, str | int | bool] = {}
    unequal: Mapping[str, str | int | bool] = {}
    without: Sequence[UUID] = ()


class Scored(Struct, frozen=True, kw_only=True):
    """A point found by a search, with its dot product with the query."""

    id: UUID
    score: float
    payload: dict[str, Any]


class Store(Protocol):
    """A store of points. Methods raise `StoreUnavailable` where waiting may help."""

    @property
    def shared(self) -> bool:
        """Whether other processes may have it open at the same time."""

    async def open(self, layouts: Sequence[CollectionLayout], *, create: bool = True) -> None:
        """Opens the collections, creating what is missing with its payload indexes.

        Args:
            layouts: what the collections must hold.
            create: false: to look and not to touch; a collection that is missing is an error.

        Raises:
            NoCollection: a collection is missing and is not to be created.
            LayoutMismatch: a collection exists with another fingerprint or other dimensions.
        """

    async def close(self) -> None:
        """Flushes what is pending and releases the store."""

    async def flush(self) -> None:
        """Makes what was acknowledged durable against a power cut (a crash loses nothing even without)."""

    async def snapshot(self, folder: Path) -> Path:
        """Copies the whole store as it is at one moment between two writes, for restoring and for looking at.

        Args:
            folder: of the copy; must not exist. Nothing appears under its name before the copy is whole.

        Returns:
            The folder that was copied.

        Raises:
            ConfigurationError: the folder exists or cannot be written, or the store is not one of files here.
        """

    async def retrieve(
        self,
        collection: str,
        ids: Sequence[UUID],
        *,
        vectors: Sequence[str] = (),
        payload: Sequence[str] | bool = True,
    ) -> dict[UUID, Point]:
        """The points that exist among `ids`, with the payload fields and vectors (dense or sparse) named."""

    async def write(self, collection: str, writes: Sequence[Write]) -> set[UUID]:
        """Compares and sets many points at once; gives the ids of those whose write stands.

        A point's payload must carry a fresh token from `new_token` under `TOKEN`. No id may appear twice.
        """

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        """Writes points unconditionally, behind all writes acknowledged before: for positions."""

    async def search(
        self,
        collection: str,
        vector: str,
        queries: Sequence[tuple[Query, SearchFilter]],
        *,
        limit: int,
        payload: Sequence[str] | bool = True,
    ) -> list[list[Scored]]:
        """For each query the `limit` points of largest dot product, best first.

        By a sparse vector only those points are found that have a component in common with the query.
        """

    def scroll(
        self,
        collection: str,
        where: SearchFilter,
        *,
        vectors: Sequence[str] = (),
        payload: Sequence[str] | bool = True,
        page: int = 256,
    ) -> AsyncIterator[Point]:
        """All points that pass `where`, in no particular order."""

    async def largest(
        self,
        collection: str,
        field: str,
        where: SearchFilter,
        *,
        limit: int,
        payload: Sequence[str] | bool = True,
    ) -> list[Point]:
        """The `limit` points that have the largest values of a field, largest first, without their vectors.

        The collection's index of the field answers: what is not returned is not read. Points without the field are
        left out, and equal values come in no particular order.

        Args:
            collection: to look in.
            field: of the payload, with an index of whole numbers.
            where: which points may be returned.
            limit: how many.
            payload: the fields to return.
        """

    async def count(self, collection: str, where: SearchFilter) -> int:
        """How many points pass `where`."""


def new_token() -> int:
    """A random 63-bit write token."""
    return secrets.randbits(63)
