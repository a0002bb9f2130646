"""Ordinary contestants: what the same is usually built of, as a competent user of these libraries would write it.

All read the same clicks, keep users' vectors in the same embedded engine (`qdrant_edge`, a collection of 384-d items
and one of users), move a vector by `2^(-age / half-life) v + weight x item`, query the ten nearest items, and publish
them as JSON. None of them knows an event again or writes store and offsets together: nothing here is exact.

- `faust`: a Faust agent, event by event, with Faust's defaults.
- `loop`: a loop around confluent-kafka's consumer, event by event; offsets are stored when an event is done, and
  committed by the client every five seconds, as usual.
- `coalescing`: that loop, which takes up to 4,096 events at a time, reads and writes each changed user once, queries in
  batches, and makes at most one list a second for a user. This is what penchant does, less its promises.

Items' vectors are kept in memory, and the engine is called in the loop's own thread: both are faster.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import faust
import msgspec
import numpy as np
import qdrant_edge as edge
from confluent_kafka import Consumer, Message, Producer
from msgspec import Struct
from numpy.typing import NDArray

from penchant.settings import Settings, load_settings
from penchant.streams.events import Click
from tests.bench.rig import Meter, answer, asked
from tests.bench.world import DIMENSION, item_id, user_id, vectors

__all__ = ["Interests", "lists_of", "make_store"]

USERS, ITEMS = "users", "items"
VECTOR = ""
COUNT = 10
HALF_LIFE_MS = 8 * 3_600_000
WEIGHTS = {"view": 0.5, "click": 1.0, "like": 2.0}
BATCH = 4_096
PAGE = 256
INTERVAL_S = 1.0
FLUSH_POINTS = 4_096

Vector = NDArray[np.float32]
Event = tuple[Click, int]  # with the record's timestamp, epoch milliseconds
Taste = tuple[Vector, int]  # a user's vector, and its moment
Done = Callable[[int, int], None]  # told how many events are done, and lists made


class Nearby(Struct, frozen=True):
    """An item of a list."""

    item_id: str
    score: float


class Input(Struct, frozen=True):
    """The newest record that a list is made of."""

    topic: str
    partition: int
    offset: int


class List(Struct, frozen=True):
    """What is published."""

    user_id: str
    items: Sequence[Nearby]
    inputs: Sequence[Input]


class Interests:
    """Users' vectors beside the items, in the embedded engine.

    Args:
        folder: that `make_store` has filled.
    """

    def __init__(self, folder: Path) -> None:
        self._users = edge.EdgeShard.load(str(folder / USERS))
        self._items = edge.EdgeShard.load(str(folder / ITEMS))
        self._vectors = load_vectors(self._items)
        self._unflushed = 0

    def read(self, users: Iterable[str]) -> dict[str, Taste]:
        """What is known of users."""
        wanted = {point_of(user): user for user in users}
        found = {}
        for record in self._users.retrieve(list(wanted), True, True):  # noqa: FBT003  payload and vector
            user = wanted[UUID(str(record.id))]
            found[user] = np.asarray(record.vector, np.float32), record.payload["at"]
        return found

    def moved(self, taste: Taste | None, events: Sequence[Event]) -> Taste:
        """A user's vector after events, in the order of their records."""
        vector, at = taste or (np.zeros(DIMENSION, np.float32), 0)
        for click, timestamp in events:
            faded = vector * math.exp2((at - timestamp) / HALF_LIFE_MS) if timestamp > at else vector
            vector = faded + WEIGHTS[click.action] * self._vectors[click.item_id]
            at = max(at, timestamp)
        return vector, at

    def write(self, tastes: dict[str, Taste]) -> None:
        """Stores users' vectors."""
        points = [
            edge.Point(point_of(user), {VECTOR: vector}, {"user": user, "at": at})
            for user, (vector, at) in tastes.items()
        ]
        self._users.update(edge.UpdateOperation.upsert_points(points))
        self._unflushed += len(points)
        if self._unflushed >= FLUSH_POINTS:
            self._users.flush()
            self._unflushed = 0

    def top(self, some: Sequence[Vector]) -> list[list[Nearby]]:
        """The nearest items to each of some vectors."""
        requests = [edge.QueryRequest(COUNT, query=edge.Query.Nearest(one, VECTOR), with_payload=True) for one in some]
        return [
            [Nearby(hit.payload["item_id"], hit.score) for hit in hits]
            for hits in self._items.query_batch(edge.QueryBatchRequest(requests))
        ]

    def follow(self, click: Click, timestamp: int) -> list[Nearby]:
        """One event, from reading the user to their new list."""
        user = click.user_id
        taste = self.moved(self.read([user]).get(user), [(click, timestamp)])
        self.write({user: taste})
        (found,) = self.top([taste[0]])
        return found


def load_vectors(shard: edge.EdgeShard) -> dict[str, Vector]:
    """All items' vectors."""
    found: dict[str, Vector] = {}
    following = None
    while True:
        request = edge.ScrollRequest(offset=following, limit=1_000, with_payload=True, with_vector=True)
        records, following = shard.scroll(request)
        for record in records:
            found[record.payload["item_id"]] = np.asarray(record.vector, np.float32)
        if following is None:
            return found


def make_store(folder: Path, *, users: int, items: int) -> None:
    """A store with the items, and with users of whom little is known."""
    for name in (USERS, ITEMS):
        (folder / name).mkdir(parents=True)
    config = edge.EdgeConfig(vectors={VECTOR: edge.EdgeVectorParams(DIMENSION, edge.Distance.Dot)})
    shards = {name: edge.EdgeShard.create(str(folder / name), config) for name in (USERS, ITEMS)}
    number = 0
    for page in vectors(items):
        points = [
            edge.Point(uuid5(NAMESPACE_OID, item_id(at)), {VECTOR: one}, {"item_id": item_id(at)})
            for at, one in enumerate(page, number)
        ]
        shards[ITEMS].update(edge.UpdateOperation.upsert_points(points))
        number += len(page)
    blank = np.full(DIMENSION, DIMENSION**-0.5, np.float32)
    names = [user_id(number) for number in range(users)]
    points = [edge.Point(point_of(name), {VECTOR: blank}, {"user": name, "at": 0}) for name in names]
    for start in range(0, users, PAGE):
        shards[USERS].update(edge.UpdateOperation.upsert_points(points[start : start + PAGE]))
    for shard in shards.values():
        shard.flush()
        shard.close()


def point_of(user: str) -> UUID:
    """The id of a user's point."""
    return uuid5(NAMESPACE_OID, user)


def lists_of(group: str) -> str:
    """The topic that a contestant publishes to."""
    return f"{group}-lists"


def encoded(user: str, found: Sequence[Nearby], topic: str, partition: int, offset: int) -> bytes:
    """A list as it is published."""
    return msgspec.json.encode(List(user, found, (Input(topic, partition, offset),)))


def run_faust(settings: Settings, topic: str, group: str, interests: Interests, done: Done) -> None:
    """A Faust agent."""
    app = faust.App(
        group,
        broker=f"kafka://{settings.kafka.bootstrap_servers}",
        datadir=str(settings.data_dir / "faust"),
        autodiscover=False,
        topic_disable_leader=True,
        web_enabled=False,
    )
    clicks = app.topic(topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    lists = app.topic(lists_of(group), key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
    decoder = msgspec.msgpack.Decoder(Click)

    @app.agent(clicks, name=group)  # type: ignore[untyped-decorator]  # faust ships no types
    async def follow(stream: Any) -> None:
        async for event in stream.events():
            click = decoder.decode(event.value)
            message = event.message
            found = interests.follow(click, round(message.timestamp * 1_000))
            value = encoded(click.user_id, found, message.topic, message.partition, message.offset)
            await lists.send(key=message.key, value=value)
            done(1, 1)

    faust.Worker(app, loglevel="WARN", redirect_stdouts=False).execute_from_commandline()


def run_loop(settings: Settings, topic: str, group: str, interests: Interests, done: Done) -> None:
    """A loop, event by event."""
    consumer, producer = clients(settings, topic, group)
    decoder = msgspec.msgpack.Decoder(Click)
    while True:
        for message in taken(consumer, most=500):
            click = decoder.decode(message.value())
            found = interests.follow(click, message.timestamp()[1])
            publish(producer, group, click.user_id, found, message)
            consumer.store_offsets(message)
            done(1, 1)


def run_coalescing(settings: Settings, topic: str, group: str, interests: Interests, done: Done) -> None:
    """A loop that takes many events at a time, and makes at most one list a second for a user."""
    consumer, producer = clients(settings, topic, group)
    decoder = msgspec.msgpack.Decoder(Click)
    rests: dict[str, float] = {}
    owed: dict[str, tuple[Vector, Message]] = {}
    while True:
        messages = taken(consumer, most=BATCH)
        by_user: dict[str, list[Event]] = {}
        newest: dict[str, Message] = {}
        for message in messages:
            click = decoder.decode(message.value())
            by_user.setdefault(click.user_id, []).append((click, message.timestamp()[1]))
            newest[click.user_id] = message
        for page in paged(list(by_user)):
            known = interests.read(page)
            tastes = {user: interests.moved(known.get(user), by_user[user]) for user in page}
            interests.write(tastes)
            owed |= {user: (taste[0], newest[user]) for user, taste in tastes.items()}
        made = 0
        for page in paged([user for user in owed if rests.get(user, 0) <= time.monotonic()]):
            due = [owed.pop(user) for user in page]
            for user, found, (_, message) in zip(page, interests.top([one[0] for one in due]), due, strict=True):
                publish(producer, group, user, found, message)
            rests |= dict.fromkeys(page, time.monotonic() + INTERVAL_S)
            made += len(page)
        for message in {message.partition(): message for message in messages}.values():
            consumer.store_offsets(message)
        done(len(messages), made)


def clients(settings: Settings, topic: str, group: str) -> tuple[Consumer, Producer]:
    """A consumer that has subscribed, and a producer."""
    servers = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    consumer = Consumer({
        **servers, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.offset.store": False,
    })  # fmt: skip
    consumer.subscribe([topic])
    return consumer, Producer({**servers, "compression.type": "lz4"})


def taken(consumer: Consumer, *, most: int) -> list[Message]:
    """The next records: waits a moment for a first one, and for no second."""
    first = consumer.poll(0.1)
    return [] if first is None else [first, *consumer.consume(most - 1, 0)]


def publish(producer: Producer, group: str, user: str, found: Sequence[Nearby], message: Message) -> None:
    """Publishes a list."""
    value = encoded(user, found, message.topic() or "", message.partition() or 0, message.offset() or 0)
    producer.produce(lists_of(group), value, user.encode())
    producer.poll(0)


def paged(users: Sequence[str]) -> Iterable[Sequence[str]]:
    """Users in parts of some hundreds."""
    return (users[start : start + PAGE] for start in range(0, len(users), PAGE))


def run(settings: Settings, *, kind: str, topic: str, group: str, seconds: float) -> None:
    """Runs a contestant for some seconds from its first event, or for ever where that is 0."""
    meter = Meter()
    lists = Meter()

    def done(events: int, made: int) -> None:
        meter.add(events)
        lists.add(made)
        if seconds and meter.marks[-1][0] - meter.marks[0][0] > seconds:
            answer({"marks": meter.marks, "lists": lists.marks})
            os._exit(0)  # nobody needs its orderly end, for which Faust takes seconds

    contestant = {"faust": run_faust, "loop": run_loop, "coalescing": run_coalescing}[kind]
    contestant(settings, topic, group, Interests(settings.data_dir / "store"), done)


if __name__ == "__main__":
    asyncio.set_event_loop(asyncio.new_event_loop())  # Faust's worker asks for the thread's own
    run(load_settings(), **asked())
