"""A lane over real Kafka whose handler writes down what it is given, and what a test asks about it."""

import asyncio
import time
from collections import Counter, defaultdict

import msgspec
from confluent_kafka import Consumer, TopicPartition

from penchant.errors import Unavailable
from penchant.profile.positions import Positions
from penchant.streams.connection import open_admin, open_producer
from penchant.streams.lane import Lane
from penchant.streams.ledger import Handled, Touch
from penchant.streams.onlooker import TopicReader
from penchant.streams.publish import open_publisher
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.stage import await_readable

GROUP = "penchant-test"
TOPICS = (Topic.CLICKS, Topic.POSTS)
WAIT_S = 60.0


class Scribe:
    """A handler that writes down what it is given; each record has one output and owes its user a list.

    Attributes:
        handled: (topic, partition, offset) of each record, in order.
        before: awaited before a batch is handled.
        failures: how often `handle` and `refresh` fail before they work.
    """

    def __init__(self, settings):
        self.outputs = settings.prefixed(Topic.DEAD_LETTERS)
        self.lists = settings.prefixed(Topic.RECOMMENDATIONS)
        self.handled = []
        self.listed = []
        self.failures = Counter()
        self.releases = 0

    async def before(self, batch):
        """Nothing to wait for."""

    async def handle(self, batch):
        """Writes records down."""
        await self.before(batch)
        self.fail("handle")
        self.handled += [(record.topic, record.partition, record.offset) for record in batch.records]
        touched = {}
        for record in batch.records:
            position = Touch(positions={(record.topic, record.partition): record.offset}, recorded=0, stored=0)
            user = record.key.decode()
            touched[user] = touched[user].joined(position) if user in touched else position
        outputs = [
            (record.partition, Output(topic=self.outputs, key=record.key, value=record.value))
            for record in batch.records
        ]
        return Handled(outputs=outputs, touched=touched)

    async def refresh(self, due):
        """A list is the offsets that it took into account."""
        self.fail("refresh")
        self.listed += [one.user for one in due]
        return [
            Output(
                topic=self.lists,
                key=one.user.encode(),
                value=msgspec.json.encode([[*source, offset] for source, offset in one.touch.positions.items()]),
            )
            for one in due
        ]

    async def release(self):
        """Nothing is remembered."""
        self.releases += 1

    def fail(self, step):
        """Fails as often as it should."""
        if self.failures[step] > 0:
            self.failures[step] -= 1
            raise Unavailable(f"{step} is told to fail")


class Interfering:
    """A publisher of which the test decides what happens between beginning and commit.

    Attributes:
        ask: called in the publishing thread after the outputs were sent, with the lane's own `current`.
    """

    def __init__(self, publisher):
        self.publisher = publisher
        self.ask = lambda current: current()

    async def open(self):
        """As the publisher."""
        await self.publisher.open()

    async def publish(self, *arguments, current, **options):
        """As the publisher, with the test's answer to whether the partitions are still this worker's."""
        await self.publisher.publish(*arguments, current=lambda: self.ask(current), **options)

    async def close(self):
        """As the publisher."""
        await self.publisher.close()


class Running:
    """A lane at work, with the parts that a test looks at."""

    def __init__(self, settings, store, *, batch_records=100, together=1):
        self.settings = settings
        self.scribe = Scribe(settings)
        self.positions = Positions(store, "items", settings.prefixed(GROUP))
        self.publisher = Interfering(open_publisher(settings, "test"))
        self.lane = Lane(
            "test",
            group=GROUP,
            topics=tuple(settings.prefixed(topic) for topic in TOPICS),
            settings=settings,
            handler=self.scribe,
            submit=self.scribe.handle,
            positions=self.positions,
            publisher=self.publisher,
            batch_records=batch_records,
            together=together,
        )

    def start(self):
        """Begins; gives itself."""
        self.task = asyncio.create_task(self.lane.run())
        return self

    async def stop(self):
        """Stops in order."""
        self.lane.stop()
        await asyncio.wait_for(self.task, WAIT_S)

    @property
    def owned(self):
        """How many partitions it has."""
        return sum(self.lane.owns(self.settings.prefixed(topic), number) for topic in TOPICS for number in range(3))


def having(settings, **sections):
    """Settings with some keys of sections changed."""
    return settings.model_copy(
        update={name: getattr(settings, name).model_copy(update=changes) for name, changes in sections.items()}
    )


async def send(settings, topic, numbers, users=12):
    """Sends one record a number; its user follows from it."""
    await asyncio.to_thread(send_now, settings, topic, numbers, users)


def send_now(settings, topic, numbers, users):
    """As `send`; blocks."""
    producer = open_producer(settings, delivery_timeout_ms=20_000)
    for number in numbers:
        producer.produce(settings.prefixed(topic), f"{topic}-{number}".encode(), f"user-{number % users}".encode())
    assert producer.flush(20) == 0


async def until(condition, *, running=()):
    """Waits for a condition; fails at once where a lane has ended."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        for one in running:
            if one.task.done():
                one.task.result()
                raise AssertionError("the lane has ended")
        assert time.monotonic() < deadline, "this took too long"
        await asyncio.sleep(0.02)


async def visible(settings, topic):
    """What a reader of committed records finds on a topic."""

    def read():
        await_readable(open_admin(settings), settings.prefixed(topic))
        with TopicReader(settings, topic, from_beginning=True) as reader:
            return list(reader.to_end())

    return await asyncio.to_thread(read)


async def committed(settings):
    """The group's committed offsets, by topic and partition; and how far each partition goes."""

    def ask():
        options = {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": settings.prefixed(GROUP)}
        consumer = Consumer(options)
        wanted = [TopicPartition(settings.prefixed(topic), number) for topic in TOPICS for number in range(3)]
        found = {(one.topic, one.partition): max(one.offset, 0) for one in consumer.committed(wanted, 20)}
        ends = {(one.topic, one.partition): consumer.get_watermark_offsets(one, 20)[1] for one in wanted}
        consumer.close()
        return found, ends

    return await asyncio.to_thread(ask)


async def outputs(settings):
    """How often each record's output is visible."""
    return Counter(record.value.decode() for record in await visible(settings, Topic.DEAD_LETTERS))


async def lists(settings):
    """Whose lists are visible."""
    return [record.key.decode() for record in await visible(settings, Topic.RECOMMENDATIONS)]


def expected(*counts):
    """One output a record: so many of each topic."""
    return {f"{topic}-{number}": 1 for topic, count in zip(TOPICS, counts, strict=True) for number in range(count)}


def in_order(handled):
    """Whether the offsets of every partition go up by one."""
    offsets = defaultdict(list)
    for topic, partition, offset in handled:
        offsets[topic, partition].append(offset)
    return all(found == list(range(len(found))) for found in offsets.values())


async def assert_lists_are_in_order(settings):
    """Of each user later lists know no less, and the last one knows the user's last record."""
    lists = defaultdict(list)
    for record in await visible(settings, Topic.RECOMMENDATIONS):
        for topic, partition, offset in msgspec.json.decode(record.value):
            lists[record.key, topic, partition].append(offset)
    last = {}
    for topic in TOPICS:
        for record in await visible(settings, topic):
            last[record.key, record.topic, record.partition] = record.offset
    assert {source: offsets[-1] for source, offsets in lists.items()} == last
    assert all(offsets == sorted(offsets) for offsets in lists.values())
