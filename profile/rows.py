"""The collection of rows: each item's transitions and popularity, and the searches that they answer.

A row is kept whole, packed, in the payload; what is searched by are views of it. Rows are compared and set, one write
each; since a row knows what it has taken in, a batch may be applied again after any crash.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
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
from penchant.profile.cache import Bounded, Remembered
from penchant.profile.identity import item_point
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    Point,
    SearchFilter,
    SparseVector,
    Store,
    StoreUnavailable,
    Vector,
    Write,
    new_token,
)

__all__ = ["AS_OF", "COUNT", "FIGURES", "LOW", "MASS", "REMEMBERED", "Rows", "engine_keys"]

ITEM, ROW = "item_id", "row"
FIGURES_VECTOR, AFTER = "figures", "after"
# What a row's figures are, behind its popularity by horizon; all are logarithms to the base two.
COUNT, MASS, AS_OF = range(len(POPULARITY_HALF_LIVES_MS), len(POPULARITY_HALF_LIVES_MS) + 3)
FIGURES = AS_OF + 1
CHUNK = 64  # rows per write
REMEMBERED = 50_000  # rows of which each view is remembered: of as many items as are searched in memory by default
AT_HAND = 4_096  # rows kept whole, to be added to: some 20 MB
MANY = 64  # transitions of one item: to add more of them keeps others waiting, and a thread does it
LOW = 2**16 - 1  # the low bits of an engine's key
OTHERS_S = 5.0  # how long a row may be used that another process has changed
MAX_ATTEMPTS = 20
LARGEST = np.finfo(np.float32).max

Floats = NDArray[np.float64]


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """A row as it is stored; keys and sums as bytes, little-endian."""

    count: int
    popularity: tuple[float, ...]
    mass: float
    as_of: int
    keys: bytes
    sums: bytes
    applied: tuple[tuple[str, int, int], ...]


class Stored(NamedTuple):
    """A row, and the token of its last write; None where it has none."""

    row: Row
    token: int | None


class Rows:
    """The rows of a store.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        ttl_s = OTHERS_S if store.shared else np.inf
        self._figures: Remembered[bytes] = Remembered(REMEMBERED, ttl_s)  # packed: hundreds are asked for at once
        self._after: Remembered[SparseVector] = Remembered(REMEMBERED, ttl_s)
        # As last written. Where another process has written since, writing is refused, and what stands is read.
        self._at_hand: Bounded[str, Stored] = Bounded(AT_HAND)

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(
            name=self._collection, vectors={FIGURES_VECTOR: FIGURES}, sparse=(AFTER,), indexes={}, fingerprint="rows-1"
        )

    async def apply(self, transitions: Mapping[str, Sequence[Transition]]) -> int:
        """Adds each item's transitions, in their order; returns when all of them are in the store.

        Returns:
            How many writes were refused because someone else had written first, and were made again.

        Raises:
            StoreUnavailable: the store does not answer. Some rows may have been written; apply all again.
        """
        items = list(transitions)
        refused = 0
        for start in range(0, len(items), CHUNK):
            refused += await self._apply_chunk({item: transitions[item] for item in items[start : start + CHUNK]})
        return refused

    async def get(self, item_ids: Iterable[str]) -> dict[str, Row]:
        """The rows that exist among those of some items."""
        return {item_id: one.row for item_id, one in (await self._load(item_ids)).items()}

    async def all(self) -> AsyncIterator[Row]:
        """Every row of the store, in no particular order."""
        async for point in self._store.scroll(self._collection, SearchFilter()):
            if ITEM in point.payload:  # positions are kept beside the rows
                yield row_of(point.payload)

    async def figures(self, item_ids: Sequence[str]) -> Floats:
        """What is asked of many rows at once, without unpacking them.

        Args:
            item_ids: n of them.

        Returns:
            Shape (n, `FIGURES`), logarithms to the base two, as of the landmark: popularity by
            `POPULARITY_HALF_LIVES_MS`, and at `COUNT`, `MASS` and `AS_OF` the row's count, its mass, and what its
            newest event weighs by the half-life of the mass. -inf, and 0 at `AS_OF`, where an item has no row.
        """

        async def read(unknown: Sequence[str]) -> dict[str, bytes]:
            found = await self._views(unknown, FIGURES_VECTOR)
            return {name: one.vectors[FIGURES_VECTOR].tobytes() for name, one in found.items()}

        found = await self._figures.get(item_ids, read)
        packed = b"".join([found.get(item_id, UNKNOWN) for item_id in item_ids])
        return np.frombuffer(packed, np.float32).reshape(-1, FIGURES).astype(np.float64)

    async def after(self, item_ids: Sequence[str]) -> dict[str, SparseVector]:
        """What came before each of some items, by `engine_keys`: sums of the row over `row_measure` as of its newest.

        Items without any are left out.
        """

        async def read(unknown: Sequence[str]) -> dict[str, SparseVector]:
            found = await self._views(unknown, AFTER)
            return {name: point.sparse[AFTER] for name, point in found.items() if AFTER in point.sparse}

        return await self._after.get(item_ids, read)

    @staticmethod
    def asked(recent: Sequence[Weighted], masses: Mapping[str, float], now_ms: int) -> SparseVector:
        """What finds the items that follow on what a user has just liked: by a dot product with what `after` gives.

        Nearly those that `transition_scores` puts first: a row is measured as of its own last transition here.

        Args:
            recent: as `recent_items` gives them.
            masses: `Row.mass` of those items; 0 where they are left out.
            now_ms: as of when, epoch milliseconds.
        """
        known = np.array([masses.get(item_id, 0.0) for item_id, _ in recent])
        weights = np.array([weight for _, weight in recent]) / row_measure(known, now_ms)
        return sparse_vector(np.array([item_key(item_id) for item_id, _ in recent], np.uint64), weights)

    async def following(self, asked: Sequence[SparseVector], *, limit: int) -> list[list[str]]:
        """For each user the `limit` items that follow best on what they have just liked, best first.

        Args:
            asked: by user.
            limit: items a user.
        """
        # Nothing is left out by its id: checking so many ids takes the engine twenty times as long as the search.
        queries = [(one, SearchFilter()) for one in asked]
        found = await self._store.search(self._collection, AFTER, queries, limit=limit, payload=(ITEM,))
        return [[hit.payload[ITEM] for hit in hits] for hits in found]

    async def trending(self, horizon: int, *, limit: int) -> list[str]:
        """The most popular items, best first.

        Args:
            horizon: by which of `POPULARITY_HALF_LIVES_MS`; the number behind its last: of all time.
            limit: how many.
        """
        direction = np.eye(FIGURES, dtype=np.float32)[horizon]
        [hits] = await self._store.search(
            self._collection, FIGURES_VECTOR, [(direction, SearchFilter())], limit=limit, payload=(ITEM,)
        )
        return [hit.payload[ITEM] for hit in hits]

    async def _apply_chunk(self, transitions: Mapping[str, Sequence[Transition]]) -> int:
        pending = dict(transitions)
        refused = 0
        for _ in range(MAX_ATTEMPTS):
            at_hand = {item_id: one for item_id in pending if (one := self._at_hand.get(item_id)) is not None}
            stored = at_hand | await self._load(pending.keys() - at_hand.keys())
            writes: list[Write] = []
            names: dict[UUID, str] = {}
            made: dict[str, Row] = {}
            for item_id, mine in pending.items():
                before = stored.get(item_id, Stored(Row(item_id=item_id), None))
                row = before.row.adding(mine) if len(mine) <= MANY else await asyncio.to_thread(before.row.adding, mine)
                if row is not before.row:
                    made[item_id] = row
                    point = point_of(row)
                    names[point.id] = item_id
                    writes.append(Write(point=point, expected=before.token))
            stands = await self._write(writes, made) if writes else set()
            conflicts = names.keys() - stands
            if not conflicts:
                return refused
            refused += len(conflicts)
            pending = {names[key]: pending[names[key]] for key in conflicts}
        raise StoreUnavailable("rows kept changing under this writer", hint="Is another affinity worker stuck?")

    async def _write(self, writes: Sequence[Write], rows: Mapping[str, Row]) -> set[UUID]:
        """Writes rows, by item; what stands is remembered."""
        stands: set[UUID] = set()
        try:
            stands = await self._store.write(self._collection, writes)
        finally:
            written = {write.point.payload[ITEM]: write.point for write in writes if write.point.id in stands}
            for item_id in rows.keys() - written.keys():
                self._at_hand.drop(item_id)
            for item_id, point in written.items():
                self._at_hand.put(item_id, Stored(rows[item_id], point.token))
            for views in (self._figures, self._after):
                views.forget(rows.keys() - written.keys())
            self._figures.wrote({name: point.vectors[FIGURES_VECTOR].tobytes() for name, point in written.items()})
            self._after.wrote({name: point.sparse.get(AFTER) for name, point in written.items()})
        return stands

    async def _views(self, item_ids: Iterable[str], vector: str) -> dict[str, Point]:
        """The rows' points with a view of them each."""
        wanted = {item_point(item_id): item_id for item_id in item_ids}
        found = await self._store.retrieve(self._collection, list(wanted), vectors=(vector,), payload=())
        return {wanted[key]: point for key, point in found.items()}

    async def _load(self, item_ids: Iterable[str]) -> dict[str, Stored]:
        found = await self._store.retrieve(self._collection, [item_point(item_id) for item_id in item_ids])
        return {point.payload[ITEM]: Stored(row_of(point.payload), point.token) for point in found.values()}


def point_of(row: Row) -> Point:
    """A row as it is stored."""
    packed = Packed(
        row.count,
        row.popularity,
        row.mass,
        row.as_of,
        row.keys.astype("<u8").tobytes(),
        row.sums.astype("<f8").tobytes(),
        tuple((*origin, offset) for origin, offset in row.applied.items()),
    )
    figures = np.array([*row.popularity, row.count, row.mass, growth(row.as_of, ROW_HALF_LIFE_MS)], np.float64)
    return Point(
        id=item_point(row.item_id),
        payload={
            ITEM: row.item_id,
            ROW: base64.b64encode(msgspec.msgpack.encode(packed)).decode(),
            TOKEN: new_token(),
        },
        # Logarithms: they order rows as the sums do, at any moment, and fit into single precision.
        vectors={FIGURES_VECTOR: np.log2(figures).astype(np.float32)},
        sparse={AFTER: sparse_vector(row.keys, row.sums / row_measure(row.mass, row.as_of))} if row.keys.size else {},
    )


def row_of(payload: Mapping[str, Any]) -> Row:
    """Reads a row back."""
    packed = DECODER.decode(base64.b64decode(payload[ROW]))
    return Row(
        item_id=payload[ITEM],
        count=packed.count,
        popularity=packed.popularity,
        mass=packed.mass,
        as_of=packed.as_of,
        keys=np.frombuffer(packed.keys, "<u8"),
        sums=np.frombuffer(packed.sums, "<f8"),
        applied={(topic, partition): offset for topic, partition, offset in packed.applied},
    )


DECODER = msgspec.msgpack.Decoder(Packed)
UNKNOWN = np.array([-np.inf] * AS_OF + [0.0], np.float32).tobytes()


def engine_keys(keys: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """`item_key` of items as the engine takes them: it has 32 bits for an index."""
    return keys.astype(np.uint32)


def sparse_vector(keys: NDArray[np.uint64], values: NDArray[np.float64]) -> SparseVector:
    """Values by item, by `engine_keys`. Items that meet there count together."""
    indices, columns = np.unique(engine_keys(keys), return_inverse=True)
    summed: Vector = np.minimum(np.bincount(columns, values, len(indices)), LARGEST).astype(np.float32)
    return SparseVector(indices, summed)
