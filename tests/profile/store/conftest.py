"""The stores that the contract's cases run on.

Embedded; the client's local mode; over gRPC the same engine as a server's, which decides conditional writes; and a
server where one is named.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from qdrant_client import AsyncQdrantClient

from penchant.profile.store.base import CollectionLayout, Store
from penchant.profile.store.edge import EdgeStore
from penchant.profile.store.qdrant import QdrantStore
from tests.chaos.engine import Engine

SERVER_VARIABLE = "PENCHANT_TEST_QDRANT_URL"


@dataclass
class Backend:
    """Where data lies, and how to reach it.

    Attributes:
        connect: a new store over the same data, not opened.
        exclusive: only one store may be open at a time.
    """

    connect: Callable[[], Store]
    exclusive: bool
    stores: list[Store] = field(default_factory=list)

    async def open(self, *layouts: CollectionLayout) -> Store:
        """Another opened store over the same data; closes the one before where there may be only one."""
        if self.exclusive:
            await self.close()
        store = self.connect()
        await store.open(layouts)
        self.stores.append(store)
        return store

    async def close(self) -> None:
        """Closes what was opened."""
        while self.stores:
            await self.stores.pop().close()


@pytest.fixture
def layout() -> CollectionLayout:
    """Small, with two vectors, a sparse one and an index of each kind."""
    return CollectionLayout(
        name=f"test-{uuid4().hex}.items",
        vectors={"content": 8, "short": 3},
        sparse=("after",),
        indexes={"kind": "keyword", "age": "integer", "hidden": "bool"},
        fingerprint="f1",
    )


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The engine behind gRPC, in a process of its own."""
    with Engine(tmp_path_factory.mktemp("engine")) as started:
        yield started


@pytest.fixture(
    params=[
        "edge",
        "engine",
        pytest.param("memory", marks=pytest.mark.filterwarnings("ignore:Payload indexes have no effect")),
        *(["server"] if SERVER_VARIABLE in os.environ else []),
    ]
)
async def backend(request: pytest.FixtureRequest, tmp_path: Path, layout: CollectionLayout) -> AsyncIterator[Backend]:
    """Each place where data may lie, empty."""
    async with AsyncExitStack() as stack:
        if request.param == "edge":
            made = Backend(lambda: EdgeStore(tmp_path / "store"), exclusive=True)
        elif request.param == "memory":
            client = AsyncQdrantClient(":memory:")
            made = Backend(lambda: QdrantStore(client), exclusive=False)
        elif request.param == "engine":
            started: Engine = request.getfixturevalue("engine")
            made = Backend(lambda: QdrantStore(engine_client(started)), exclusive=False)
        else:
            url = os.environ[SERVER_VARIABLE]
            made = Backend(lambda: QdrantStore(server_client(url)), exclusive=False)
            sweeper = server_client(url)
            stack.push_async_callback(sweeper.close)
            stack.push_async_callback(sweeper.delete_collection, layout.name)
        stack.push_async_callback(made.close)
        yield made


def engine_client(engine: Engine) -> AsyncQdrantClient:
    """A client of the engine behind gRPC."""
    return AsyncQdrantClient(url=engine.url, grpc_port=engine.port, prefer_grpc=True, check_compatibility=False)


def server_client(url: str) -> AsyncQdrantClient:
    """A client of the server under test."""
    return AsyncQdrantClient(url=url, prefer_grpc=True, check_compatibility=False)


@pytest.fixture
async def store(backend: Backend, layout: CollectionLayout) -> Store:
    """An opened store with one empty collection."""
    return await backend.open(layout)
