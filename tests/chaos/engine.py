"""A stand-in for a Qdrant server: Qdrant's engine, embedded in a process of its own, behind Qdrant's gRPC protocol.

The engine is the real one (`qdrant_edge`, what a server's shard is made of) and so is the wire: the messages are
those of the client's protocol, and conditions, update modes and tokens are decided by the engine. What lies
between them is ours, and it is small: no replicas, no consensus, no optimiser, no HTTP, and only the methods that
`penchant.profile.store.qdrant` calls. All requests run in one thread, one behind the other, as a shard's update
queue runs them. Where `PENCHANT_TEST_QDRANT_URL` names a real server, tests use that one as well or instead.

    python -m tests.chaos.engine --data FOLDER [--port PORT]

It prints the port once it listens. What it has acknowledged is in the engine's write-ahead log: a kill -9 loses
nothing of it. On SIGTERM it closes its shards.
"""

import argparse
import shutil
import signal
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import UUID

import grpc
import numpy as np
import qdrant_edge as edge
from qdrant_client import grpc as protocol
from qdrant_client.conversions.conversion import grpc_to_payload, payload_to_grpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.grpc.qdrant_pb2_grpc import QdrantServicer, add_QdrantServicer_to_server

from tests.chaos.child import Child

__all__ = ["Engine"]

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
VERSION = "1.19.0"  # the first server that decides conditional writes as this engine does
STOP_GRACE_S = 5.0
FLUSH_POINTS = 4_096  # the engine shortens its log when it flushes
MADE_BY = "created.bin"  # the request that a collection was created by
UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

DISTANCES = {protocol.Distance.Dot: edge.Distance.Dot}
MODES = {
    protocol.UpdateMode.Upsert: edge.UpdateMode.Upsert,
    protocol.UpdateMode.InsertOnly: edge.UpdateMode.InsertOnly,
    protocol.UpdateMode.UpdateOnly: edge.UpdateMode.UpdateOnly,
}
DIRECTIONS = {protocol.Direction.Asc: edge.Direction.Asc, protocol.Direction.Desc: edge.Direction.Desc}
INDEXES = {
    protocol.FieldType.FieldTypeKeyword: edge.PayloadSchemaType.Keyword,
    protocol.FieldType.FieldTypeInteger: edge.PayloadSchemaType.Integer,
    protocol.FieldType.FieldTypeBool: edge.PayloadSchemaType.Bool,
}
INDEX_TYPES = {  # by name: the engine's own values do not hash alike
    str(edge.PayloadSchemaType.Keyword): protocol.PayloadSchemaType.Keyword,
    str(edge.PayloadSchemaType.Integer): protocol.PayloadSchemaType.Integer,
    str(edge.PayloadSchemaType.Bool): protocol.PayloadSchemaType.Bool,
}

Answer = TypeVar("Answer")


class Engine(Child):
    """The engine's process, as its harness sees it: started, killed and started again on the same folder and port.

    Args:
        folder: where its data are, and its log.

    Attributes:
        port: where it listens; chosen at the first start and kept.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = 0

    @property
    def url(self) -> str:
        """For `store.url`; the port goes beside it, as `store.grpc_port`."""
        return f"http://{HOST}"

    @property
    def log_file(self) -> Path:
        """Where it complains."""
        return self.folder / "engine.log"

    def start(self) -> None:
        """Starts it, and returns when it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "tests.chaos.engine", f"--data={self.folder}", f"--port={self.port}"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        assert self.process.stdout
        with self.process.stdout as out:
            said = out.readline()
        assert said, f"the engine ended with {self.process.wait()}:\n{self.log_file.read_text()}"
        self.port = int(said)


class Refused(Exception):
    """A request that cannot be answered.

    Args:
        code: the status that the client sees.
        words: what it is told.
    """

    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code = code


class Collection:
    """One shard, with the request that created it."""

    def __init__(self, path: Path) -> None:
        self.made = protocol.CreateCollection.FromString((path / MADE_BY).read_bytes())
        self.shard = edge.EdgeShard.load(str(path))
        self._unflushed = 0

    def update(self, operation: edge.UpdateOperation, points: int) -> None:
        """Applies an operation on so many points; flushes when enough have gathered."""
        self.shard.update(operation)
        self._unflushed += points
        if self._unflushed >= FLUSH_POINTS:
            self.shard.flush()
            self._unflushed = 0

    def close(self) -> None:
        """Flushes and lets go of the files."""
        self.shard.flush()
        self.shard.close()


class Collections:
    """The collections of a folder, one sub-folder each; those that are there are loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._open = {path.parent.name: Collection(path.parent) for path in folder.glob(f"*/{MADE_BY}")}

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def __getitem__(self, name: str) -> Collection:
        if name not in self._open:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"Not found: Collection `{name}` doesn't exist!")
        return self._open[name]

    def create(self, made: protocol.CreateCollection) -> None:
        """Creates a collection. The request is written last, so that one cut short is never taken for whole."""
        name = made.collection_name
        if name in self:
            raise Refused(grpc.StatusCode.ALREADY_EXISTS, f"Wrong input: Collection `{name}` already exists!")
        path = self._folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        vectors = {
            vector: edge.EdgeVectorParams(params.size, known(DISTANCES, params.distance))
            for vector, params in made.vectors_config.params_map.map.items()
        }
        sparse = {vector: edge.EdgeSparseVectorParams() for vector in made.sparse_vectors_config.map}
        edge.EdgeShard.create(str(path), edge.EdgeConfig(vectors=vectors, sparse_vectors=sparse)).close()
        (path / MADE_BY).write_bytes(made.SerializeToString())
        self._open[name] = Collection(path)

    def close(self) -> None:
        """Closes all of them."""
        while self._open:
            self._open.popitem()[1].close()


def answering(answer: Callable[[Any, Any], Answer]) -> Callable[[Any, Any, grpc.ServicerContext], Answer]:
    """A method of the protocol from one that raises: what it raises becomes a status, as a server's would be."""

    @wraps(answer)
    def call(service: Any, request: Any, context: grpc.ServicerContext) -> Answer:
        try:
            return answer(service, request)
        except Refused as refusal:
            abort(context, refusal.code, str(refusal))
        except (TypeError, ValueError) as error:
            abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Exception as error:  # noqa: BLE001  the engine raises bare exceptions, for a full disk among others
            abort(context, grpc.StatusCode.INTERNAL, str(error))

    return call


def abort(context: grpc.ServicerContext, code: grpc.StatusCode, words: str) -> NoReturn:
    """Answers with a status."""
    context.abort(code, words)
    raise AssertionError("abort raises")


class Root(QdrantServicer):
    """What a client asks first."""

    @answering
    def HealthCheck(self, _: protocol.HealthCheckRequest) -> protocol.HealthCheckReply:  # noqa: N802  the protocol's
        """Says which version's behaviour to expect."""
        return protocol.HealthCheckReply(title="Qdrant's engine, served for tests", version=VERSION)


class CollectionsService(CollectionsServicer):
    """Creating collections, and looking at them."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    @answering
    def CollectionExists(  # noqa: N802  the protocol's
        self, request: protocol.CollectionExistsRequest
    ) -> protocol.CollectionExistsResponse:
        """Whether there is one of that name."""
        exists = request.collection_name in self._collections
        return protocol.CollectionExistsResponse(result=protocol.CollectionExists(exists=exists))

    @answering
    def Create(self, request: protocol.CreateCollection) -> protocol.CollectionOperationResponse:  # noqa: N802  its name
        """Creates one, of named vectors compared by dot product."""
        self._collections.create(request)
        return protocol.CollectionOperationResponse(result=True)

    @answering
    def Get(self, request: protocol.GetCollectionInfoRequest) -> protocol.GetCollectionInfoResponse:  # noqa: N802  its name
        """Vectors and indexes as they are; the rest of the answer, which clients insist on, is a server's defaults."""
        collection = self._collections[request.collection_name]
        state = collection.shard.info()
        config = protocol.CollectionConfig(
            params=protocol.CollectionParams(
                shard_number=1,
                vectors_config=collection.made.vectors_config,
                sparse_vectors_config=collection.made.sparse_vectors_config,
            ),
            hnsw_config=protocol.HnswConfigDiff(m=16, ef_construct=100, full_scan_threshold=10_000),
            optimizer_config=protocol.OptimizersConfigDiff(
                deleted_threshold=0.2, vacuum_min_vector_number=1_000, default_segment_number=0, flush_interval_sec=5
            ),
            wal_config=protocol.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        )
        info = protocol.CollectionInfo(
            status=protocol.CollectionStatus.Green,
            optimizer_status=protocol.OptimizerStatus(ok=True),
            segments_count=state.segments_count,
            points_count=state.points_count,
            config=config,
            payload_schema={
                field: protocol.PayloadSchemaInfo(data_type=INDEX_TYPES[str(index.data_type)], points=index.points)
                for field, index in state.payload_schema.items()
            },
        )
        return protocol.GetCollectionInfoResponse(result=info)


class PointsService(PointsServicer):
    """Writing points, and finding them."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    @answering
    def CreateFieldIndex(  # noqa: N802  the protocol's
        self, request: protocol.CreateFieldIndexCollection
    ) -> protocol.PointsOperationResponse:
        """Indexes a payload field."""
        schema: Any = known(INDEXES, request.field_type)
        if request.field_index_params.HasField("integer_index_params"):
            wanted = request.field_index_params.integer_index_params
            schema = edge.IntegerIndexParams(lookup=wanted.lookup, range=wanted.range)
        operation = edge.UpdateOperation.create_field_index(request.field_name, schema)
        self._collections[request.collection_name].update(operation, 0)
        return completed()

    @answering
    def Upsert(self, request: protocol.UpsertPoints) -> protocol.PointsOperationResponse:  # noqa: N802  the protocol's
        """Writes points, on condition where there is one. "Completed" is said whether or not it applied."""
        points = [
            edge.Point(
                point_id(point.id),
                {name: named(vector) for name, vector in point.vectors.vectors.vectors.items()},
                grpc_to_payload(point.payload),
            )
            for point in request.points
        ]
        condition = to_filter(request.update_filter) if request.HasField("update_filter") else None
        operation = edge.UpdateOperation.upsert_points(points, condition, known(MODES, request.update_mode))
        self._collections[request.collection_name].update(operation, len(points))
        return completed()

    @answering
    def Get(self, request: protocol.GetPoints) -> protocol.GetResponse:  # noqa: N802  the protocol's
        """Points by their ids."""
        records = self._collections[request.collection_name].shard.retrieve(
            [point_id(one) for one in request.ids], fields(request.with_payload), names(request.with_vectors)
        )
        return protocol.GetResponse(result=map(retrieved, records))

    @answering
    def QueryBatch(self, request: protocol.QueryBatchPoints) -> protocol.QueryBatchResponse:  # noqa: N802  the protocol's
        """Nearest points, exactly."""
        queries = [
            edge.QueryRequest(
                query.limit,
                query=edge.Query.Nearest(named(query.query.nearest), query.using),
                filter=to_filter(query.filter),
                with_payload=fields(query.with_payload),
            )
            for query in request.query_points
        ]
        answers = self._collections[request.collection_name].shard.query_batch(edge.QueryBatchRequest(queries))
        return protocol.QueryBatchResponse(result=[protocol.BatchResult(result=map(scored, hits)) for hits in answers])

    @answering
    def Scroll(self, request: protocol.ScrollPoints) -> protocol.ScrollResponse:  # noqa: N802  the protocol's
        """A page of the points that pass a filter."""
        page = edge.ScrollRequest(
            offset=point_id(request.offset) if request.HasField("offset") else None,
            limit=request.limit,
            filter=to_filter(request.filter),
            with_payload=fields(request.with_payload),
            with_vector=names(request.with_vectors),
            order_by=ordering(request.order_by) if request.HasField("order_by") else None,
        )
        records, following = self._collections[request.collection_name].shard.scroll(page)
        return protocol.ScrollResponse(
            result=map(retrieved, records), next_page_offset=None if following is None else wire_id(following)
        )

    @answering
    def Count(self, request: protocol.CountPoints) -> protocol.CountResponse:  # noqa: N802  the protocol's
        """How many points pass a filter, exactly."""
        wanted = edge.CountRequest(exact=True, filter=to_filter(request.filter))
        count = self._collections[request.collection_name].shard.count(wanted)
        return protocol.CountResponse(result=protocol.CountResult(count=count))


def known(table: Mapping[Any, Answer], value: Any) -> Answer:
    """What `value` is to the engine."""
    if value not in table:
        raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"This engine's server does not know the option {value}")
    return table[value]


def completed() -> protocol.PointsOperationResponse:
    """The answer to an update."""
    return protocol.PointsOperationResponse(result=protocol.UpdateResult(status=protocol.UpdateStatus.Completed))


def named(vector: protocol.Vector | protocol.VectorInput) -> Any:
    """A vector in the engine's terms, dense or sparse."""
    if vector.HasField("sparse"):
        return edge.SparseVector(list(vector.sparse.indices), list(vector.sparse.values))
    return packed(vector.dense)


def packed(vector: protocol.DenseVector) -> Any:
    """The vector's float32 components, copied whole from the message's bytes, where they stand at the end."""
    components = array("f")
    size = components.itemsize * len(vector.data)
    components.frombytes(vector.SerializeToString()[-size:] if size else b"")
    return components


def point_id(wire: protocol.PointId) -> str | int:
    """An id in the engine's terms."""
    return wire.uuid if wire.HasField("uuid") else wire.num


def wire_id(point: int | str | UUID) -> protocol.PointId:
    """An id in the protocol's terms."""
    return protocol.PointId(num=point) if isinstance(point, int) else protocol.PointId(uuid=str(point))


def fields(selector: protocol.WithPayloadSelector) -> bool | list[str]:
    """The payload fields to return: all, none or those named."""
    return list(selector.include.fields) if selector.HasField("include") else selector.enable


def names(selector: protocol.WithVectorsSelector) -> bool | list[str]:
    """The vectors to return, likewise."""
    return list(selector.include.names) if selector.HasField("include") else selector.enable


def ordering(wire: protocol.OrderBy) -> edge.OrderBy:
    """What orders points, in the engine's terms."""
    return edge.OrderBy(wire.key, known(DIRECTIONS, wire.direction))


def to_filter(wire: protocol.Filter) -> edge.Filter:
    """A filter in the engine's terms."""
    return edge.Filter(must=conditions(wire.must), should=conditions(wire.should), must_not=conditions(wire.must_not))


def conditions(wire: Iterable[protocol.Condition]) -> list[Any] | None:
    """Conditions in the engine's terms; None where there is none."""
    return [to_condition(one) for one in wire] or None


def to_condition(wire: protocol.Condition) -> Any:
    """A condition in the engine's terms: ids, equality and nested filters are all that penchant uses."""
    match wire.WhichOneof("condition_one_of"):
        case "has_id":
            return edge.HasIdCondition({point_id(one) for one in wire.has_id.has_id})
        case "filter":
            return to_filter(wire.filter)
        case "field" if (kind := wire.field.match.WhichOneof("match_value")) in {"keyword", "integer", "boolean"}:
            value: Any = getattr(wire.field.match, kind)
            # The engine takes Python's truth values for the whole numbers 0 and 1, and numpy's for what they are.
            exact: Any = np.bool_(value) if isinstance(value, bool) else value
            return edge.FieldCondition(wire.field.key, match=edge.MatchValue(exact))
        case other:
            raise Refused(grpc.StatusCode.UNIMPLEMENTED, f"This engine's server does not know the condition {other}")


def retrieved(record: edge.Record) -> protocol.RetrievedPoint:
    """A point that the engine returned, in the protocol's terms."""
    vectors = None
    if isinstance(record.vector, dict):
        stored = {name: output(vector) for name, vector in record.vector.items()}
        vectors = protocol.VectorsOutput(vectors=protocol.NamedVectorsOutput(vectors=stored))
    return protocol.RetrievedPoint(
        id=wire_id(record.id), payload=payload_to_grpc(record.payload or {}), vectors=vectors
    )


def output(vector: Any) -> protocol.VectorOutput:
    """A vector that the engine returned, likewise."""
    if isinstance(vector, edge.SparseVector):
        return protocol.VectorOutput(sparse=protocol.SparseVector(indices=vector.indices, values=vector.values))
    return protocol.VectorOutput(dense=protocol.DenseVector(data=vector))


def scored(hit: edge.ScoredPoint) -> protocol.ScoredPoint:
    """A point that a search found, likewise."""
    return protocol.ScoredPoint(
        id=wire_id(hit.id), payload=payload_to_grpc(hit.payload or {}), score=hit.score, version=hit.version
    )


def serve(folder: Path, port: int) -> None:
    """Serves a folder's collections until SIGTERM or SIGINT."""
    stopping = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopping)  # before any thread starts: this one waits for them
    collections = Collections(folder / "collections")
    server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="engine"), options=UNBOUNDED)
    add_QdrantServicer_to_server(Root(), server)  # type: ignore[no-untyped-call]
    add_CollectionsServicer_to_server(CollectionsService(collections), server)  # type: ignore[no-untyped-call]
    add_PointsServicer_to_server(PointsService(collections), server)  # type: ignore[no-untyped-call]
    bound = server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    print(bound, flush=True)  # noqa: T201  what the starter waits for
    signal.sigwait(stopping)
    server.stop(STOP_GRACE_S).wait()
    collections.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serves Qdrant's engine over Qdrant's gRPC protocol.")
    parser.add_argument("--data", type=Path, required=True, help="folder")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    arguments = parser.parse_args()
    serve(arguments.data, arguments.port)
