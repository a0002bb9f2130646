"""A collection of the embedded store: one shard of Qdrant's engine, its folder, and copies of it.

An acknowledged write survives the death of the process, for it is in the write-ahead log; only `flush` puts it
on the disk for good. The engine shortens that log when it flushes, hence also after every so many points.

The engine maps its files into memory, so a disk that fills up under it ends the process (SIGBUS): writes are refused
while there is still some room. And after a write that failed its log takes no more: the shard is loaded anew.
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import qdrant_edge as edge

from penchant.errors import ConfigurationError
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, Write
from penchant.profile.store.edge_terms import PointId, to_edge, to_point, to_uuid
from penchant.profile.store.layout import META_ID, SPARSE, check_layout, meta_point

__all__ = ["Collection", "copy_shards", "is_engines"]

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
