"""The store on a Qdrant server, over gRPC; the same code runs on the client's local mode in tests.

Requests go in slices, a few in flight at a time. A write is acknowledged when the server has applied it, and
conditional writes are ordered strongly: where a collection is replicated, one replica decides them all.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import grpc
import numpy as np
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse

from penchant.errors import ConfigurationError
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    NoCollection,
    Point,
    Query,
    Scored,
    SearchFilter,
    SparseVector,
    StoreUnavailable,
    Write,
)
from penchant.profile.store.layout import (
    META_ID,
    check_layout,
    check_points,
    check_writes,
    excluded_ids,
    fields,
    meta_point,
    slices,
)

__all__ = ["QdrantStore"]

LEAST_VERSION = (1, 19)
WRITE_SLICE = 64  # points: about 2 MB with four vectors and a profile's payload
READ_SLICE = 256  # points
SEARCH_SLICE = 64  # queries
IN_FLIGHT = 4  # requests

INDEX_TYPES: dict[str, models.PayloadSchemaType] = {
    "keyword": models.PayloadSchemaType.KEYWORD,
    "integer": models.PayloadSchemaType.INTEGER,
    "bool": models.PayloadSchemaType.BOOL,
}

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,  # a full disk, among others
    grpc.StatusCode.UNKNOWN,
}

S = TypeVar("S")
T = TypeVar("T")


class QdrantStore:
    """A store on a server.

    Args:
        client: reaches the server; closed with the store.
    """

    shared = True

    def __init__(self, client: AsyncQdrantClient) -> None:
        self.client = client
        self.layouts: dict[str, CollectionLayout] = {}
        self.in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def open(self, layouts: Sequence[CollectionLayout], *, create: bool = True) -> None:
        """Opens the collections, creating what is missing with its payload indexes.

        Several processes may do so at once: whoever comes second finds what the first has made.

        Raises:
            ConfigurationError: the server is too old, or refuses the key.
            NoCollection: a collection is missing and is not to be created.
            LayoutMismatch: a collection exists with another fingerprint or other dimensions.
        """
        with mapped_errors():
            version = (await self.client.info()).version
            if tuple(int(part) for part in version.split(".")[:2]) < LEAST_VERSION:
                least = ".".join(map(str, LEAST_VERSION))
                raise ConfigurationError(
                    f"The Qdrant server has version {version}; penchant needs {least} or newer",
                    hint="Older servers ignore the condition of a conditional write, and updates would be lost.",
                )
            for layout in layouts:
                if create:
                    await self.create(layout)
                    await self.mark(layout)
                elif not await self.client.collection_exists(layout.name):
                    raise NoCollection(layout.name, "the Qdrant server")
                info = await self.client.get_collection(layout.name)
                check_layout(
                    layout,
                    held=await self.meta(layout.name),
                    dimensions=dimensions_of(info),
                    sparse=info.config.params.sparse_vectors or (),
                )
                if create:
                    await self.add_indexes(layout, info.payload_schema)
                self.layouts[layout.name] = layout

    async def create(self, layout: CollectionLayout) -> None:
        """Creates a collection unless it is there."""
        if await self.client.collection_exists(layout.name):
            return
        vectors = {
            name: models.VectorParams(size=size, distance=models.Distance.DOT) for name, size in layout.vectors.items()
        }
        try:
            await self.client.create_collection(
                layout.name,
                vectors_config=vectors,
                sparse_vectors_config={name: models.SparseVectorParams() for name in layout.sparse},
            )
        except (grpc.RpcError, ValueError):  # the server's word, and the local mode's, for "exists already"
            if not await self.client.collection_exists(layout.name):
                raise

    async def mark(self, layout: CollectionLayout) -> None:
        """Notes in a new collection what it was made with."""
        if await self.meta(layout.name) is not None:
            return
        # Whoever writes points has written the meta point before: points without one are somebody else's.
        empty = not (await self.client.count(layout.name)).count
        info = await self.client.get_collection(layout.name)
        ours = dimensions_of(info) == layout.vectors and set(info.config.params.sparse_vectors or ()) == set(
            layout.sparse
        )
        if empty and ours:
            await self.upsert(layout.name, [meta_point(layout)], models.UpdateMode.INSERT_ONLY)

    async def add_indexes(self, layout: CollectionLayout, known: Container[str]) -> None:
        """Adds the payload indexes that a collection lacks."""
        wanted: dict[str, models.PayloadSchemaType | models.IntegerIndexParams] = {
            field: INDEX_TYPES[kind] for field, kind in layout.indexes.items()
        }
        # Conditional writes filter by the token, and servers in strict mode filter by nothing that has no index.
        wanted[TOKEN] = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
        for field, kind in wanted.items():
            if field not in known:
                await self.client.create_payload_index(layout.name, field, kind, wait=True)

    async def meta(self, collection: str) -> dict[str, Any] | None:
        """The payload of the collection's meta point."""
        records = await self.client.retrieve(collection, [str(META_ID)], with_payload=True)
        return records[0].payload if records else None

    async def close(self) -> None:
        """Closes the connection; every acknowledged write is the server's already."""
        await self.client.close()

    async def flush(self) -> None:
        """Nothing to do: durability is the server's business, and its settings'."""

    async def snapshot(self, folder: Path) -> Path:
        """Refused: a server's files are the server's."""
        raise ConfigurationError(
            f"The store is on a Qdrant server, which cannot be copied to {folder}",
            hint="Use Qdrant's own snapshots, of the profiles' and the items' collection, the profiles' first.",
        )

    async def retrieve(
        self,
        collection: str,
        ids: Sequence[UUID],
        *,
        vectors: Sequence[str] = (),
        payload: Sequence[str] | bool = True,
    ) -> dict[UUID, Point]:
        """The points that exist among `ids`, with the payload fields and vectors named."""

        async def part(some: Sequence[UUID]) -> list[models.Record]:
            return await self.client.retrieve(
                collection,
                [str(point) for point in some],
                with_payload=fields(payload),
                with_vectors=selected_vectors(vectors),
            )

        points = [to_point(record) for records in await self.each(ids, READ_SLICE, part) for record in records]
        return {point.id: point for point in points}

    async def write(self, collection: str, writes: Sequence[Write]) -> set[UUID]:
        """Compares and sets many points at once; gives the ids of those whose write stands."""
        check_writes(self.layouts[collection], writes)

        async def part(some: Sequence[Write]) -> set[UUID]:
            return await self.write_slice(collection, some)

        return set().union(*await self.each(writes, WRITE_SLICE, part))

    async def write_slice(self, collection: str, writes: Sequence[Write]) -> set[UUID]:
        """Compares and sets one slice; gives the ids of those whose write stands."""
        absent = [write.point for write in writes if write.expected is None]
        present = [write for write in writes if write.expected is not None]
        if absent:
            await self.upsert(collection, absent, models.UpdateMode.INSERT_ONLY)
        if present:
            unchanged = models.Filter(should=[holds(write) for write in present])
            await self.upsert(collection, [write.point for write in present], models.UpdateMode.UPDATE_ONLY, unchanged)
        written = {write.point.id: write.point.token for write in writes}
        records = await self.client.retrieve(
            collection, [str(point) for point in written], with_payload=[TOKEN], with_vectors=False
        )
        return {point.id for point in map(to_point, records) if point.token == written[point.id]}

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        """Writes points unconditionally, behind all writes acknowledged before."""
        check_points(self.layouts[collection], points)

        async def part(some: Sequence[Point]) -> None:
            await self.upsert(collection, some, models.UpdateMode.UPSERT)

        await self.each(points, WRITE_SLICE, part)

    async def upsert(
        self,
        collection: str,
        points: Sequence[Point],
        mode: models.UpdateMode,
        condition: models.Filter | None = None,
    ) -> None:
        """One request to write points, done when the server has applied it."""
        result = await self.client.upsert(
            collection,
            [to_struct(point) for point in points],
            wait=True,
            ordering=models.WriteOrdering.STRONG,
            update_mode=mode,
            update_filter=condition,
        )
        if result.status is not models.UpdateStatus.COMPLETED:
            raise StoreUnavailable(
                f"The Qdrant server has not applied a write in time: {result.status.value}",
                hint="It has more to do than it can; see its load and its disk.",
            )

    async def search(
        self,
        collection: str,
        vector: str,
        queries: Sequence[tuple[Query, SearchFilter]],
        *,
        limit: int,
        payload: Sequence[str] | bool = True,
    ) -> list[list[Scored]]:
        """For each query the `limit` points of largest dot product, best first."""

        async def part(some: Sequence[tuple[Query, SearchFilter]]) -> list[models.QueryResponse]:
            requests = [
                models.QueryRequest(
                    query=to_named(query),
                    using=vector,
                    filter=to_filter(where),
                    limit=limit,
                    with_payload=fields(payload),
                )
                for query, where in some
            ]
            return await self.client.query_batch_points(collection, requests)

        answers = await self.each(queries, SEARCH_SLICE, part)
        return [[to_scored(hit) for hit in answer.points] for some in answers for answer in some]

    async def scroll(
        self,
        collection: str,
        where: SearchFilter,
        *,
        vectors: Sequence[str] = (),
        payload: Sequence[str] | bool = True,
        page: int = 256,
    ) -> AsyncIterator[Point]:
        """All points that pass `where`, in no particular order."""
        following: Any = None
        while True:
            with mapped_errors():
                records, following = await self.client.scroll(
                    collection,
                    scroll_filter=to_filter(where),
                    limit=page,
                    offset=following,
                    with_payload=fields(payload),
                    with_vectors=selected_vectors(vectors),
                )
            for record in records:
                yield to_point(record)
            if following is None:
                return

    async def largest(
        self,
        collection: str,
        field: str,
        where: SearchFilter,
        *,
        limit: int,
        payload: Sequence[str] | bool = True,
    ) -> list[Point]:
        """The `limit` points that have the largest values of a field, largest first, without their vectors."""
        with mapped_errors():
            records, _ = await self.client.scroll(
                collection,
                scroll_filter=to_filter(where),
                limit=limit,
                order_by=models.OrderBy(key=field, direction=models.Direction.DESC),
                with_payload=fields(payload),
                with_vectors=False,
            )
        return [to_point(record) for record in records]

    async def count(self, collection: str, where: SearchFilter) -> int:
        """How many points pass `where`."""
        with mapped_errors():
            return (await self.client.count(collection, count_filter=to_filter(where), exact=True)).count

    async def each(self, items: Sequence[S], size: int, call: Callable[[Sequence[S]], Awaitable[T]]) -> list[T]:
        """Calls once per slice, a few at a time, and gives the answers in order.

        It waits for all even where one fails, so that nothing is under way any more when it raises.
        """

        async def one(part: Sequence[S]) -> T:
            async with self.in_flight:
                with mapped_errors():
                    return await call(part)

        answers = await asyncio.gather(*(one(part) for part in slices(items, size)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if not isinstance(answer, BaseException)]


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turns what the client raises into penchant's exceptions.

    Raises:
        StoreUnavailable: the server cannot be reached, is overloaded or failed within: waiting may help.
        ConfigurationError: it refuses the key, or what was asked: waiting does not help.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        said = error.details() or error.code().name
        if error.code() in TRANSIENT:
            raise StoreUnavailable(
                f"The Qdrant server does not answer: {said}", hint="See that it runs, and that `store.url` names it."
            ) from error
        if error.code() in REFUSED:
            raise ConfigurationError(
                f"The Qdrant server refuses access: {said}",
                hint="Set `store.api_key` to a key that may create collections, read and write.",
            ) from error
        raise ConfigurationError(
            f"The Qdrant server refuses the request: {said}",
            hint="If a collection was deleted or altered under the worker, start the worker again.",
        ) from error
    except ResourceExhaustedResponse as error:
        raise StoreUnavailable(f"The Qdrant server asks to be spared for {error.retry_after_s} s") from error


def dimensions_of(info: models.CollectionInfo) -> dict[str, int]:
    """The dimensions of a collection's dense vectors by name; a nameless one is named by the empty string."""
    vectors = info.config.params.vectors
    if isinstance(vectors, models.VectorParams):
        return {"": vectors.size}
    return {name: params.size for name, params in (vectors or {}).items()}


def holds(write: Write) -> models.Filter:
    """Passes the one point, while it has the token that is expected."""
    return models.Filter(must=[models.HasIdCondition(has_id=[str(write.point.id)]), matches(TOKEN, write.expected)])


def matches(field: str, value: Any) -> models.FieldCondition:
    """Passes points whose field has the value."""
    return models.FieldCondition(key=field, match=models.MatchValue(value=value))


def to_filter(where: SearchFilter) -> models.Filter:
    """`where` in the client's terms."""
    excluded = models.HasIdCondition(has_id=[str(point) for point in excluded_ids(where)])
    return models.Filter(
        must=[matches(*pair) for pair in where.equal.items()],
        must_not=[excluded, *(matches(*pair) for pair in where.unequal.items())],
    )


def to_struct(point: Point) -> models.PointStruct:
    """`point` in the client's terms."""
    named: dict[str, Query] = {**point.vectors, **point.sparse}
    vectors: Any = {name: to_named(vector) for name, vector in named.items()}
    return models.PointStruct(id=str(point.id), vector=vectors, payload=point.payload)


def to_named(vector: Query) -> Any:
    """A vector in the client's terms."""
    if isinstance(vector, SparseVector):
        return models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    return vector.tolist()


def selected_vectors(vectors: Sequence[str]) -> bool | list[str]:
    """Which vectors to return, in the client's terms: an empty list would mean all of them."""
    return list(vectors) or False


def to_point(record: models.Record) -> Point:
    """A point that the client returned."""
    named: dict[str, Any] = record.vector if isinstance(record.vector, dict) else {}
    sparse = {name: vector for name, vector in named.items() if isinstance(vector, models.SparseVector)}
    return Point(
        id=UUID(str(record.id)),
        payload=record.payload or {},
        vectors={name: np.asarray(vector, np.float32) for name, vector in named.items() if name not in sparse},
        sparse={
            name: SparseVector(np.asarray(vector.indices, np.uint32), np.asarray(vector.values, np.float32))
            for name, vector in sparse.items()
        },
    )


def to_scored(hit: models.ScoredPoint) -> Scored:
    """A point that a search found."""
    return Scored(id=UUID(str(hit.id)), score=hit.score, payload=hit.payload or {})
