"""The embedded store: Qdrant's engine within this process, one shard a collection, in one folder.

All calls run in one dedicated thread: the event loop never waits for the engine, and the operations of a shard
are serial, which makes a compare-and-set with its reading back one step. The engine holds the interpreter's
lock while it works, so that a large request would stall every thread; requests therefore go in slices.

Searches compare with every point: exact, and linear in their number (1 to 3 ms per query for 5,000 points of
832 dimensions). The index that the engine could build is left out, for building it stops everything for seconds.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import qdrant_edge as edge
from filelock import FileLock, Timeout

from penchant.errors import ConfigurationError
from penchant.profile.store.base import (
    CollectionLayout,
    NoCollection,
    Point,
    Query,
    Scored,
    SearchFilter,
    StoreUnavailable,
    Write,
)
from penchant.profile.store.edge_shard import Collection, copy_shards, is_engines
from penchant.profile.store.edge_terms import PointId, to_filter, to_named, to_point, to_scored
from penchant.profile.store.layout import check_points, check_writes, fields, slices

__all__ = ["EdgeStore", "StoreInUse"]

WRITE_SLICE = 64  # points: 10 to 30 ms of the interpreter's lock
READ_SLICE = 64  # points, likewise
SEARCH_SLICE = 8  # queries: 10 to 25 ms at 5,000 points

T = TypeVar("T")


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
