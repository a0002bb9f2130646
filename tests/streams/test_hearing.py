"""Clients that a real broker has told of no brokers, as one does that has just started: all go on."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import TopicPartition

from penchant.broker import take_port
from penchant.settings import load_settings
from penchant.streams import hearing, starts, topics
from penchant.streams.connection import BrokerUnavailable, open_consumer, open_producer
from penchant.streams.hearing import Asking, Deaf, Hearing
from penchant.streams.lane import Lane
from penchant.streams.ledger import Handled
from penchant.streams.onlooker import TopicReader
from penchant.streams.publish import open_publisher
from penchant.streams.starts import Starts
from penchant.streams.topics import Topic, create_topics, describe_topics
from tests.streams.forgetful import ForgetfulBroker

SPELL_S = 4.0  # for longer than clients ask anew
WAIT_S = 90.0
# One of six hears nothing any more: among so many there is nearly always one.
LANES, READERS = 8, 8


@pytest.fixture
def broker(tmp_path, monkeypatch):
    """A broker that forgets on demand."""
    with ForgetfulBroker(tmp_path / "broker", monkeypatch) as found:
        yield found


@pytest.fixture
def behind(broker, tmp_path):
    """Settings of processes that use it."""
    kafka = {"bootstrap_servers": broker.bootstrap_servers, "partitions": 1, "transactions": False}
    found = load_settings(data_dir=tmp_path / "data", namespace="hearing", kafka=kafka)
    create_topics(found)
    return found


class Scribe:
    """A handler that writes down what it is given.

    Attributes:
        values: of records.
    """

    def __init__(self):
        self.values = []

    async def handle(self, batch):
        """Writes them down."""
        self.values += [record.value for record in batch.records]
        return Handled(outputs=[], touched={})

    async def refresh(self, due):
        """Nobody is owed a list."""
        assert not due
        return []

    async def release(self):
        """Nothing is remembered."""


class Listener:
    """A reader at work in a thread of its own; a context manager."""

    def __init__(self, reader):
        self.reader = reader
        self.values = []
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self):
        self._reading = self._pool.submit(self._read)
        return self

    def __exit__(self, *_):
        self._over.set()
        self._pool.shutdown()
        self._reading.result()

    def _read(self):
        with self.reader:
            while not self._over.is_set():
                for record in self.reader.read(0.1):
                    self.values.append(record.value)
                    if self.reader.group:
                        self.reader.done(record)


@pytest.mark.timeout(600)
async def test_all_go_on(behind, broker):
    """Lanes, onlookers and members of a group miss nothing, and questions are answered again."""
    settings = behind
    topic = settings.prefixed(Topic.CLICKS)
    handlers = [Scribe() for _ in range(LANES)]
    lanes = [lane_of(settings, topic, f"hearing-{number}", handler) for number, handler in enumerate(handlers)]
    groups = ["", "subscribers"] * (READERS // 2)
    groups = [group and f"{group}-{number}" for number, group in enumerate(groups)]
    asking = Asking(settings)

    def ask():
        return asking.ask(lambda admin: describe_topics(admin, [topic]))[topic].id

    topic_id = ask()
    with contextlib.ExitStack() as stack:
        listeners = [
            stack.enter_context(Listener(TopicReader(settings, Topic.CLICKS, group=group, from_beginning=True)))
            for group in groups
        ]
        tasks = [asyncio.create_task(lane.run()) for lane in lanes]

        async def heard(value):
            await until(lambda: all(value in one.values for one in [*handlers, *listeners]), tasks)

        await asyncio.to_thread(send, settings, topic, b"first")
        await heard(b"first")
        with broker.forgetful():
            await asyncio.sleep(SPELL_S)
        assert broker.forgot
        answering = asyncio.create_task(asyncio.to_thread(again, ask))
        await asyncio.to_thread(send, settings, topic, b"second")
        await heard(b"second")
        assert await answering == topic_id
        for lane in lanes:
            lane.stop()
        await asyncio.gather(*tasks)
    for one in [*handlers, *listeners]:  # what was not committed is read again
        assert list(dict.fromkeys(one.values)) == [b"first", b"second"]
    for group, listener in zip(groups, listeners, strict=True):  # an onlooker knows where it was
        assert group or listener.values == [b"first", b"second"]


@pytest.fixture
def nowhere(settings):
    """Settings with a broker that is not there."""
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": f"127.0.0.1:{take_port(0)}"})
    return settings.model_copy(update={"kafka": kafka})


@pytest.mark.parametrize(("its", "others"), [("away", "here"), ("away", "away"), ("here", "here")])
def test_who_is_deaf(settings, nowhere, monkeypatch, its, others):
    """A consumer that does not hear what others hear is; one that is only quiet, or whose broker is away, is not."""
    monkeypatch.setattr(hearing, "QUIET_S", 0.0)
    monkeypatch.setattr(hearing, "TIMEOUT_S", 1.0)
    where = {"here": settings, "away": nowhere}
    consumer = open_consumer(where[its], "hearing")
    asked = Hearing(consumer, where[others], settings.prefixed(Topic.CLICKS))
    with pytest.raises(Deaf) if its != others else contextlib.nullcontext():
        asked.quiet()
    consumer.close()


def test_a_consumer_that_has_just_brought_something_is_not_asked(settings, nowhere):
    """It need not be: it hears."""
    consumer = open_consumer(nowhere, "hearing")
    Hearing(consumer, settings, settings.prefixed(Topic.CLICKS)).quiet()
    consumer.close()


def test_a_start_that_nobody_tells_is_given_up(nowhere, monkeypatch):
    """A lane joins anew where the broker is silent about where to start."""
    monkeypatch.setattr(topics, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.setattr(starts, "PATIENCE_S", 1.0)
    consumer, began = open_consumer(nowhere, "hearing"), time.monotonic()
    finding = Starts(
        "hearing",
        settings=nowhere,
        broker=Asking(nowhere),
        positions=None,
        call=lambda _: pytest.fail("the store is not asked"),
        stopping=lambda: False,
    )
    with pytest.raises(Deaf):
        finding.find(consumer, [TopicPartition(nowhere.prefixed(Topic.CLICKS), 0)], left=lambda: False)
    assert time.monotonic() - began > 1.0
    consumer.close()


def test_a_reader_goes_on_where_it_was(settings):
    """What it has read it does not read again; where it has read nothing it starts where it would have."""
    topic, users = settings.prefixed(Topic.CLICKS), [f"user-{number}".encode() for number in range(6)]
    with TopicReader(settings, Topic.CLICKS, from_beginning=True) as reader:
        for wave in range(3):
            for user in users[: 1 + 5 * (wave > 0)]:  # of the first wave some partitions have nothing
                send(settings, topic, b"%d" % wave, user)
            found = []
            deadline = time.monotonic() + WAIT_S
            while len(found) < (1 if wave == 0 else 6):
                assert time.monotonic() < deadline, found
                found += [record.value for record in reader.read(0.2)]
            assert set(found) == {b"%d" % wave}
            reader.go_on()


def again(ask):
    """The answer to a question, of which the first time may be in vain."""
    with contextlib.suppress(BrokerUnavailable):
        return ask()
    return ask()


def lane_of(settings, topic, name, handler):
    """A lane in a group of its own."""
    return Lane(
        name,
        group=name,
        topics=(topic,),
        settings=settings,
        handler=handler,
        submit=handler.handle,
        positions=None,
        publisher=open_publisher(settings, name),
        batch_records=10,
    )


async def until(enough, tasks):
    """Waits until enough has happened."""
    deadline = time.monotonic() + WAIT_S
    while not enough():
        assert time.monotonic() < deadline
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.05)


def send(settings, topic, value, key=b"someone"):
    """Sends a record."""
    producer = open_producer(settings, delivery_timeout_ms=0)
    producer.produce(topic, value, key=key)
    assert not producer.flush(30)
