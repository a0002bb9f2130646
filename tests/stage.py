"""A stage: one namespace on a broker, worker processes on it, and a view of both from outside.

A worker is a process of its own here, started by the command line and told everything by its environment, because
that is what is killed, stopped and restarted in earnest. What it did is judged by what it left behind: committed
offsets, records that a reader of committed ones sees, and the store once the worker has let go of it.
"""

import asyncio
import json
import logging
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import numpy as np
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from msgspec import Struct
from prometheus_client.parser import text_string_to_metric_families

from penchant.broker import LocalBroker
from penchant.parts import Parts, build_parts
from penchant.profile.affinity import Row
from penchant.profile.items import Item
from penchant.profile.profiles import Profile
from penchant.settings import Settings, load_settings
from penchant.streams import affinity, content, interest, learner
from penchant.streams.codec import decode
from penchant.streams.connection import common_options, open_admin, producer_options
from penchant.streams.events import ANYONE, Recommendations
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic, create_topics, topic_specs
from penchant.streams.worker import LANES

START_TIMEOUT_S = 120.0
SETTLE_TIMEOUT_S = 480.0
READABLE_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.05
SETTLE_PAUSE_S = 0.3
LOG_TAIL = 4_000
# Else each request loads the certificates of all authorities: half the time between two looks at a worker that starts.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

INPUTS = {lane.LANE: (lane.GROUP, lane.TOPICS) for lane in (content, interest, affinity, learner)}
# Written in transactions too, whose markers take offsets that nobody commits.
WITH_MARKERS = frozenset({Topic.ITEM_READY, Topic.TRANSITIONS, Topic.EXAMPLES})

log = logging.getLogger("tests.kafka")


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int


class Snapshot(Struct):
    """What a store holds. Item vectors have shape (d,); None for an item without content."""

    profiles: dict[str, Profile]
    rows: dict[str, Row]
    items: dict[str, Item]
    vectors: dict[str, np.ndarray | None]


class Worker:
    """A worker process.

    Args:
        settings: that it is told by its environment.
        lanes: that it runs.
        log_file: where its standard error goes, behind what is there.
    """

    def __init__(self, settings: Settings, lanes: Sequence[str], log_file: Path) -> None:
        self.settings = settings
        self.log_file = log_file
        self.port = free_port()
        self.started = time.monotonic()
        self._log_start = log_file.stat().st_size if log_file.exists() else 0
        command = [sys.executable, "-m", "penchant.cli", "worker", *(f"--lane={lane}" for lane in lanes)]
        with log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environment(settings), "PENCHANT_WORKER__HTTP_PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def log(self) -> str:
        """What this process has logged."""
        with self.log_file.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace")

    def get(self, path: str) -> httpx.Response:
        """Asks its HTTP port."""
        address = f"http://127.0.0.1:{self.port}{path}"
        return httpx.get(address, timeout=10, trust_env=False, verify=NO_CERTIFICATES)

    def profile(self, user: str) -> dict[str, Any] | None:
        """A profile as the worker shows it."""
        answer = self.get(f"/profiles/{user}")
        return answer.json() if answer.status_code == httpx.codes.OK else None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all samples that have these labels; 0 while the worker does not answer."""
        try:
            text = self.get("/metrics").text
        except httpx.HTTPError:
            return 0.0
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def await_that(
        self,
        condition: Callable[[], Any],
        what: str,
        timeout_s: float = SETTLE_TIMEOUT_S,
        *,
        pause_s: float = POLL_S,
    ) -> None:
        """Waits until a condition holds; fails if the worker ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            code = self.process.poll()
            assert code is None, f"the worker ended with {code} before {what}:\n{self.log[-LOG_TAIL:]}"
            assert time.monotonic() < deadline, f"not in {timeout_s:g} s: {what}\n{self.log[-LOG_TAIL:]}"
            time.sleep(pause_s)

    def await_ready(self) -> "Worker":
        """Waits until all its lanes have joined their groups."""
        self.await_that(self.ready, "all lanes have joined", START_TIMEOUT_S)
        return self

    def ready(self) -> bool:
        """Whether all its lanes have joined their groups."""
        try:
            return self.get("/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def await_exit(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Waits for its end; gives the exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """Asks it to stop in order, and waits; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.await_exit()

    def kill(self) -> None:
        """Ends it as a crash does."""
        self.process.kill()
        self.process.wait()


class Stage:
    """One namespace on one broker, seen from outside of the worker.

    Args:
        settings: of the namespace.
        folder: where the worker's log goes.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log_file = folder / "worker.log"
        self.admin = open_admin(settings)
        self._onlookers: dict[str, Consumer] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for consumer in self._onlookers.values():
            consumer.close()
        self._onlookers.clear()

    def with_settings(self, **sections: Mapping[str, Any]) -> "Stage":
        """The same namespace with other values in some sections of the settings."""
        update = {
            name: getattr(self.settings, name).model_copy(update=dict(values)) for name, values in sections.items()
        }
        return Stage(self.settings.model_copy(update=update), self.log_file.parent)

    def worker(self, *lanes: str) -> Worker:
        """Starts a worker; by default of all lanes."""
        return Worker(self.settings, lanes, self.log_file)

    def topic(self, topic: Topic) -> str:
        """A topic's name."""
        return self.settings.prefixed(topic)

    def send(self, outputs: Iterable[Output], *, timestamps: Iterable[int] | None = None) -> list[Place]:
        """Produces records, in order, at today's time or at given ones; gives where each of them stands."""
        places: dict[int, Place] = {}
        failed: list[object] = []

        def delivered_as(index: int) -> Callable[[Any, Message], None]:
            def delivered(error: Any, message: Message) -> None:
                if error is not None:
                    failed.append(error)
                places[index] = Place(message.topic() or "", message.partition() or 0, message.offset() or 0)

            return delivered

        options = producer_options(self.settings, delivery_timeout_ms=60_000)
        producer = Producer({**options, "queue.buffering.max.kbytes": 256 * 1024})
        times = iter(timestamps) if timestamps is not None else None
        count = 0
        for index, output in enumerate(outputs):
            count += 1
            moment = next(times) if times is not None else 0
            while True:
                try:
                    producer.produce(
                        output.topic,
                        output.value,
                        output.key,
                        headers=list(output.headers.items()),
                        timestamp=moment,
                        on_delivery=delivered_as(index),
                    )
                except BufferError:
                    producer.poll(0.1)
                else:
                    break
            producer.poll(0)
        producer.flush(60)
        assert not failed, failed[:3]
        return [places[index] for index in range(count)]

    def committed(self, lane: str) -> dict[tuple[str, int], int]:
        """Next offsets that a lane's group has committed, by topic and partition."""
        group, topics = INPUTS[lane]
        found = self.onlooker(group).committed(self.partitions(topics), 10)
        return {(part.topic, part.partition): part.offset for part in found if part.offset >= 0}

    def ends(self, topics: Iterable[Topic]) -> dict[tuple[str, int], int]:
        """Where the partitions of topics end, less the markers of transactions."""
        onlooker = self.onlooker("onlooker")
        ends = {
            (part.topic, part.partition): onlooker.get_watermark_offsets(part, 10, cached=False)[1]
            for part in self.partitions(topic for topic in topics if topic not in WITH_MARKERS)
        }
        for topic in WITH_MARKERS & set(topics):  # in order within each partition: the last record's stays
            ends |= {(record.topic, record.partition): record.offset + 1 for record in self.read(topic)}
        return ends

    def partitions(self, topics: Iterable[Topic]) -> list[TopicPartition]:
        """All partitions of topics."""
        counts = {spec.topic: spec.partitions for spec in topic_specs(self.settings)}
        return [TopicPartition(self.topic(topic), number) for topic in topics for number in range(counts[topic])]

    def onlooker(self, group: str) -> Consumer:
        """A client that may ask for a group's offsets, and is no member of it."""
        if group not in self._onlookers:
            options = {
                "group.id": self.settings.prefixed(group),
                "enable.auto.commit": False,
                # Else what a killed worker was about to commit is waited for until the broker gives its transaction up.
                "isolation.level": "read_uncommitted",
            }
            self._onlookers[group] = Consumer({**common_options(self.settings), **options}, logger=log)
        return self._onlookers[group]

    def lag(self, *lanes: str, topics: Iterable[Topic] = Topic) -> int:
        """Records of the lanes' topics behind the committed offsets."""
        total = 0
        for lane in lanes or LANES:
            committed, ends = self.committed(lane), self.ends([one for one in INPUTS[lane][1] if one in topics])
            total += sum(max(end - committed.get(source, 0), 0) for source, end in ends.items())
        return total

    def await_settled(self, worker: Worker, *lanes: str) -> None:
        """Waits until the worker has committed all there is to read."""

        def settled() -> bool:
            try:  # what others wrote is cheap to look at; what the worker writes is read to its end
                return not self.lag(*lanes, topics=set(Topic) - WITH_MARKERS) and not self.lag(*lanes)
            except KafkaException:  # the broker is looking for itself
                return False

        worker.await_that(settled, "everything is committed", pause_s=SETTLE_PAUSE_S)

    def rewind(self, lane: str, topic: Topic) -> None:
        """Sets a stopped lane's committed offsets of a topic back to the beginning of the log."""
        group = self.settings.prefixed(INPUTS[lane][0])
        starts = [TopicPartition(part.topic, part.partition, 0) for part in self.partitions([topic])]
        deadline = time.monotonic() + 60
        while True:
            asked = self.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, starts)])
            try:
                errors = [part.error for part in asked[group].result(30).topic_partitions if part.error]
            except KafkaException as error:
                errors = [error]
            if not errors:
                return
            # A static member is in its group until its session is over.
            assert time.monotonic() < deadline, errors
            time.sleep(0.5)

    def read(self, topic: Topic) -> list[Record]:
        """All that a reader of committed records finds on a topic."""
        await_readable(self.admin, self.topic(topic))
        with TopicReader(self.settings, topic, from_beginning=True) as reader:
            return list(reader.to_end())

    def lists(self) -> dict[str, Recommendations]:
        """Each user's list in force; not the one for whoever is not known yet."""
        found = {
            made.user_id: made
            for record in self.read(Topic.RECOMMENDATIONS)
            for made in [decode(Recommendations, record.value, record.headers)]
        }
        found.pop(ANYONE, None)
        return found

    def slices(self, vector: np.ndarray) -> dict[str, float]:
        """The length of each modality's slice of a vector, shape (d,)."""
        space = build_parts(self.settings).space
        return {name: float(np.linalg.norm(vector[bounds])) for name, bounds in space.bounds().items()}

    def snapshot(self, items: Iterable[str] = ()) -> Snapshot:
        """What the store holds: all profiles and rows, and some items. Only while no worker runs."""

        async def take(taken: list[Snapshot]) -> None:
            parts: Parts = build_parts(self.settings)
            await parts.open()
            try:
                profiles = {profile.user: profile async for profile in parts.profiles.all()}
                rows = {row.item_id: row async for row in parts.rows.all()}
                found = Snapshot(profiles, rows, await parts.items.get(items), await parts.items.vectors(items))
            finally:
                await parts.store.close()
            taken.append(found)

        # Not as the task's result: Python before 3.11.8 and 3.12.1 has that written out as text, which takes minutes.
        taken: list[Snapshot] = []
        asyncio.run(take(taken))
        return taken[0]


def await_readable(admin: AdminClient, topic: str) -> None:
    """Waits a while until readers of committed records can read a topic to its end.

    A commit is acknowledged before its markers are in all partitions, and an open transaction holds readers back.
    """
    numbers = admin.list_topics(topic, timeout=10).topics[topic].partitions
    asked = {TopicPartition(topic, number): OffsetSpec.latest() for number in numbers}

    def ends(level: IsolationLevel) -> dict[int, int]:
        found = admin.list_offsets(asked, isolation_level=level, request_timeout=10)
        return {part.partition: future.result().offset for part, future in found.items()}

    deadline = time.monotonic() + READABLE_TIMEOUT_S
    while ends(IsolationLevel.READ_COMMITTED) != ends(IsolationLevel.READ_UNCOMMITTED):
        if time.monotonic() > deadline:
            return
        time.sleep(POLL_S)


def environment(settings: Settings) -> dict[str, str]:
    """Settings as the variables that say the same."""
    variables: dict[str, str] = {}
    for name, value in settings.model_dump(mode="json", exclude_unset=True).items():
        if isinstance(value, dict):
            for key, one in value.items():
                variables[f"PENCHANT_{name}__{key}".upper()] = one if isinstance(one, str) else json.dumps(one)
        else:
            variables[f"PENCHANT_{name}".upper()] = str(value)
    return variables


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_stage(broker: LocalBroker, folder: Path, **sections: Mapping[str, Any]) -> Stage:
    """A stage with a namespace and a data folder of its own; its topics exist."""
    settings = load_settings(
        namespace=f"e{secrets.token_hex(4)}",
        data_dir=folder / "data",
        **{
            **sections,
            "kafka": {
                "bootstrap_servers": broker.bootstrap_servers,
                "partitions": 3,
                "session_timeout_ms": 6_000,
                **sections.get("kafka", {}),
            },
        },
    )
    create_topics(settings)
    return Stage(settings, folder)
