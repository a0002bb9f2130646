"""A lane over real Kafka: order, bounded memory, retries, an orderly stop, and nothing lost or published twice."""

import asyncio
import threading
import time
from collections import Counter, defaultdict

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client import REGISTRY

from penchant.errors import ConfigurationError, Unavailable
from penchant.profile.fusion import Slice, Space
from penchant.profile.items import Items
from penchant.profile.positions import Position, Positions
from penchant.profile.store.edge import EdgeStore
from penchant.streams.assignment import LogRecreated
from penchant.streams.connection import open_admin, open_consumer, open_producer
from penchant.streams.lane import INBOX_BATCHES, Lane
from penchant.streams.ledger import Handled, Touch
from penchant.streams.onlooker import TopicReader
from penchant.streams.publish import open_publisher
from penchant.streams.records import Output
from penchant.streams.topics import Topic, create_topics, describe_topics
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


@pytest.fixture
async def store(tmp_path):
    """An embedded store for positions."""
    store = EdgeStore(tmp_path / "store")
    await store.open([Items(store, "items", Space((Slice("text", 2, 1.0, "t"),))).layout])
    yield store
    await store.close()


@pytest.fixture
async def lane_of(store):
    """Makes lanes; ends those that a test leaves running."""
    made = []

    def make(settings, **options):
        made.append(Running(settings, store, **options))
        return made[-1]

    yield make
    for running in made:
        if hasattr(running, "task") and not running.task.done():
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)


@pytest.fixture
def quick(settings):
    """Settings for many lists in a short time."""
    return having(settings, recommend={"interval_s": 0.05}, kafka={"session_timeout_ms": 6_000})


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


@pytest.mark.parametrize("transactions", [True, False])
async def test_every_record_is_handled_in_order_published_and_committed(quick, lane_of, transactions):
    """After an orderly stop everything is handled once, published once, committed, and covered by positions."""
    settings = having(quick, kafka={"transactions": transactions})
    await send(settings, Topic.CLICKS, range(700))
    await send(settings, Topic.POSTS, range(40))
    running = lane_of(settings).start()
    await until(lambda: len(running.scribe.handled) == 740, running=[running])
    await running.stop()
    assert in_order(running.scribe.handled)
    assert await outputs(settings) == expected(700, 40)
    found, ends = await committed(settings)
    assert found == ends
    positions = await running.positions.load(ends)
    assert {source: position.next_offset for source, position in positions.items()} == {
        source: end for source, end in ends.items() if end
    }
    await assert_lists_are_in_order(settings)


async def test_a_slow_topic_is_paused_and_holds_up_no_other(quick, lane_of):
    """While one topic's handler stands still its inbox stays bounded and the other topic flows; then all is there."""
    running = lane_of(quick, batch_records=10)
    gate = asyncio.Event()
    clicks = quick.prefixed(Topic.CLICKS)

    async def before(batch):
        if batch.topic == clicks:
            await gate.wait()

    running.scribe.before = before
    await send(quick, Topic.CLICKS, range(600))
    running.start()
    for start in range(0, 300, 100):
        await send(quick, Topic.POSTS, range(start, start + 100))
        await until(lambda end=start + 100: len(running.scribe.handled) == end, running=[running])
        assert running.lane._inboxes[clicks].records <= (INBOX_BATCHES + 1) * 10
    await until(lambda: {source[0] for source in running.lane._paused} == {clicks}, running=[running])
    gate.set()
    await until(lambda: len(running.scribe.handled) == 900, running=[running])
    await running.stop()
    assert in_order(running.scribe.handled)
    assert await outputs(quick) == expected(600, 300)


async def test_who_is_behind_handles_more_at_once_within_bounds(quick, lane_of):
    """Whatever waits, so many batches' records are handled together and as many wait; the rest stays in the log."""
    running = lane_of(quick, batch_records=10, together=4)
    sizes, waiting = [], []
    clicks = quick.prefixed(Topic.CLICKS)

    async def slowly(batch):
        await asyncio.sleep(0.1)
        sizes.append(len(batch.records))
        waiting.append(running.lane._inboxes[clicks].records)

    running.scribe.before = slowly
    await send(quick, Topic.CLICKS, range(600))
    running.start()
    await until(lambda: len(running.scribe.handled) == 600, running=[running])
    await until(
        lambda: REGISTRY.get_sample_value("penchant_lag_records", {"lane": "test", "topic": clicks}) == 0,
        running=[running],
    )
    await running.stop()
    assert max(sizes) == 40
    assert max(waiting) <= 50  # one more take, for what is in hand cannot be given back
    assert in_order(running.scribe.handled)
    assert await outputs(quick) == expected(600, 0)


@pytest.mark.parametrize("stands", [True, False])
async def test_lists_are_made_while_the_publication_before_is_on_its_way(quick, lane_of, stands):
    """Where that fails, they are made again: nothing is committed on top of what is not."""
    running = lane_of(quick)
    asked, go_on = threading.Event(), threading.Event()
    answers = iter([stands])

    def ask(current):
        asked.set()
        assert go_on.wait(WAIT_S)
        return next(answers, True) and current()

    running.publisher.ask = ask
    await send(quick, Topic.CLICKS, [0])
    running.start()
    await until(asked.is_set, running=[running])
    await send(quick, Topic.CLICKS, [1, 2])
    await until(lambda: {"user-1", "user-2"} <= set(running.scribe.listed), running=[running])
    assert running.lane._ledger.backlog == 3
    go_on.set()
    await until(lambda: running.lane._ledger.backlog == 0, running=[running])
    await running.stop()
    assert running.scribe.listed.count("user-0") == (1 if stands else 2)
    assert await outputs(quick) == {f"clicks-{number}": 1 for number in range(3)}
    await assert_lists_are_in_order(quick)
    assert sorted(await lists(quick)) == ["user-0", "user-1", "user-2"]


async def test_what_is_unavailable_is_tried_again(quick, lane_of):
    """Handler, lists and publication may fail for a while: each output is visible once in the end."""
    running = lane_of(quick)
    running.scribe.failures = Counter(handle=3, refresh=2)
    refusals = iter([False, False])
    running.publisher.ask = lambda current: next(refusals, True) and current()
    await send(quick, Topic.CLICKS, range(200))
    running.start()
    await until(lambda: len(running.scribe.handled) == 200, running=[running])
    await until(lambda: running.lane._ledger.backlog == 0, running=[running])
    await running.stop()
    assert next(refusals, None) is None
    assert not +running.scribe.failures
    assert await outputs(quick) == expected(200, 0)
    await assert_lists_are_in_order(quick)


async def test_an_error_that_waiting_does_not_heal_stops_the_lane_with_that_error(quick, lane_of):
    """A mistake is not retried for ever, nor committed past: the lane ends with the error itself."""
    running = lane_of(quick)

    async def before(_):
        raise ZeroDivisionError("a mistake")

    running.scribe.before = before
    await send(quick, Topic.CLICKS, range(10))
    running.start()
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await asyncio.wait_for(running.task, WAIT_S)
    found, _ = await committed(quick)
    assert not any(found.values())


async def test_a_stop_finishes_what_has_begun_and_the_next_goes_on_from_there(quick, lane_of):
    """Stopped in the midst of much: nothing is handled or published twice, or skipped, by the two together."""
    await send(quick, Topic.CLICKS, range(3_000))
    first = lane_of(quick, batch_records=50)

    async def slowly(_):
        await asyncio.sleep(0.01)

    first.scribe.before = slowly
    first.start()
    await until(lambda: len(first.scribe.handled) >= 200, running=[first])
    await first.stop()
    assert len(first.scribe.handled) < 3_000
    second = lane_of(quick).start()
    await until(lambda: len(first.scribe.handled) + len(second.scribe.handled) >= 3_000, running=[second])
    await second.stop()
    assert in_order(first.scribe.handled + second.scribe.handled)
    assert await outputs(quick) == expected(3_000, 0)
    await assert_lists_are_in_order(quick)


async def set_back(settings, lane_of):
    """Has a lane cover 90 records, and sets its positions back; gives how many records lie behind them."""
    await send(settings, Topic.CLICKS, range(90))
    first = lane_of(settings).start()
    await until(lambda: len(first.scribe.handled) == 90, running=[first])
    await first.stop()
    known = await first.positions.load([(settings.prefixed(Topic.CLICKS), number) for number in range(3)])
    await first.positions.save(
        {source: Position(topic_id=one.topic_id, next_offset=2) for source, one in known.items()}
    )
    return sum(one.next_offset - 2 for one in known.values())


async def test_a_store_that_was_set_back_catches_up(quick, lane_of):
    """Where positions lie behind the commits, the lane reads again from the positions."""
    again = await set_back(quick, lane_of)
    second = lane_of(quick).start()
    await until(lambda: len(second.scribe.handled) == again, running=[second])
    await second.stop()


async def test_a_lane_that_stores_nothing_goes_on_from_what_is_committed(quick, lane_of):
    """It keeps no positions, reads nothing again, and misses nothing."""
    for sent in (range(90), range(90, 120)):
        await send(quick, Topic.CLICKS, sent)
        running = lane_of(quick)
        running.lane._positions = None
        running.start()
        await until(lambda running=running, sent=sent: len(running.scribe.handled) == len(sent), running=[running])
        await running.stop()
        assert len(running.scribe.handled) == len(sent)
    clicks = quick.prefixed(Topic.CLICKS)
    assert not await running.positions.load([(clicks, number) for number in range(3)])
    assert await outputs(quick) == expected(120, 0)


async def test_lists_owed_to_a_store_that_was_set_back_survive_a_crash(quick, lane_of):
    """Where the store has caught up and the lists are not published yet, the next worker publishes them."""
    again = await set_back(quick, lane_of)
    second = lane_of(quick)
    second.scribe.failures["refresh"] = 1_000_000
    second.start()
    await until(lambda: len(second.scribe.handled) == again, running=[second])
    await asyncio.sleep(0.5)  # for the positions behind it
    second.task.cancel()
    await asyncio.gather(second.task, return_exceptions=True)
    third = lane_of(quick).start()
    await until(lambda: len(third.scribe.handled) == again, running=[third])
    await until(lambda: third.lane._ledger.backlog == 0, running=[third])
    await third.stop()


async def test_a_fenced_worker_comes_back_when_nobody_has_its_name(quick, lane_of):
    """A member of its name that is heard of no more, as it is itself after a long silence, does not end it."""
    running = lane_of(quick).start()
    await until(lambda: running.owned == 6, running=[running])
    intruder = open_consumer(quick, GROUP)

    def intrude():
        intruder.subscribe([quick.prefixed(topic) for topic in TOPICS])
        while not intruder.assignment():
            intruder.poll(0.1)
        intruder.close()  # a static member does not leave by that

    releases = running.scribe.releases
    await asyncio.to_thread(intrude)
    await until(lambda: running.scribe.releases > releases, running=[running])
    await until(lambda: running.owned == 6, running=[running])
    await send(quick, Topic.CLICKS, range(60))
    await until(lambda: len(running.scribe.handled) == 60, running=[running])
    await running.stop()
    assert await outputs(quick) == expected(60, 0)


async def test_a_topic_that_was_created_anew_stops_the_lane(quick, lane_of):
    """Before the start and while it is read: another log is never taken for the former one."""
    admin, clicks = open_admin(quick), quick.prefixed(Topic.CLICKS)

    def create_anew():
        former = describe_topics(admin, [clicks])[clicks].id
        admin.delete_topics([clicks])[clicks].result()
        while True:
            create_topics(quick)
            known = describe_topics(admin, [clicks])
            if clicks in known and known[clicks].id != former:
                return
            time.sleep(0.1)

    await send(quick, Topic.CLICKS, range(90))
    first = lane_of(quick).start()
    await until(lambda: len(first.scribe.handled) == 90, running=[first])
    await until(lambda: first.lane._ledger.backlog == 0, running=[first])
    await asyncio.to_thread(create_anew)
    await send(quick, Topic.CLICKS, range(9))
    await send(quick, Topic.POSTS, range(9))
    with pytest.raises(ConfigurationError):
        await asyncio.wait_for(first.task, WAIT_S)
    second = lane_of(quick).start()
    with pytest.raises(LogRecreated, match="created anew"):
        await asyncio.wait_for(second.task, WAIT_S)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_partitions_move_between_workers_and_nothing_is_skipped_or_stale(quick, lane_of, protocol):
    """A second worker joins and the first one leaves while records come: each output once, no list goes back."""
    one, two = (
        having(quick, kafka={"group_protocol": protocol}, worker={"instance_id": name}) for name in ("one", "two")
    )
    sent = 0

    async def more(count):
        nonlocal sent
        await send(quick, Topic.CLICKS, range(sent, sent + count))
        await send(quick, Topic.POSTS, range(sent, sent + count))
        sent += count

    await more(300)
    first = lane_of(one, batch_records=20).start()
    await until(lambda: len(first.scribe.handled) >= 200, running=[first])
    second = lane_of(two, batch_records=20).start()
    while not (first.owned and second.owned and first.owned + second.owned == 6):
        await more(30)
        await until(lambda: True, running=[first, second])
    assert first.scribe.releases
    await more(300)
    await first.stop()
    while second.owned < 6:
        await more(30)
        await until(lambda: True, running=[second])
    await more(300)
    handled = first.scribe.handled, second.scribe.handled
    await until(lambda: len({*handled[0], *handled[1]}) == 2 * sent, running=[second])
    await until(lambda: second.lane._ledger.backlog == 0, running=[second])
    await second.stop()
    assert await outputs(quick) == expected(sent, sent)
    await assert_lists_are_in_order(quick)


@pytest.mark.parametrize("successor", ["restarted under its name", "another worker"])
async def test_a_worker_that_was_asleep_publishes_nothing(quick, lane_of, successor):
    """Held between sending its outputs and committing, while another takes over: what it sent is seen by nobody."""
    options = {"max.poll.interval.ms": 6_000}
    sleeper = having(quick, kafka={"options": options}, worker={"instance_id": "one"})
    awake = having(sleeper, worker={"instance_id": "one" if successor.startswith("restarted") else "two"})
    asleep, wake = threading.Event(), threading.Event()

    def ask(_):
        asleep.set()
        wake.wait(WAIT_S)
        return True  # it does not know better

    zombie = lane_of(sleeper)
    zombie.publisher.ask = ask
    await send(quick, Topic.CLICKS, range(60))
    zombie.start()
    try:
        await until(asleep.is_set, running=[zombie])
        zombie.lane._member._thread.submit(wake.wait, WAIT_S)  # it does not hear from its group either
        second = lane_of(awake).start()
        await until(lambda: len(second.scribe.handled) >= 60, running=[second])
        while (await committed(quick))[0] != (await committed(quick))[1]:
            await until(lambda: True, running=[second])
    finally:
        wake.set()
    await send(quick, Topic.CLICKS, range(60, 90))
    await until(lambda: len({*second.scribe.handled, *zombie.scribe.handled}) == 90)
    if successor.startswith("restarted"):
        with pytest.raises(ConfigurationError):
            await asyncio.wait_for(zombie.task, WAIT_S)
    else:
        await zombie.stop()
    await second.stop()
    # Readers of committed records are held back until the broker has ended the sleeper's transaction.
    for _ in range(int(WAIT_S)):
        if len(await outputs(quick)) == 90:
            break
        await asyncio.sleep(1)
    assert await outputs(quick) == expected(90, 0)
    await assert_lists_are_in_order(quick)
