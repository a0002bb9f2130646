"""The items' collection: content vectors with what is needed to show, filter and embed them again.

An item's versions are ordered by (source time, record timestamp, record offset): an older version never overwrites a
newer one, whatever order they arrive in; of two within a millisecond the later in the log is the newer. Withdrawing
an item is a version like any other, so that a replayed older record does not bring it back; its vector stays, for the
signals that speak of it.

An item keeps what its vector was made from, a withdrawn one too, so that other encoders can embed all anew from the
store itself: its text, where its pictures and sounds are, and whether it is private, for a search is embedded as such.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.fusion import Space
from penchant.profile.identity import item_point
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    Point,
    SearchFilter,
    Store,
    StoreUnavailable,
    Write,
    new_token,
)

__all__ = ["Candidate", "Item", "Items", "Listed", "Placed", "Reference", "Refused", "Stored", "Version"]

Vector = NDArray[np.float32]
Version = tuple[int, int, int]  # source time and record timestamp, epoch milliseconds; record offset

CONTENT = "content"
ITEM_ID, VERSION = "item_id", "version"
LISTED, AUTHOR, ENTITY, PRIVATE = "listed", "author", "entity", "private"
# The time of a listed item's version, epoch milliseconds, where it can be ordered by; absent for one not listed.
LISTED_AT = "listed_at"
# Where an item that names an entity has its place in the graph from; absent for one that names none.
PLACE = "place"
OWN, MEAN, NOWHERE = "own", "mean", "nowhere"
MAX_ATTEMPTS = 10
FEW = 64  # points with their vectors that are read at a time


class Reference(Struct, frozen=True, array_like=True):
    """A picture or a sound of an item.

    Attributes:
        kind: its modality; empty where an older penchant has not kept it.
        uri: where it is; empty for one that stood in the record itself, and cannot be read again.
    """

    kind: str
    uri: str


class Refused(Struct, frozen=True, array_like=True):
    """A part of an item that could not be embedded. Kept with the item: a replay must find it again."""

    modality: str
    reason: str
    detail: str


class Placed(Struct, frozen=True, array_like=True):
    """What an item's place in the graph was computed from.

    Attributes:
        model: fingerprint of the graph model; empty: it has no place any more.
        digest: of the graph's slice.
        mean: by its neighbours, not by a vector of its own.
        at: when it was placed, epoch milliseconds.
    """

    model: str
    digest: str
    mean: bool
    at: int


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of an item beside its vector.

    Attributes:
        version: orders the versions of the item.
        listed: may be recommended: is recommendable, not withdrawn, and has content.
        author: stands for the user whose post or upload it is; empty for the catalogue.
        modalities: those that its content vector has; none for a *void* item, which nobody need wait for.
        media: what there is to see and to hear, for embedding the item again.
        private: is shown to nobody, whatever it contains.
        placed: in the graph, where it is or was.
    """

    item_id: str
    version: Version
    listed: bool
    author: str = ""
    title: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    entity: str = ""
    media: tuple[Reference, ...] = ()
    modalities: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()
    withdrawn: bool = False
    private: bool = False
    placed: Placed | None = None


class Stored(Struct, frozen=True, kw_only=True):
    """An item as it is stored, with its content vector and its write token."""

    item: Item
    vector: Vector | None
    token: int | None


class Candidate(Struct, frozen=True, kw_only=True):
    """An item that a search found, with its dot product with the query."""

    item_id: str
    score: float


class Listed(Struct, frozen=True, kw_only=True):
    """An item that may be recommended, though not to its author.

    Attributes:
        author: stands for the user whose post or upload it is; empty for the catalogue.
        at: its version's time, epoch milliseconds.
    """

    author: str
    at: int


class Items:
    """The items of a store.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
        space: of the content vectors.
    """

    def __init__(self, store: Store, collection: str, space: Space) -> None:
        self._store = store
        self._collection = collection
        self._watchers: list[Callable[[Collection[str]], None]] = []
        self.space = space

    @property
    def shared(self) -> bool:
        """Whether other processes may write them."""
        return self._store.shared

    def watch(self, tell: Callable[[Collection[str]], None]) -> None:
        """Tells of the items that this process writes, as soon as they are in the store."""
        self._watchers.append(tell)

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(
            name=self._collection,
            vectors={CONTENT: self.space.dimension},
            indexes={
                LISTED: "bool",
                LISTED_AT: "integer",
                AUTHOR: "keyword",
                ENTITY: "keyword",
                PLACE: "keyword",
            },
            fingerprint=self.space.fingerprint,
        )

    async def get(self, item_ids: Iterable[str]) -> dict[str, Item]:
        """The items that exist among `item_ids`."""
        return {item_id: item for item_id, (item, _) in (await self._load(item_ids)).items()}

    async def present(self, item_ids: Iterable[str]) -> set[str]:
        """Those of `item_ids` that exist."""
        wanted = {item_point(item_id): item_id for item_id in item_ids}
        return {wanted[key] for key in await self._store.retrieve(self._collection, list(wanted), payload=())}

    async def vectors(self, item_ids: Iterable[str]) -> dict[str, Vector | None]:
        """Content vectors of the items that exist among `item_ids`; None for those without content."""
        wanted = {item_point(item_id): item_id for item_id in item_ids}
        found = await self._store.retrieve(self._collection, list(wanted), vectors=(CONTENT,), payload=())
        return {wanted[key]: point.vectors.get(CONTENT) for key, point in found.items()}

    async def put(self, contents: Sequence[tuple[Item, Vector | None]]) -> None:
        """Stores items unless a version as new is there already. No item id may appear twice.

        Raises:
            StoreUnavailable: the store does not answer, or others kept writing the same items.
        """
        pending = {item.item_id: (item, vector) for item, vector in contents}
        for _ in range(MAX_ATTEMPTS):
            stored = await self._load(pending)
            writes: list[Write] = []
            names: dict[UUID, str] = {}
            for item_id, (item, vector) in list(pending.items()):
                known, token = stored.get(item_id, (None, None))
                if known is not None and known.version >= item.version:
                    del pending[item_id]
                    continue
                point = self._point(item, vector)
                names[point.id] = item_id
                writes.append(Write(point=point, expected=token))
            if not writes:
                return
            for key in await self._write(writes):
                del pending[names[key]]
        raise StoreUnavailable("items kept changing under this writer", hint="Is another content worker stuck?")

    async def stored(self, item_ids: Iterable[str]) -> list[Stored]:
        """The items that exist among `item_ids`, with what is needed to write them anew."""
        wanted = [item_point(item_id) for item_id in item_ids]
        found = await self._store.retrieve(self._collection, wanted, vectors=(CONTENT,))
        return [stored_of(point) for point in found.values()]

    async def replace(self, edits: Sequence[Stored]) -> set[str]:
        """Writes items anew in the version that they have, each if it still has its token; gives those that stand."""
        points = {edit.item.item_id: self._point(edit.item, edit.vector) for edit in edits}
        writes = [Write(point=points[edit.item.item_id], expected=edit.token) for edit in edits]
        stands = await self._write(writes)
        return {item_id for item_id, point in points.items() if point.id in stands}

    async def naming(self, entity: str) -> AsyncIterator[str]:
        """The items that name an entity of the graph."""
        async for item in self._where(SearchFilter(equal={ENTITY: entity})):
            yield item.item_id

    async def unplaced(self) -> AsyncIterator[str]:
        """The items that name an entity and have no place by a vector of its own."""
        for place in (NOWHERE, MEAN):
            async for item in self._where(SearchFilter(equal={PLACE: place})):
                yield item.item_id

    async def placed_by_others(self, model: str) -> AsyncIterator[str]:
        """The items whose place is not of the graph model named."""
        for place in (OWN, MEAN):
            async for item in self._where(SearchFilter(equal={PLACE: place})):
                if item.placed is not None and item.placed.model != model:
                    yield item.item_id

    async def search(self, queries: Sequence[tuple[Vector, SearchFilter]], *, limit: int) -> list[list[Candidate]]:
        """For each query the `limit` listed items of largest dot product, best first.

        Args:
            queries: content-space vectors of shape (d,), and what to leave out.
            limit: candidates per query.
        """
        found = await self._store.search(self._collection, CONTENT, queries, limit=limit, payload=(ITEM_ID,))
        return [[Candidate(item_id=hit.payload[ITEM_ID], score=hit.score) for hit in hits] for hits in found]

    async def listed(self, item_ids: Iterable[str]) -> dict[str, Listed]:
        """Those of `item_ids` that may be recommended: what `listed_filter` asks of items found elsewhere."""
        wanted = {item_point(item_id): item_id for item_id in item_ids}
        found = await self._store.retrieve(self._collection, list(wanted), payload=(LISTED, AUTHOR, VERSION))
        return {
            wanted[key]: Listed(author=point.payload[AUTHOR], at=point.payload[VERSION][0])
            for key, point in found.items()
            if point.payload[LISTED]
        }

    @staticmethod
    def listed_filter(*, author: str, without: Iterable[str]) -> SearchFilter:
        """Lets pass what may be recommended to a user: not their own items and not those named.

        Args:
            author: stands for the user.
            without: item ids.
        """
        return SearchFilter(
            equal={LISTED: True}, unequal={AUTHOR: author}, without=[item_point(item_id) for item_id in without]
        )

    async def contents(self, *, most: int) -> AsyncIterator[Vector]:
        """Content vectors of listed items, shape (d,) each: at most so many, in no particular order."""
        given = 0
        listed = SearchFilter(equal={LISTED: True})
        async for point in self._store.scroll(self._collection, listed, vectors=(CONTENT,), payload=()):
            if CONTENT in point.vectors:
                yield point.vectors[CONTENT]
                given += 1
                if given == most:
                    return

    async def all(self) -> AsyncIterator[Stored]:
        """Every item of the store, in no particular order; once each, even while others write them."""
        async for point in self._store.scroll(self._collection, SearchFilter(), vectors=(CONTENT,)):
            if ITEM_ID in point.payload:  # positions are kept beside the items
                yield stored_of(point)

    async def newest(self, limit: int) -> list[str]:
        """The listed items of the latest versions' times, latest first: at most so many."""
        listed = SearchFilter(equal={LISTED: True})
        found = await self._store.largest(self._collection, LISTED_AT, listed, limit=limit, payload=(ITEM_ID,))
        return [point.payload[ITEM_ID] for point in found]

    async def all_listed(self) -> AsyncIterator[Stored]:
        """The items that may be recommended."""
        listed = SearchFilter(equal={LISTED: True})
        async for point in self._store.scroll(self._collection, listed, vectors=(CONTENT,), page=FEW):
            yield stored_of(point)

    async def tokens(self) -> AsyncIterator[tuple[str, int | None]]:
        """The write tokens of the items that may be recommended: they change with whatever changes."""
        listed = SearchFilter(equal={LISTED: True})
        async for point in self._store.scroll(self._collection, listed, payload=(ITEM_ID, TOKEN)):
            yield point.payload[ITEM_ID], point.token

    async def count(self) -> int:
        """How many items may be recommended."""
        return await self._store.count(self._collection, SearchFilter(equal={LISTED: True}))

    async def _write(self, writes: Sequence[Write]) -> set[UUID]:
        """Writes points, and tells of those that stand; of all where it is not known."""
        stands = {write.point.id for write in writes}
        try:
            stands = await self._store.write(self._collection, writes)
        finally:
            changed = [write.point.payload[ITEM_ID] for write in writes if write.point.id in stands]
            for tell in self._watchers:
                tell(changed)
        return stands

    async def _where(self, where: SearchFilter) -> AsyncIterator[Item]:
        """All items that pass."""
        async for point in self._store.scroll(self._collection, where):
            yield item_of(point.payload)

    async def _load(self, item_ids: Iterable[str]) -> dict[str, tuple[Item, int | None]]:
        wanted = [item_point(item_id) for item_id in item_ids]
        found = await self._store.retrieve(self._collection, wanted)
        items = ((item_of(point.payload), point.token) for point in found.values())
        return {item.item_id: (item, token) for item, token in items}

    @staticmethod
    def _point(item: Item, vector: Vector | None) -> Point:
        payload: dict[str, Any] = msgspec.to_builtins(item)
        payload |= {LISTED: item.listed, PRIVATE: item.private, AUTHOR: item.author, TOKEN: new_token()}
        if item.listed:
            payload[LISTED_AT] = item.version[0]
        if item.entity:
            payload[PLACE] = NOWHERE if item.placed is None or not item.placed.model else source(item.placed)
        return Point(id=item_point(item.item_id), payload=payload, vectors={} if vector is None else {CONTENT: vector})


def stored_of(point: Point) -> Stored:
    """A point as the item that it holds."""
    return Stored(item=item_of(point.payload), vector=point.vectors.get(CONTENT), token=point.token)


def source(placed: Placed) -> str:
    """Where a place is from."""
    return MEAN if placed.mean else OWN


def item_of(payload: Mapping[str, Any]) -> Item:
    """Reads an item back from its payload."""
    return msgspec.convert(payload if PRIVATE in payload else completed(payload), Item)


def completed(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A payload as it was before items kept the kinds of their media, and who may see them.

    Of users' own what is not listed is taken for private: it may be void, but a search must not come up by and by.
    """
    media = [("", uri) for uri in payload.get("media", ())]
    return {**payload, "media": media, PRIVATE: bool(payload[AUTHOR]) and not payload[LISTED]}
