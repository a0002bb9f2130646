"""The knowledge agent: facts on the topic become facts of the graph, through the real application and past a crash."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from penchant.parts import build_parts
from penchant.profile.graph import Fact, Graph
from penchant.profile.store.base import StoreUnavailable
from penchant.profile.store.edge import EdgeStore
from penchant.streams.app import knowledge_group
from penchant.streams.connection import open_producer
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.events import Triple
from penchant.streams.knowledge import KnowledgeKeeper, triple_key
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from penchant.streams.worker import serve

WAIT_S = 90.0


def fact(number):
    """A fact of one of a few heads."""
    return Triple(head=f"film-{number % 4}", relation="directed by", tail=f"person-{number}")


def record(value, key=None, offset=0):
    """A record of the topic."""
    return Record(topic="triples", partition=0, offset=offset, timestamp=1_750_000_000_000, key=key, value=value)


class Letterbox:
    """Takes dead letters, and writes down their reasons."""

    def __init__(self):
        self.reasons = []

    async def send(self, outputs):
        """Takes them."""
        self.reasons += [output.headers["penchant-reason"].decode() for output in outputs]


@pytest.fixture
async def graph(tmp_path):
    """A graph on an embedded store."""
    store = EdgeStore(tmp_path / "store")
    graph = Graph(store, "triples")
    await store.open([graph.layout])
    yield graph
    await store.close()


async def test_facts_are_added_and_taken_back_by_their_key(graph):
    """As often as a record comes; a null value takes back the one fact that its key names."""
    keeper = KnowledgeKeeper(graph, Letterbox(), "dead-letters")
    one, other = fact(0), fact(4)
    stated = [record(msgspec.msgpack.encode(triple), triple_key(triple)) for triple in (one, other)]
    taken_back = record(None, triple_key(one), offset=1)
    for same in (*stated, *stated, taken_back, taken_back, *stated):  # replayed, older records change nothing
        await keeper.keep(same)
    await keeper.keep(record(msgspec.json.encode(fact(8))))  # without a key, as JSON
    about = {found.tail async for found in graph.about("film-0")}
    assert about == {"person-4", "person-8"}
    assert await graph.count() == 2


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (None, None, "key-mismatch"),
        (None, b"film", "key-mismatch"),
        (None, b'["a", "b"]', "key-mismatch"),
        (None, b'["a", "b", ""]', "key-mismatch"),
        (None, b"\xff", "key-mismatch"),
        (msgspec.msgpack.encode(fact(1)), b"film-1", "key-mismatch"),
        (msgspec.msgpack.encode({"head": "a", "relation": "b"}), None, "invalid"),
        (b"\x81", None, "malformed"),
        (b"", None, "empty"),
    ],
)
async def test_what_is_no_fact_is_a_dead_letter(graph, value, key, reason):
    """With its reason, and the graph stays as it was."""
    letters = Letterbox()
    await KnowledgeKeeper(graph, letters, "dead-letters").keep(record(value, key))
    assert letters.reasons == [reason]
    assert await graph.count() == 0


async def test_a_fact_is_kept_though_the_store_fails_for_a_while(graph, monkeypatch):
    """Keeping returns when the fact is in the store, and not before."""
    monkeypatch.setattr("penchant.streams.knowledge.PAUSE_S", 0.01)
    add, failures = graph.add, iter([True, True])

    async def unsteady(one, version):
        if next(failures, False):
            raise StoreUnavailable("away")
        await add(one, version)

    monkeypatch.setattr(graph, "add", unsteady)
    await KnowledgeKeeper(graph, Letterbox(), "dead-letters").keep(record(msgspec.msgpack.encode(fact(1))))
    assert await graph.count() == 1


def send(settings, records, compression="lz4"):
    """Sends keys and values to the topic."""
    options = settings.kafka.options | {"compression.type": compression}
    kafka = settings.kafka.model_copy(update={"options": options})
    producer = open_producer(settings.model_copy(update={"kafka": kafka}), delivery_timeout_ms=20_000)
    for key, value in records:
        producer.produce(settings.prefixed(Topic.TRIPLES), value, key, on_delivery=delivered)
    assert producer.flush(20) == 0


def delivered(error, _):
    """Fails the test where a record was refused."""
    assert error is None


def facts(numbers):
    """Facts as keys and values."""
    return [(triple_key(fact(number)), msgspec.msgpack.encode(fact(number))) for number in numbers]


async def known(settings):
    """The facts in the store, once nobody else has it."""
    parts = build_parts(settings)
    await parts.open()
    found = set()
    for head in range(4):
        found |= {one async for one in parts.graph.about(f"film-{head}")}
    await parts.store.close()
    return found


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
async def test_facts_on_the_topic_become_facts_of_the_graph(settings, compression):
    """Through the real application, however they are compressed; bad ones between them are dead letters."""
    bad = [(b"film-9", msgspec.msgpack.encode(fact(9))), (b"film", b"\x81")]
    await asyncio.to_thread(send, settings, [*facts(range(20)), *bad, (triple_key(fact(3)), None)], compression)
    async with serve(settings, ("interest",)):
        await settled(settings)
    assert sorted(await asyncio.to_thread(dead_letters, settings)) == ["key-mismatch", "malformed"]
    kept = {fact(number) for number in range(20) if number != 3}
    assert await known(settings) == {Fact(one.head, one.relation, one.tail) for one in kept}


def dead_letters(settings):
    """The reasons on the dead letters' topic."""
    with TopicReader(settings, Topic.DEAD_LETTERS, from_beginning=True) as reader:
        return [DeadLetter.read(one).reason for one in reader.to_end()]


async def test_facts_survive_the_death_of_the_worker(settings, tmp_path):
    """Killed in the midst of facts and started again, the worker knows all of them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PENCHANT_NAMESPACE": settings.namespace,
        "PENCHANT_DATA_DIR": str(settings.data_dir),
        "PENCHANT_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
        "PENCHANT_KAFKA__PARTITIONS": "3",
        "PENCHANT_WORKER__HTTP_PORT": str(port),
    }
    await asyncio.to_thread(send, settings, facts(range(400)))

    async def kept(process, least):
        """Waits until the worker has kept so many."""
        deadline = time.monotonic() + WAIT_S
        async with httpx.AsyncClient() as client:
            while time.monotonic() < deadline:
                assert process.poll() is None, (tmp_path / "log").read_text()[-3_000:]
                try:
                    text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                except httpx.TransportError:
                    text = ""
                counts = [line.rpartition(" ")[2] for line in text.splitlines() if KEPT in line]
                if sum(map(float, counts)) >= least:
                    return
                await asyncio.sleep(0.05)
        pytest.fail((tmp_path / "log").read_text()[-3_000:])

    def start():
        with (tmp_path / "log").open("a") as log:
            command = [sys.executable, "-m", "penchant.cli", "worker", "--lane", "interest"]
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    process = start()
    try:
        await kept(process, 50)
        process.kill()
        process.wait()
        await asyncio.to_thread(send, settings, facts(range(400, 500)))
        process = start()
        await kept(process, 100)
        await settled(settings)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    expected = {fact(number) for number in range(500)}
    assert await known(settings) == {Fact(one.head, one.relation, one.tail) for one in expected}


KEPT = 'penchant_records_total{lane="knowledge"'


async def settled(settings):
    """Waits until the agent's group has committed all of the topic."""
    deadline = time.monotonic() + WAIT_S
    while await asyncio.to_thread(lag, settings):
        assert time.monotonic() < deadline, "facts are left on the topic"
        await asyncio.sleep(0.2)


def lag(settings):
    """Records of the topic that the agent's group has not committed."""
    group = knowledge_group(settings)
    consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": group})
    wanted = [TopicPartition(settings.prefixed(Topic.TRIPLES), number) for number in range(3)]
    try:
        return sum(
            consumer.get_watermark_offsets(one, 20)[1] - max(one.offset, 0) for one in consumer.committed(wanted, 20)
        )
    except KafkaException:  # the broker has only just begun to coordinate the group
        return len(wanted)
    finally:
        consumer.close()
