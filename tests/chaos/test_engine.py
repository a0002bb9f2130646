"""What the stand-in for a Qdrant server promises beyond the contract of stores, which it passes as one of them."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

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
from penchant.profile.store.qdrant import QdrantStore
from tests.chaos.engine import Engine

OPEN_TIMEOUT_S = 30.0
LAYOUT = CollectionLayout(name="items", vectors={"content": 4}, indexes={"kind": "keyword"}, fingerprint="f1")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine of this test's own."""
    with Engine(tmp_path / "engine") as started:
        yield started


@asynccontextmanager
async def opened(engine: Engine) -> AsyncIterator[QdrantStore]:
    """A store on the engine. Channels of one process share their pauses between attempts to connect: so it waits."""
    client = AsyncQdrantClient(
        url=engine.url, grpc_port=engine.port, prefer_grpc=True, check_compatibility=False, timeout=10
    )
    store = QdrantStore(client)
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while not store.layouts:
        try:
            await store.open([LAYOUT])
        except StoreUnavailable:
            assert time.monotonic() < deadline, "the engine cannot be reached"
            await asyncio.sleep(0.05)
    yield store
    await store.close()


def writes(count: int) -> list[Write]:
    """Points to insert, each with its number in the payload and in its vector."""
    points = [
        Point(
            id=UUID(int=number),
            payload={"number": number, TOKEN: new_token()},
            vectors={"content": np.full(4, number, np.float32)},
        )
        for number in range(1, count + 1)
    ]
    return [Write(point=point, expected=None) for point in points]


@pytest.mark.parametrize("ending", ["stop", "kill"])
async def test_a_restart_continues_where_it_ended(engine: Engine, ending: str) -> None:
    """On the same port, whether told to stop or killed: all that was acknowledged is there, tokens included."""
    port, before = engine.port, writes(300)
    async with opened(engine) as store:
        assert len(await store.write("items", before)) == 300
        if ending == "stop":
            assert engine.stop() == 0
        else:
            engine.kill()
        with pytest.raises(StoreUnavailable):
            await store.count("items", SearchFilter())
    engine.start()
    assert engine.port == port
    async with opened(engine) as store:
        found = await store.retrieve("items", [write.point.id for write in before], vectors=["content"])
        for write in before:
            assert found[write.point.id].payload == write.point.payload
            np.testing.assert_array_equal(found[write.point.id].vectors["content"], write.point.vectors["content"])
        late = Point(id=UUID(int=1), payload={TOKEN: new_token()})
        assert await store.write("items", [Write(point=late, expected=before[0].point.token)]) == {late.id}


async def test_a_creation_cut_short_is_begun_anew(engine: Engine) -> None:
    """What a crash left of a collection in the making is never taken for one."""
    engine.kill()
    (engine.folder / "collections" / "items" / "segments" / "half").mkdir(parents=True)
    engine.start()
    async with opened(engine) as store:
        assert await store.count("items", SearchFilter()) == 0


async def test_writers_of_several_connections_lose_nothing(engine: Engine) -> None:
    """Four clients count up one point by compare and set: every write that was reported as standing counts."""
    name = UUID(int=1)
    async with opened(engine) as first, opened(engine) as second, opened(engine) as third, opened(engine) as fourth:
        await first.put("items", [Point(id=name, payload={"count": 0, TOKEN: new_token()})])

        async def count_up(store: QdrantStore) -> None:
            done = 0
            while done < 25:
                held = (await store.retrieve("items", [name]))[name]
                new = Point(id=name, payload={"count": held.payload["count"] + 1, TOKEN: new_token()})
                done += len(await store.write("items", [Write(point=new, expected=held.token)]))

        await asyncio.gather(*map(count_up, (first, second, third, fourth)))
        # A write that stood may have been replaced before it was read back: it counts, though its author goes on.
        assert (await first.retrieve("items", [name]))[name].payload["count"] >= 100


async def test_what_it_does_not_speak_is_refused(engine: Engine) -> None:
    """A condition that it would have to ignore, a method, a collection that is not there: never a wrong answer."""
    async with opened(engine) as store:
        ranged = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(gt=1))])
        with pytest.raises(Exception, match="does not know the condition"):
            await store.client.count("items", count_filter=ranged)
        with pytest.raises(Exception, match="not implemented"):
            await store.client.delete("items", [1])
        with pytest.raises(ConfigurationError, match="doesn't exist"):
            await store.count("others", SearchFilter())
        with pytest.raises(Exception, match="already exists"):
            await store.client.create_collection(
                "items", vectors_config={"content": models.VectorParams(size=4, distance=models.Distance.DOT)}
            )
