"""The embedded store: Qdrant's engine within this process, one shard a collection, in one folder.

All calls run in one dedicated thread: the event loop never waits for the engine, and the operations of a shard
are serial, which makes a compare-and-set with its reading back one step. The engine holds the interpreter's
lock while it works, so that a large request would stall every thread; requests therefore go in slices.

Searches compare with every point: exact, and linear in their number (1 to 3 ms per query for 5,000 points of
832 dimensions). The index that the engine could build is left out, for building it stops everything for seconds.

An acknowledged write survives the death of the process, for it is in the write-ahead log; only `flush` puts it
on the disk for good. The engine shortens that log when it flushes, hence also after every so many points.

The engine maps its files into memory, so a disk that fills up under it ends the process (SIGBUS): writes are refused
while there is still some room. And after a write that failed its log takes no more: the shard is loaded anew.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from filelock import FileLock, Timeout

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
    SPARSE,
    check_layout,
    check_points,
    check_writes,
    excluded_ids,
    fields,
    meta_point,
    slices,
)

__all__ = ["EdgeStore", "StoreInUse", "copy_shards"]

WRITE_SLICE = 64  # points: 10 to 30 ms of the interpreter's lock
READ_SLICE = 64  # points, likewise
SEARCH_SLICE = 8  # queries: 10 to 25 ms at 5,000 points
BLOCK = 512  # bytes, in which stat counts
LEAST_FREE = 128 * 2**20  # bytes: several times what the engine may add between two looks, a log's segments included
FLUSH_POINTS = 4_096  # the log holds some 40 to 100 MB by then, and flushing takes a tenth of a second
DRAFT = ".new"  # ends the name of what is not whole yet
NOTHING = bytes(2**16)  # a hole in a file, as it is read

INDEX_TYPES = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "bool": edge.PayloadSchemaType.Bool,
}

T = TypeVar("T")
PointId = int | UUID | str  # as the engine may return it


class StoreInUse(ConfigurationError):
    """Another process has the folder."""


class EdgeStore:
    """A store in a folder of its own, for one process at a time.

    Args:
        folder: where the shards are; created on opening.
    """

    shared = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.collections: dict[str, Collection] = {}
        # Not bound to a thread: it is taken and released in whichever thread opens and closes the store.
        self.lock = FileLock(folder / "lock", thread_local=False)
        self.engine = ThreadPoolExecutor(1, thread_name_prefix="edge")

    async def open(self, layouts: Sequence[CollectionLayout], *, create: bool = True) -> None:
        """Opens the collections, creating what is missing with its payload indexes.

        Raises:
            StoreInUse: another process uses the folder.
            ConfigurationError: the folder cannot be written.
            NoCollection: a collection is missing and is not to be created.
            LayoutMismatch: a collection exists with another fingerprint or other dimensions.
        """
        if not create:
            self.check_there(layouts)
        try:
            if not self.lock.is_locked:
                self.take_folder()
            for layout in layouts:
                if layout.name not in self.collections:
                    self.collections[layout.name] = await self.run(Collection, self.folder / layout.name, layout)
        except BaseException:
            await self.release()
            raise

    def check_there(self, layouts: Sequence[CollectionLayout]) -> None:
        """Makes sure that no collection would have to be created."""
        for layout in layouts:
            if not (self.folder / layout.name).exists():
                raise NoCollection(layout.name, str(self.folder))

    def take_folder(self) -> None:
        """Takes the folder's lock, or says who has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire(timeout=0)
        except Timeout:
            raise StoreInUse(
                f"Another penchant worker uses the folder {self.folder}",
                hint="The embedded store admits one process: commands beside the worker ask its HTTP port. For "
                "several workers start a Qdrant server and set `store.url`.",
            ) from None
        except OSError as error:
            raise ConfigurationError(
                f"The folder {self.folder} cannot be used: {error.strerror}", hint="Set `data_dir` to a folder of yours"
            ) from error

    async def close(self) -> None:
        """Flushes what is pending and releases the store."""
        try:
            await self.release()
        finally:
            self.engine.shutdown(wait=False)

    async def release(self) -> None:
        """Closes the collections and gives the folder back, even where flushing fails."""
        failures: list[StoreUnavailable] = []
        try:
            while self.collections:
                _, collection = self.collections.popitem()
                try:
                    await self.run(collection.close)
                except StoreUnavailable as error:
                    failures.append(error)
        finally:
            self.lock.release()
        if failures:
            raise failures[0]

    async def flush(self) -> None:
        """Makes what was acknowledged durable against a power cut."""
        for collection in self.collections.values():
            await self.run(collection.flush)

    async def snapshot(self, folder: Path) -> Path:
        """Copies the whole store as it is at one moment between two writes; where it is not open, at rest.

        The engine's thread copies, so that reads and writes wait for it, and the event loop does not.
        """
        if self.lock.is_locked:
            await self.run(self.copy_to, folder)
            return self.folder
        if not self.folder.is_dir():
            raise ConfigurationError(
                f"There is no store in {self.folder}", hint="`data_dir` must be that of the worker whose store it is."
            )
        self.take_folder()
        try:
            await self.run(self.copy_to, folder)
        finally:
            self.lock.release()
        return self.folder

    def copy_to(self, folder: Path) -> None:
        """Flushes, and copies all collections; in the engine's thread."""
        if folder.exists() or folder.resolve().is_relative_to(self.folder.resolve()):
            raise ConfigurationError(
                f"{folder} exists, or lies within the store", hint="A snapshot needs a new folder of its own."
            )
        for collection in self.collections.values():
            collection.flush()
        copy_shards(self.folder, folder)

    async def retrieve(
        self,
        collection: str,
        ids: Sequence[UUID],
        *,
        vectors: Sequence[str] = (),
        payload: Sequence[str] | bool = True,
    ) -> dict[UUID, Point]:
        """The points that exist among `ids`, with the payload fields and vectors named."""
        target = self.collections[collection]
        found: dict[UUID, Point] = {}
        for part in slices(ids, READ_SLICE):
            records = await self.run(target.retrieve, list(part), fields(payload), list(vectors))
            found.update((point.id, point) for point in map(to_point, records))
        return found

    async def write(self, collection: str, writes: Sequence[Write]) -> set[UUID]:
        """Compares and sets many points at once; gives the ids of those whose write stands."""
        target = self.collections[collection]
        check_writes(target.layout, writes)
        stands: set[UUID] = set()
        for part in slices(writes, WRITE_SLICE):
            stands |= await self.run(target.write, part)
        return stands

    async def put(self, collection: str, points: Sequence[Point]) -> None:
        """Writes points unconditionally, behind all writes acknowledged before."""
        target = self.collections[collection]
        check_points(target.layout, points)
        for part in slices(points, WRITE_SLICE):
            await self.run(target.put, part)

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
        target = self.collections[collection]
        found: list[list[Scored]] = []
        for part in slices(queries, SEARCH_SLICE):
            requests = [
                edge.QueryRequest(
                    limit,
                    query=edge.Query.Nearest(to_named(query), vector),
                    filter=to_filter(where),
                    with_payload=fields(payload),
                )
                for query, where in part
            ]
            answers = await self.run(target.query, edge.QueryBatchRequest(requests))
            found.extend([to_scored(hit) for hit in hits] for hits in answers)
        return found

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
        target = self.collections[collection]
        following: PointId | None = None
        while True:
            request = edge.ScrollRequest(
                offset=following,
                limit=page,
                filter=to_filter(where),
                with_payload=fields(payload),
                with_vector=list(vectors),
            )
            records, following = await self.run(target.scroll, request)
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
        request = edge.ScrollRequest(
            limit=limit,
            filter=to_filter(where),
            with_payload=fields(payload),
            with_vector=[],
            order_by=edge.OrderBy(field, edge.Direction.Desc),
        )
        records, _ = await self.run(self.collections[collection].scroll, request)
        return [to_point(record) for record in records]

    async def count(self, collection: str, where: SearchFilter) -> int:
        """How many points pass `where`."""
        request = edge.CountRequest(exact=True, filter=to_filter(where))
        return await self.run(self.collections[collection].count, request)

    async def run(self, call: Callable[..., T], *arguments: Any) -> T:
        """Runs a call in the engine's thread.

        Raises:
            StoreUnavailable: the engine refused, for want of disk space for instance.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self.engine, call, *arguments)
        except Exception as error:
            if not is_engines(error):
                raise
            raise StoreUnavailable(
                f"The embedded store failed: {error}", hint=f"See that the disk of {self.folder} has space and works."
            ) from error


class Collection:
    """One shard with its layout. Its methods run in the engine's thread alone.

    Args:
        path: the shard's folder; created where it is missing.
        layout: what it must hold.

    Raises:
        LayoutMismatch: it holds something else.
    """

    def __init__(self, path: Path, layout: CollectionLayout) -> None:
        self.path = path
        self.layout = layout
        self.unflushed = 0
        if not path.exists():
            check_space(path.parent)
            create_shard(path, layout)
        self.loaded: edge.EdgeShard | None = None
        try:
            held = [to_point(record).payload for record in self.retrieve([META_ID], True, [])]  # noqa: FBT003  all of it
            check_layout(
                layout,
                held=held[0] if held else None,
                dimensions=held[0]["vectors"] if held else {},
                sparse=held[0].get(SPARSE, ()) if held else (),
            )
            create_indexes(self.shard, layout)
        except BaseException:
            self.give_up()
            raise

    @property
    def shard(self) -> edge.EdgeShard:
        """The shard, loaded anew after a write that failed."""
        if self.loaded is None:
            check_space(self.path)
            self.loaded = edge.EdgeShard.load(str(self.path))
        return self.loaded

    def retrieve(self, ids: list[PointId], payload: Any, vectors: list[str]) -> list[edge.Record]:
        """The points that exist among some."""
        return self.shard.retrieve(ids, payload, vectors)

    def query(self, request: edge.QueryBatchRequest) -> list[list[edge.ScoredPoint]]:
        """The nearest points, query by query."""
        return self.shard.query_batch(request)

    def scroll(self, request: edge.ScrollRequest) -> tuple[list[edge.Record], PointId | None]:
        """A page of points, and where the next one begins."""
        return self.shard.scroll(request)

    def count(self, request: edge.CountRequest) -> int:
        """How many points there are."""
        return self.shard.count(request)

    def write(self, writes: Sequence[Write]) -> set[UUID]:
        """Compares and sets one slice; gives the ids of those whose write stands."""
        absent = [to_edge(write.point) for write in writes if write.expected is None]
        present = [write for write in writes if write.expected is not None]
        if absent:
            self.update(edge.UpdateOperation.upsert_points(absent, update_mode=edge.UpdateMode.InsertOnly), len(absent))
        if present:
            # Any of the tokens, not each point's own: no two points ever have the same, and this costs a tenth of that.
            tokens = [write.expected for write in present if write.expected is not None]
            unchanged = edge.Filter(must=[edge.FieldCondition(TOKEN, match=edge.MatchAny(tokens))])
            points = [to_edge(write.point) for write in present]
            self.update(edge.UpdateOperation.upsert_points(points, unchanged, edge.UpdateMode.UpdateOnly), len(present))
        written = {write.point.id: write.point.token for write in writes}
        stored = {to_uuid(record.id): record.payload for record in self.retrieve(list(written), [TOKEN], [])}
        return {key for key, payload in stored.items() if payload and payload.get(TOKEN) == written[key]}

    def put(self, points: Sequence[Point]) -> None:
        """Writes one slice unconditionally."""
        self.update(edge.UpdateOperation.upsert_points([to_edge(point) for point in points]), len(points))

    def update(self, operation: edge.UpdateOperation, points: int) -> None:
        """Applies an operation on so many points; flushes when enough have gathered."""
        check_space(self.path)
        try:
            self.shard.update(operation)
            self.unflushed += points
            if self.unflushed >= FLUSH_POINTS:
                self.flush()
        except BaseException as error:
            if is_engines(error):
                self.give_up()
            raise

    def flush(self) -> None:
        """Puts on disk whatever is only in the log."""
        self.shard.flush()
        self.unflushed = 0

    def give_up(self) -> None:
        """Lets go of the files as they are: what was acknowledged is in the log."""
        shard, self.loaded = self.loaded, None
        if shard is not None:
            with contextlib.suppress(Exception):  # it has failed before
                shard.close()

    def close(self) -> None:
        """Flushes and lets go of the files; one that was given up has nothing to flush."""
        try:
            if self.loaded is not None:
                self.flush()
        finally:
            self.give_up()


def check_space(folder: Path, wanted: int = 0) -> None:
    """Looks whether the disk has room for so many bytes, and for what the engine may write next.

    Raises:
        OSError: it has not.
    """
    if shutil.disk_usage(folder).free < LEAST_FREE + wanted:
        raise OSError(errno.ENOSPC, f"less than {LEAST_FREE + wanted >> 20} MiB are free on the disk")


def is_engines(error: BaseException) -> bool:
    """Whether an error is the engine's, not its caller's: it raises bare exceptions for what happens within it."""
    return type(error) is Exception or isinstance(error, OSError)


def copy_shards(source: Path, folder: Path) -> None:
    """Copies the shards of a store that nobody writes; under another name until the copy is whole.

    Raises:
        ConfigurationError: the copy cannot be written, or would leave too little of the disk.
    """
    shards = [shard for shard in source.iterdir() if shard.is_dir() and shard.suffix != DRAFT]
    draft: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_space(folder.parent, sum(file.stat().st_blocks * BLOCK for shard in shards for file in shard.rglob("*")))
        draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))  # for its owner alone
        for shard in shards:
            shutil.copytree(shard, draft / shard.name, copy_function=copy_file)
        draft.rename(folder)
    except (OSError, shutil.Error) as error:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)
        raise ConfigurationError(
            f"The copy {folder} cannot be written: {error}", hint="See that it may be, and that there is space."
        ) from error


def copy_file(source: str, target: str) -> None:
    """Copies a file and leaves its holes: the engine's files begin with many megabytes of them."""
    with Path(source).open("rb") as reading, Path(target).open("wb") as writing:
        while block := reading.read(len(NOTHING)):
            if block == NOTHING:
                writing.seek(len(block), os.SEEK_CUR)
            else:
                writing.write(block)
        writing.truncate()


def create_shard(path: Path, layout: CollectionLayout) -> None:
    """Creates a shard under another name first, so that one cut short by a crash is never taken for whole."""
    draft = path.with_name(f"{path.name}{DRAFT}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    vectors = {name: edge.EdgeVectorParams(size, edge.Distance.Dot) for name, size in layout.vectors.items()}
    sparse = {name: edge.EdgeSparseVectorParams() for name in layout.sparse}
    shard = edge.EdgeShard.create(str(draft), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse))
    try:
        shard.update(edge.UpdateOperation.upsert_points([to_edge(meta_point(layout))]))
        shard.flush()
    finally:
        shard.close()
    draft.rename(path)


def create_indexes(shard: edge.EdgeShard, layout: CollectionLayout) -> None:
    """Creates the payload indexes that the shard does not have yet."""
    for field in layout.indexes.keys() - shard.info().payload_schema.keys():
        shard.update(edge.UpdateOperation.create_field_index(field, INDEX_TYPES[layout.indexes[field]]))


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
