"""What the store on a server promises beyond the contract: errors that say whether waiting helps."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models
from qdrant_client import grpc as protocol

from penchant.errors import ConfigurationError, PenchantError
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    LayoutMismatch,
    Point,
    SearchFilter,
    StoreUnavailable,
    Write,
)
from penchant.profile.store.qdrant import QdrantStore

LAYOUT = CollectionLayout(name="items", vectors={"content": 4}, indexes={}, fingerprint="f1")
VECTOR = np.arange(4, dtype=np.float32)

Answer = Callable[[str, bytes, Any], Awaitable[bytes]]
ServerMaker = Callable[[Answer], Awaitable[QdrantStore]]


class Answering(grpc.GenericRpcHandler):
    """Passes every call, whatever its method, to one function."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        """The handler of one call."""

        async def handle(request: bytes, context: Any) -> bytes:
            return await self.answer(str(call.method), request, context)

        return grpc.unary_unary_rpc_method_handler(handle)


def done(status: Any) -> bytes:
    """The answer to an upsert."""
    result = protocol.UpdateResult(operation_id=1, status=status)
    return bytes(protocol.PointsOperationResponse(result=result).SerializeToString())


def remote(port: int) -> QdrantStore:
    """A store on the server at a loopback port."""
    client = AsyncQdrantClient(
        url="http://127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False, timeout=5
    )
    return QdrantStore(client)


@pytest.fixture
async def serving() -> AsyncIterator[ServerMaker]:
    """Starts gRPC servers that answer with a function, and gives stores on them."""
    async with AsyncExitStack() as stack:

        async def start(answer: Answer) -> QdrantStore:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers((Answering(answer),))
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            store = remote(port)
            stack.push_async_callback(store.close)
            return store

        yield start


async def test_an_unreachable_server_is_unavailable() -> None:
    """Nobody listens: waiting may help, and the message says what to look at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        store = remote(free.getsockname()[1])
        with pytest.raises(StoreUnavailable, match="does not answer") as failure:
            await store.open([LAYOUT])
        assert "`store.url`" in str(failure.value)
        with pytest.raises(StoreUnavailable):
            await store.count("items", SearchFilter())
        with pytest.raises(StoreUnavailable):
            await store.retrieve("items", [uuid4() for _ in range(600)])
        with pytest.raises(StoreUnavailable):
            await store.search("items", "content", [(np.ones(4, np.float32), SearchFilter())], limit=1)
        with pytest.raises(StoreUnavailable):
            async for _ in store.scroll("items", SearchFilter()):
                pass
        await store.close()


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, StoreUnavailable, "does not answer"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, StoreUnavailable, "does not answer"),
        (grpc.StatusCode.INTERNAL, StoreUnavailable, "does not answer"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, StoreUnavailable, "does not answer"),
        (grpc.StatusCode.UNAUTHENTICATED, ConfigurationError, "`store.api_key`"),
        (grpc.StatusCode.PERMISSION_DENIED, ConfigurationError, "`store.api_key`"),
        (grpc.StatusCode.NOT_FOUND, ConfigurationError, "start the worker again"),
    ],
)
async def test_a_servers_refusal_is_mapped(
    serving: ServerMaker, code: grpc.StatusCode, expected: type[PenchantError], words: str
) -> None:
    """By whether waiting may help; the server's own words are kept."""

    async def refuse(method: str, request: bytes, context: Any) -> bytes:
        await context.abort(code, "the server's own words")
        return b""

    store = await serving(refuse)
    with pytest.raises(expected, match="the server's own words") as failure:
        await store.open([LAYOUT])
    assert words in str(failure.value)


async def test_conditions_and_tokens_travel(serving: ServerMaker) -> None:
    """On the wire an insert is one, an update carries its condition, and a token of 63 bits stays whole."""
    token, former = 2**63 - 1, 2**62 + 1
    fresh, known = (Point(id=uuid4(), payload={TOKEN: token}, vectors={"content": VECTOR}) for _ in range(2))
    upserts: list[protocol.UpsertPoints] = []

    async def answer(method: str, request: bytes, context: Any) -> bytes:
        if method == "/qdrant.Points/Upsert":
            upserts.append(protocol.UpsertPoints.FromString(request))
            return done(protocol.UpdateStatus.Completed)
        assert method == "/qdrant.Points/Get"
        asked = protocol.GetPoints.FromString(request)
        stored = [
            protocol.RetrievedPoint(id=name, payload={TOKEN: protocol.Value(integer_value=token)}) for name in asked.ids
        ]
        return bytes(protocol.GetResponse(result=stored).SerializeToString())

    store = await serving(answer)
    store.layouts["items"] = LAYOUT
    writes = [Write(point=fresh, expected=None), Write(point=known, expected=former)]
    assert await store.write("items", writes) == {fresh.id, known.id}
    insert, update = upserts
    assert insert.wait
    assert update.wait
    assert insert.update_mode == protocol.UpdateMode.InsertOnly
    assert update.update_mode == protocol.UpdateMode.UpdateOnly
    assert [point.id.uuid for point in insert.points] == [str(fresh.id)]
    assert update.points[0].payload[TOKEN].integer_value == token
    has_id, has_token = update.update_filter.should[0].filter.must
    assert [name.uuid for name in has_id.has_id.has_id] == [str(known.id)]
    assert (has_token.field.key, has_token.field.match.integer) == (TOKEN, former)


async def test_a_write_that_is_only_queued_is_not_done(serving: ServerMaker) -> None:
    """A server that gives up waiting for itself has not stored a position."""

    async def answer(method: str, request: bytes, context: Any) -> bytes:
        return done(protocol.UpdateStatus.WaitTimeout)

    store = await serving(answer)
    store.layouts["items"] = LAYOUT
    with pytest.raises(StoreUnavailable, match="not applied a write in time"):
        await store.put("items", [Point(id=uuid4(), payload={})])


async def test_an_old_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ignores the condition of a conditional write would lose updates without a word."""
    client = AsyncQdrantClient(":memory:")

    async def old() -> models.VersionInfo:
        return models.VersionInfo(title="qdrant", version="1.15.4")

    monkeypatch.setattr(client, "info", old)  # no server of that age runs here
    store = QdrantStore(client)
    with pytest.raises(ConfigurationError, match=r"1\.15\.4; penchant needs 1\.19 or newer"):
        await store.open([LAYOUT])
    await store.close()


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect")
async def test_another_programs_collection_is_refused() -> None:
    """Points without a mark of their making are not penchant's, even where the dimensions fit."""
    client = AsyncQdrantClient(":memory:")
    vectors = {"content": models.VectorParams(size=4, distance=models.Distance.DOT)}
    await client.create_collection("items", vectors_config=vectors)
    await client.upsert("items", [models.PointStruct(id=1, vector={"content": [1, 2, 3, 4]}, payload={})])
    store = QdrantStore(client)
    with pytest.raises(LayoutMismatch, match="fingerprint f1 expected, none stored"):
        await store.open([LAYOUT])
    assert (await client.count("items")).count == 1
    await store.close()


async def test_a_nameless_vector_is_another_layout() -> None:
    """A collection with one unnamed vector is told apart like any other."""
    client = AsyncQdrantClient(":memory:")
    params = models.VectorParams(size=4, distance=models.Distance.DOT)
    await client.create_collection("items", vectors_config=params)
    store = QdrantStore(client)
    with pytest.raises(LayoutMismatch, match="vector content: dimension 4 expected, none stored"):
        await store.open([LAYOUT])
    await store.close()


async def test_a_snapshot_is_the_servers_business(tmp_path: Path) -> None:
    """Who asks for a copy of the files is told what to do instead."""
    store = QdrantStore(AsyncQdrantClient(":memory:"))
    with pytest.raises(ConfigurationError, match="Qdrant's own snapshots"):
        await store.snapshot(tmp_path / "copy")
    await store.close()
