"""What is owed is published once and in order, whatever fails on the way, and nothing is committed before it."""

import asyncio
import random
from collections import Counter, defaultdict

import pytest

from penchant.errors import ConfigurationError, Unavailable
from penchant.streams import backoff
from penchant.streams.held import Held
from penchant.streams.ledger import Handled, Ledger, Touch
from penchant.streams.outbox import Outbox
from penchant.streams.publish import Refused, Revoked
from penchant.streams.records import Output, Record

TOPIC = "clicks"
PARTITIONS = 3
RECORDS = 60  # of each partition
WAIT_S = 20


def record_at(partition, offset):
    """A record; its user follows from it, and has one partition."""
    user = f"user-{partition}-{offset * 7 % 5}"
    return Record(
        topic=TOPIC, partition=partition, offset=offset, timestamp=0, key=user.encode(), value=b"", headers={}
    )


def output(*words):
    """An output that says so."""
    return Output(topic="outputs", key=None, value=" ".join(map(str, words)).encode())


class World:
    """A log, a store and a broker in memory, which fail now and then; the broker looks at each transaction.

    Args:
        seed: of whatever happens.
    """

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.failing = self.random.choice([0, 0.1, 0.4])
        self.trouble = True
        self.committed = {(TOPIC, partition): 0 for partition in range(PARTITIONS)}
        self.stored = defaultdict(set)  # offsets by user
        self.listed = {}  # the newest offset that a user's last list knows of
        self.outputs = Counter()
        self.under_way = 0
        self.held = Held()
        self.ledger = Ledger(interval_s=self.random.choice([0, 0.003, 0.02]), most_due=self.random.choice([2, 3, 8]))
        self.outbox = Outbox(
            "test",
            ledger=self.ledger,
            lists=self,
            publisher=self,
            held=self.held,
            check=self.pause,
            member=lambda: None,
        )

    async def pause(self):
        """Lets others work for a moment, or for a while."""
        for _ in range(self.random.randrange(5)):
            await asyncio.sleep(0)
        if self.random.random() < 0.3:
            await asyncio.sleep(0.001)

    def fail(self, *errors):
        """Fails now and then."""
        if self.trouble and self.random.random() < self.failing:
            raise self.random.choice(errors)("told to fail")

    async def refresh(self, due):
        """Lists say what the store knew when they were made."""
        await self.pause()
        self.fail(Unavailable)
        return [output("list", one.user, max(self.stored[one.user])) for one in due]

    async def publish(self, outputs, offsets, _, *, fence, current):
        """A transaction."""
        assert not self.under_way
        self.under_way += 1
        try:
            await self.pause()
            self.fail(Unavailable, Refused)
            if not current():
                raise Revoked("the partitions were revoked")
            self.commit(outputs, offsets or fence)
            await self.pause()  # the answer takes its time
        finally:
            self.under_way -= 1

    def commit(self, outputs, offsets):
        """What must be so of each transaction that stands."""
        for source, offset in offsets.items():
            assert offset >= self.committed[source], "an offset went back"
            self.committed[source] = offset
        for one in outputs:
            kind, *words = one.value.decode().split()
            if kind == "list":
                user, newest = words
                assert int(newest) >= self.listed.get(user, -1), "an older list after a newer one"
                self.listed[user] = int(newest)
            else:
                self.outputs[tuple(map(int, words))] += 1
        for (_, partition), end in self.committed.items():
            for offset in range(end):
                user = record_at(partition, offset).key.decode()
                assert self.listed.get(user, -1) >= offset, "committed without a list"

    def more(self):
        """Some records more of the log."""
        return [
            record_at(partition, offset)
            for (_, partition), expected in self.held.expected.items()
            for offset in range(expected, min(RECORDS, expected + self.random.randrange(5)))
        ]

    async def take(self, records):
        """Records are taken, stored, and owed."""
        batch = self.held.taken(records)[TOPIC]
        await self.pause()
        touched = {}
        for record in records:
            user = record.key.decode()
            self.stored[user].add(record.offset)
            touched[user] = Touch(positions={(TOPIC, record.partition): record.offset}, recorded=0, stored=0)
        owned = self.held.owned(batch)
        if owned:
            outputs = [(record.partition, output("of", record.partition, record.offset)) for record in records]
            handled = Handled(outputs=outputs, touched=touched)
            self.ledger.add(TOPIC, owned, handled, records=len(records), now=asyncio.get_running_loop().time())
            self.outbox.wake()

    async def reassign(self):
        """Some partitions go, and come back: they are read again from what is committed."""
        gone = {source for source in self.committed if self.random.random() < 0.6}
        self.held.end(gone)
        self.ledger.revoke(gone)
        await self.pause()
        self.held.begin({source: self.committed[source] for source in gone})

    async def run(self):
        """Takes all records and publishes what they owe."""
        self.held.begin(self.committed)
        reassignments = self.random.choice([0, 3, 8])
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            publishing = tasks.create_task(self.outbox.run(tasks))
            while any(offset < RECORDS for offset in self.held.expected.values()):
                if records := self.more():
                    await self.take(records)
                if reassignments and self.random.random() < 0.1:
                    reassignments -= 1
                    await self.reassign()
                await self.pause()
            self.trouble = self.random.random() < 0.5
            self.outbox.drain()
            await publishing


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses between attempts take no time."""
    monkeypatch.setattr(backoff, "FIRST_S", 0.0005)
    monkeypatch.setattr(backoff, "LONGEST_S", 0.002)


@pytest.mark.parametrize("seed", range(40))
async def test_everything_is_published_once_and_nothing_committed_before(seed):
    """Through failures of lists and of transactions, and partitions that go and come back."""
    world = World(seed)
    await world.run()
    assert set(world.outputs.values()) <= {1}
    assert world.outputs.keys() == {
        (partition, offset) for (_, partition), end in world.committed.items() for offset in range(end)
    }
    if not world.trouble or not world.failing:  # else the broker may have refused it while it stopped
        assert set(world.committed.values()) == {RECORDS}
        assert world.ledger.backlog == 0


async def test_an_end_gives_up_nothing_but_what_has_gone():
    """Partitions went while a publication was on its way: what is owed for the others is published all the same."""
    go = asyncio.Event()

    class Slow(World):
        async def publish(self, *arguments, **options):
            await go.wait()
            await super().publish(*arguments, **options)

    world = Slow(0)
    world.failing = 0
    world.ledger._most_due = 2
    world.held.begin(world.committed)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(world.outbox.run(tasks))
        await world.take([record_at(0, 0), *(record_at(1, offset) for offset in range(5))])  # several publications
        await asyncio.sleep(0.05)
        gone = {(TOPIC, 0)}
        world.held.end(gone)
        world.ledger.revoke(gone)
        world.outbox.drain()
        go.set()
        await publishing
    assert world.outputs == {(1, offset): 1 for offset in range(5)}
    assert world.committed == {(TOPIC, 0): 0, (TOPIC, 1): 5, (TOPIC, 2): 0}
    assert world.ledger.backlog == 0


@pytest.mark.parametrize("stands_after", [0, 1])
async def test_what_the_broker_refuses_at_the_end_is_left_to_others(stands_after):
    """Nobody polls any more, and so it will be refused again; but for what was refused of a moment before."""
    asked, go = [], asyncio.Event()

    class Refusing(World):
        async def publish(self, *arguments, **options):
            asked.append(arguments)
            if len(asked) == 1:
                await go.wait()
            if not stands_after or len(asked) <= stands_after:
                raise Refused("told to refuse")
            await super().publish(*arguments, **options)

    world = Refusing(0)
    world.failing = 0
    world.held.begin(world.committed)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(world.outbox.run(tasks))
        await world.take([record_at(0, 0)])
        await asyncio.sleep(0.05)
        world.outbox.drain()
        go.set()
        await publishing
    assert len(asked) == 2
    assert world.ledger.backlog == (0 if stands_after else 1)


@pytest.mark.parametrize("turns", range(4))
async def test_an_error_that_waiting_does_not_heal_ends_it_though_it_is_woken_at_that_moment(turns):
    """What is raised where a publication is sent reaches whoever runs the outbox."""
    go = asyncio.Event()

    class Refusing(World):
        async def publish(self, *_, **__):
            await go.wait()
            raise ConfigurationError("refused for good")

    world = Refusing(0)
    world.failing = 0
    world.held.begin(world.committed)

    async def work(tasks):
        publishing = tasks.create_task(world.outbox.run(tasks))
        await world.take([record_at(0, 0)])
        await asyncio.sleep(0.05)
        go.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        world.outbox.wake()
        await publishing

    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(work(tasks))
    assert isinstance(raised.value.exceptions[0], ConfigurationError)
