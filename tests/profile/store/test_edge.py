"""What the embedded store promises beyond the contract: one process, and nothing lost by a crash."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import numpy as np
import pytest

from penchant.errors import ConfigurationError
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    Point,
    SearchFilter,
    StoreUnavailable,
    Write,
    new_token,
)
from penchant.profile.store.edge import EdgeStore, StoreInUse
from penchant.profile.store.edge_shard import FLUSH_POINTS

WRITER = """
import asyncio, resource, sys
from pathlib import Path
from uuid import UUID
import numpy as np
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, StoreUnavailable, Write, new_token
from penchant.profile.store.edge import EdgeStore

def points(count, size=0):
    return [
        Point(id=UUID(int=number), payload={"number": number, "fill": "x" * size, TOKEN: new_token()},
              vectors={"content": np.full(4, number, np.float32)})
        for number in range(1, count + 1)
    ]

async def main(folder):
    store = EdgeStore(Path(folder))
    await store.open([CollectionLayout(name="items", vectors={"content": 4}, indexes={}, fingerprint="f1")])
"""

CRASHING = """
    stands = await store.write("items", [Write(point=point, expected=None) for point in points(300)])
    print(len(stands), flush=True)
    await asyncio.sleep(600)
"""

# A limit on the size of files stands for a full disk: both make the engine's writes fail.
FILLING = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, resource.RLIM_INFINITY))
    try:
        for _ in range(40):
            await store.put("items", points(64, 100_000))
    except StoreUnavailable as error:
        print(str(error).replace("\\n", " "), flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.put("items", points(70))
    await store.close()
"""


@pytest.fixture
def layout() -> CollectionLayout:
    """One small collection."""
    return CollectionLayout(name="items", vectors={"content": 4}, indexes={}, fingerprint="f1")


@pytest.fixture
async def store(tmp_path: Path, layout: CollectionLayout) -> AsyncIterator[EdgeStore]:
    """An opened store."""
    made = EdgeStore(tmp_path / "store")
    await made.open([layout])
    yield made
    await made.close()


def point(number: int) -> Point:
    """A point with a vector and a fresh token."""
    vectors = {"content": np.full(4, number, np.float32)}
    return Point(id=uuid4(), payload={"number": number, TOKEN: new_token()}, vectors=vectors)


async def test_a_second_store_on_the_folder_is_refused(store: EdgeStore, layout: CollectionLayout) -> None:
    """The message says who has it and what commands beside the worker do; the first goes on undisturbed."""
    with pytest.raises(ConfigurationError, match="Another penchant worker uses the folder") as refusal:
        await EdgeStore(store.folder).open([layout])
    assert "HTTP port" in str(refusal.value)
    assert await store.write("items", [Write(point=point(1), expected=None)])


async def test_a_closed_store_frees_the_folder(store: EdgeStore, layout: CollectionLayout) -> None:
    """Also one that was closed twice."""
    await store.close()
    await store.close()
    again = EdgeStore(store.folder)
    await again.open([layout])
    await again.close()


async def test_a_refused_opening_frees_the_folder(store: EdgeStore, layout: CollectionLayout) -> None:
    """And the same store may try again."""
    await store.close()
    again = EdgeStore(store.folder)
    with pytest.raises(ConfigurationError, match="fingerprint f2 expected"):
        await again.open([msgspec.structs.replace(layout, fingerprint="f2")])
    await again.open([layout])
    assert await again.count("items", SearchFilter()) == 0
    await again.close()


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, layout: CollectionLayout) -> None:
    """The message names the folder and the setting."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file/store cannot be used") as refusal:
        await EdgeStore(tmp_path / "file" / "store").open([layout])
    assert "`data_dir`" in str(refusal.value)


async def test_a_creation_cut_short_is_begun_anew(tmp_path: Path, layout: CollectionLayout) -> None:
    """What a crash left of a shard in the making is never taken for one."""
    draft = tmp_path / "store" / "items.new"
    (draft / "segments" / "half").mkdir(parents=True)
    store = EdgeStore(tmp_path / "store")
    await store.open([layout])
    assert await store.count("items", SearchFilter()) == 0
    assert not draft.exists()
    await store.close()


async def test_a_snapshot_is_of_one_moment(store: EdgeStore, layout: CollectionLayout, tmp_path: Path) -> None:
    """Under writes that go on, the copy holds what was written before it was asked for, and positions behind points."""
    position, begun = UUID(int=2**64), asyncio.Event()

    async def write_on() -> None:
        for number in range(1, 200):
            written = msgspec.structs.replace(point(number), id=UUID(int=number))
            assert await store.write("items", [Write(point=written, expected=None)])
            await store.put("items", [Point(id=position, payload={"covers": number, TOKEN: new_token()})])
            begun.set()

    writing = asyncio.create_task(write_on())
    await begun.wait()
    assert await store.snapshot(tmp_path / "copy") == store.folder
    await writing
    copy = EdgeStore(tmp_path / "copy")
    await copy.open([layout], create=False)
    found = await copy.retrieve("items", [UUID(int=number) for number in range(1, 200)] + [position])
    await copy.close()
    covers = found.pop(position).payload["covers"]
    assert {one.payload["number"] for one in found.values()} >= set(range(1, covers + 1))
    assert 0 < len(found) < 199
    assert await store.count("items", SearchFilter()) == 200


async def test_a_snapshot_keeps_the_holes_of_files(store: EdgeStore, tmp_path: Path) -> None:
    """A copy of an almost empty store takes little space, and its files are as long as they were."""
    await store.put("items", [point(1)])
    await store.snapshot(tmp_path / "copy")

    def sizes(folder: Path) -> tuple[int, int]:
        stats = [file.stat() for file in (folder / "items").rglob("*") if file.is_file()]
        return sum(stat.st_size for stat in stats), 512 * sum(stat.st_blocks for stat in stats)

    assert sizes(tmp_path / "copy")[0] == sizes(store.folder)[0]
    assert sizes(tmp_path / "copy")[1] < 16 * 2**20


async def test_a_snapshot_at_rest(store: EdgeStore, layout: CollectionLayout, tmp_path: Path) -> None:
    """A store that nobody has open is copied too; one that someone else has is refused, and one that is not there."""
    await store.put("items", [point(7)])
    other = EdgeStore(store.folder)
    with pytest.raises(StoreInUse):
        await other.snapshot(tmp_path / "copy")
    await store.close()
    await other.snapshot(tmp_path / "copy")
    copy = EdgeStore(tmp_path / "copy")
    await copy.open([layout], create=False)
    assert await copy.count("items", SearchFilter()) == 1
    await copy.close()
    with pytest.raises(ConfigurationError, match="There is no store"):
        await EdgeStore(tmp_path / "nothing").snapshot(tmp_path / "of nothing")
    assert not (tmp_path / "nothing").exists()


async def test_a_snapshot_cut_short_is_none(store: EdgeStore, tmp_path: Path) -> None:
    """Where it cannot be written nothing is left under its name, the store works on, and what exists is left alone."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await store.snapshot(tmp_path / "file" / "copy")
    with pytest.raises(ConfigurationError, match="exists"):
        await store.snapshot(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
    await store.put("items", [point(1)])


async def test_kill_loses_nothing_acknowledged(tmp_path: Path, layout: CollectionLayout) -> None:
    """A kill -9 right after a write was acknowledged: every point is there, with its vector."""
    writer = await start(WRITER + CRASHING, tmp_path / "store")
    assert writer.stdout
    assert await writer.stdout.readline() == b"300\n"
    writer.send_signal(signal.SIGKILL)
    await writer.wait()
    store = EdgeStore(tmp_path / "store")
    await store.open([layout])
    found = await store.retrieve("items", [UUID(int=number) for number in range(1, 301)], vectors=["content"])
    await store.close()
    assert [found[UUID(int=number)].payload["number"] for number in range(1, 301)] == list(range(1, 301))
    for number in range(1, 301):
        np.testing.assert_array_equal(found[UUID(int=number)].vectors["content"], np.full(4, number, np.float32))


async def test_a_full_disk_is_a_store_unavailable(tmp_path: Path, layout: CollectionLayout) -> None:
    """The engine's refusal says its reason and where to look; as soon as there is space the same process writes on."""
    writer = await start(WRITER + FILLING, tmp_path / "store")
    said, _ = await writer.communicate()
    assert b"The embedded store failed" in said
    assert b"has space" in said
    store = EdgeStore(tmp_path / "store")
    await store.open([layout])
    assert await store.count("items", SearchFilter()) == 70
    await store.close()


async def test_a_disk_almost_full_is_written_no_further(store: EdgeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the space is not used up, for the engine would die of it; reading goes on."""
    await store.put("items", [point(1)])
    monkeypatch.setattr("penchant.profile.store.edge_shard.LEAST_FREE", 2**62)
    with pytest.raises(StoreUnavailable, match="free on the disk"):
        await store.put("items", [point(2)])
    assert await store.count("items", SearchFilter()) == 1
    monkeypatch.undo()
    await store.put("items", [point(2)])
    assert await store.count("items", SearchFilter()) == 2


async def test_the_log_stays_bounded(store: EdgeStore) -> None:
    """Of 330 MB written, again and again to a few points, no more remains than what came since the last flushes."""
    points = [point(number) for number in range(64)]
    for _ in range(5 * FLUSH_POINTS // 64):
        await store.put(
            "items", [msgspec.structs.replace(p, payload={**p.payload, "fill": "x" * 16_000}) for p in points]
        )
    log = sum(file.stat().st_size for file in (store.folder / "items" / "wal").rglob("*") if file.is_file())
    assert log < 160 * 2**20


async def test_the_event_loop_stays_free(store: EdgeStore) -> None:
    """Other tasks run between the slices of a large write."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    await store.write("items", [Write(point=point(number), expected=None) for number in range(640)])
    counting.cancel()
    assert turns >= 10


async def test_values_that_are_no_json_are_the_callers_mistake(store: EdgeStore) -> None:
    """Retrying would not help, hence no StoreUnavailable."""
    wrong = point(1)
    wrong.payload["number"] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        await store.put("items", [wrong])


async def test_the_engines_errors_are_mapped(store: EdgeStore) -> None:
    """Whatever else the engine refuses carries its words, and a write that failed has the shard loaded anew."""
    await store.run(store.collections["items"].shard.close)
    with pytest.raises(StoreUnavailable, match="not initialized"):
        await store.put("items", [point(1)])
    await store.put("items", [point(1)])
    assert await store.count("items", SearchFilter()) == 1


async def start(script: str, folder: Path) -> asyncio.subprocess.Process:
    """Runs a script's `main` on a folder in a process of its own."""
    code = f"{script}\nasyncio.run(main(sys.argv[1]))"
    return await asyncio.create_subprocess_exec(sys.executable, "-c", code, str(folder), stdout=asyncio.subprocess.PIPE)
