"""From click to list while uploads keep the content lane busy: one process, and two.

    python -m tests.bench.latency_beside_uploads [--seconds 40] [--only one|two]

A real Kafka, a catalogue, and users who click at 20 a second in all, each every few seconds, so that no list waits for
its interval. Measured from before a click is published until a subscriber has the list that covers it, first with
nothing else to do, then while more posts of a text and a picture are there than the content lane can embed (MiniLM
and the colours and edges of `lite`): (one) one process with the embedded store; (two) one for the content lane and one
for the others, on the Qdrant server that `PENCHANT_TEST_QDRANT_URL` names, else on the engine served by the tests.
Broker, store, workers, publishers and subscriber share the machine.
"""

import argparse
import math
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
from confluent_kafka import Message, Producer
from msgspec import Struct

from penchant.broker import LocalBroker
from penchant.cli.encoders import drawn_pictures, mixed_texts
from penchant.streams.client import Publisher
from penchant.streams.codec import encode
from penchant.streams.connection import producer_options
from penchant.streams.events import Click, ClickAction, Item, Media, MediaKind, Recommendations
from penchant.streams.records import Output
from penchant.streams.subscriber import Subscriber
from penchant.streams.topics import Topic
from tests.chaos.engine import Engine
from tests.stage import Stage, Worker, new_stage

ITEMS, USERS, AUTHORS = 600, 60, 200
CLICKS_A_SECOND = 20.0
WARM_UP_S, LAST_S = 5.0, 15.0
BACKLOG = 400  # posts that wait for the content lane, kept up while it is to be busy
LOOK_S = 0.25
CALIBRATED_AT = 300  # before anything is measured
OTHER_LANES = ("interest", "affinity", "learner")
SERVER_VARIABLE = "PENCHANT_TEST_QDRANT_URL"


class Sent(Struct, frozen=True):
    """A click that the broker has, and when it was about to be published (monotonic, seconds)."""

    user: str
    partition: int
    offset: int
    at: float


class Measured(Struct, frozen=True, kw_only=True):
    """One phase.

    Attributes:
        label: what runs, and what it does.
        milliseconds: from click to list, of each click; NaN where none came.
        stages: medians of its parts, milliseconds: until the signal is stored, the list is made, it is received.
        posts_a_second: embedded meanwhile.
        least_backlog: posts that waited, at least.
        elsewhere: processor time that others on the machine took, in cores.
    """

    label: str
    milliseconds: Sequence[float]
    stages: Sequence[float]
    posts_a_second: float
    least_backlog: int
    elsewhere: float


class Listening:
    """Notes when lists come; a context manager with a thread of its own."""

    def __init__(self, stage: Stage, users: Sequence[str]) -> None:
        self.received: list[tuple[float, Recommendations]] = []
        self._subscriber = Subscriber(stage.settings, users=users)
        self._thread = threading.Thread(target=self._listen)

    def _listen(self) -> None:
        for found in self._subscriber:
            self.received.append((time.monotonic(), found))

    def __enter__(self) -> Self:
        self._subscriber.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._subscriber.stop()
        self._thread.join()
        self._subscriber.__exit__(None, None, None)


class Uploads:
    """Keeps the content lane busy; a context manager with a thread of its own."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._stage = stage
        self._rng = random.Random(seed)
        self._texts = mixed_texts(2_000)
        self._pictures = drawn_pictures(100)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep_up)
        self.sent = 0
        self.looks: list[tuple[float, int, int]] = []  # when, sent until then, waiting

    def _keep_up(self) -> None:
        with Publisher(self._stage.settings) as publisher:
            while not self._ending.is_set():
                waiting = self._stage.lag("content", topics=[Topic.POSTS])
                self.looks.append((time.monotonic(), self.sent, waiting))
                for _ in range(BACKLOG - waiting):
                    self._post(publisher)
                self._ending.wait(LOOK_S)

    def _post(self, publisher: Publisher) -> None:
        """A post that was never embedded before: what follows a picture's end changes its digest alone."""
        self.sent += 1
        author = f"author-{self._rng.randrange(AUTHORS)}"
        text = f"{self.sent}: {self._rng.choice(self._texts)}"
        shown = Media(kind=MediaKind.IMAGE, data=self._rng.choice(self._pictures) + b"%d" % self.sent)
        publisher.post(author, text, media=[shown])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def between(self, start: float, end: float) -> tuple[float, int]:
        """Posts embedded a second in this time, and how many waited at least."""
        looks = [look for look in self.looks if start <= look[0] <= end]
        done = (looks[-1][1] - looks[-1][2]) - (looks[0][1] - looks[0][2])
        return done / (looks[-1][0] - looks[0][0]), min(waiting for _, _, waiting in looks)


def clicks(stage: Stage, users: Sequence[str], seconds: float, seed: int) -> list[Sent]:
    """Users click in turn, at times by Poisson's law; gives what the broker has taken."""
    rng, sent = random.Random(seed), []
    producer = Producer(producer_options(stage.settings, delivery_timeout_ms=60_000))
    start = due = time.monotonic()
    number = 0
    while due < start + seconds:
        due += rng.expovariate(CLICKS_A_SECOND)
        while (left := due - time.monotonic()) > 0:
            producer.poll(left)
        user, item = users[number % len(users)], f"film-{rng.randrange(ITEMS)}"
        number += 1
        click = Click(event_id=f"{seed}-{number}", user_id=user, item_id=item, action=ClickAction.CLICK)
        at = time.monotonic()

        def delivered(error: object, message: Message, user: str = user, at: float = at) -> None:
            assert error is None, error
            sent.append(Sent(user, message.partition(), message.offset(), at))

        producer.produce(stage.topic(Topic.CLICKS), encode(click), user.encode(), on_delivery=delivered)
    producer.flush(60)
    return sent


def phase(stage: Stage, label: str, seconds: float, seed: int, uploads: Uploads | None) -> Measured:
    """Clicks for a while, after a moment to get going; gives what came of them."""
    users = [f"user-{number}" for number in range(USERS)]
    with Listening(stage, users) as listening:
        clicks(stage, users, WARM_UP_S, seed)
        start, others = time.monotonic(), elsewhere_s()
        sent = clicks(stage, users, seconds, seed + 1)
        end = time.monotonic()
        others = (elsewhere_s() - others) / (end - start)
        deadline = end + LAST_S
        while time.monotonic() < deadline and any(one is None for one in answers(stage, sent, listening)):
            time.sleep(LOOK_S)
    found = answers(stage, sent, listening)
    shift = time.time() - time.monotonic()  # the workers' stamps are of the wall clock
    took = [
        math.nan if answer is None else 1_000 * (answer[0] - one.at) for one, answer in zip(sent, found, strict=True)
    ]
    rows = [
        (made.timings.stored - 1_000 * (one.at + shift), made.timings.ranked - made.timings.stored)
        if answer is not None and (made := answer[1]).timings is not None
        else (math.nan, math.nan)
        for one, answer in zip(sent, found, strict=True)
    ]
    parts = np.column_stack([rows, np.array(took) - np.sum(rows, axis=1)])
    rate, least = uploads.between(start, end) if uploads else (0.0, 0)
    return Measured(
        label=label,
        milliseconds=took,
        stages=np.nanmedian(parts, axis=0).tolist(),
        posts_a_second=rate,
        least_backlog=least,
        elsewhere=others,
    )


def answers(stage: Stage, sent: Sequence[Sent], listening: Listening) -> list[tuple[float, Recommendations] | None]:
    """The first list that covers each click."""
    topic = stage.topic(Topic.CLICKS)
    covering: dict[str, list[tuple[float, int, Recommendations]]] = {}
    for at, made in list(listening.received):
        for place in made.inputs:
            if place.topic == topic:
                covering.setdefault(made.user_id, []).append((at, place.offset, made))
    return [
        next(((at, made) for at, offset, made in covering.get(one.user, ()) if offset >= one.offset), None)
        for one in sent
    ]


def elsewhere_s() -> float:
    """Processor seconds that the machine has spent so far on what is none of this measurement."""
    spent: dict[int, tuple[int, int]] = {}  # by process: its parent, and ticks
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = file.read_text().rpartition(")")[2].split()
            spent[int(file.parent.name)] = int(fields[1]), int(fields[11]) + int(fields[12])
    own, before = {os.getpid()}, set()
    while own != before:
        before, own = own, own | {process for process, (parent, _) in spent.items() if parent in own}
    busy = sum(int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:4])  # user, nice, system
    return (busy - sum(ticks for process, (_, ticks) in spent.items() if process in own)) / os.sysconf("SC_CLK_TCK")


@contextmanager
def one_process(broker: LocalBroker, folder: Path) -> Iterator[tuple[Stage, list[Worker]]]:
    """All lanes together, and the embedded store."""
    with new_stage(broker, folder, **SECTIONS) as stage, stage.worker() as worker:
        yield stage, [worker.await_ready()]


@contextmanager
def two_processes(broker: LocalBroker, folder: Path) -> Iterator[tuple[Stage, list[Worker]]]:
    """The content lane by itself, and a store that is a server."""
    with ExitStack() as stack:
        if named := os.environ.get(SERVER_VARIABLE):
            store = {"url": named}
        else:
            engine = stack.enter_context(Engine(folder / "engine"))
            store = {"url": engine.url, "grpc_port": engine.port}
        stage = stack.enter_context(new_stage(broker, folder, store=store, **SECTIONS))
        workers = []
        for name, lanes in {"content": ("content",), "others": OTHER_LANES}.items():
            own = stage.with_settings(worker={"instance_id": name})
            workers.append(stack.enter_context(own.worker(*lanes)))
        yield stage, [worker.await_ready() for worker in workers]


SECTIONS = {"recommend": {"calibrate_at": CALIBRATED_AT}}
WAYS = {"one": one_process, "two": two_processes}


def fill(stage: Stage, worker: Worker) -> None:
    """Sends the catalogue, and waits until it is embedded."""
    texts = mixed_texts(ITEMS)
    stage.send(
        Output(
            topic=stage.topic(Topic.ITEMS),
            key=b"film-%d" % number,
            value=encode(Item(item_id=f"film-{number}", title=f"Film {number}", text=text)),
        )
        for number, text in enumerate(texts)
    )
    stage.await_settled(worker, "content")


def measure(way: str, broker: LocalBroker, folder: Path, seconds: float) -> list[Measured]:
    """Both phases of a way to run."""
    with WAYS[way](broker, folder) as (stage, workers):
        fill(stage, workers[0])
        quiet = phase(stage, f"{way}, nothing else to do", seconds, 10, None)
        with Uploads(stage, 3) as uploads:
            time.sleep(WARM_UP_S)
            busy = phase(stage, f"{way}, content lane busy", seconds, 20, uploads)
        for worker in workers:
            assert worker.process.poll() is None, worker.log[-4_000:]
    return [quiet, busy]


def row(found: Measured) -> str:
    """A phase as a line of the table."""
    took = np.array(found.milliseconds)
    answered = took[~np.isnan(took)]
    p50, p90, p99 = np.percentile(answered, (50, 90, 99))
    stored, ranked, received = found.stages
    return (
        f"{found.label:28} {len(took):6} {len(took) - len(answered):5} {p50:7.0f} {p90:7.0f} {p99:7.0f} "
        f"{answered.max():7.0f} {stored:8.0f} {ranked:7.0f} {received:9.0f} {found.posts_a_second:8.1f} "
        f"{found.least_backlog:8} {found.elsewhere:7.2f}"
    )


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(prog="latency_beside_uploads")
    parser.add_argument("--seconds", type=float, default=40.0, help="of clicks in each phase")
    parser.add_argument("--only", choices=list(WAYS), help="one way to run alone")
    given = parser.parse_args()
    server = os.environ.get(SERVER_VARIABLE) or "the engine served by the tests"
    sys.stdout.write(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; two processes on {server}; milliseconds\n"
        f"{'':28} {'clicks':>6} {'lost':>5} {'p50':>7} {'p90':>7} {'p99':>7} {'most':>7} {'stored':>8} {'ranked':>7} "
        f"{'received':>9} {'posts/s':>8} {'backlog':>8} {'others':>7}\n"
    )
    with tempfile.TemporaryDirectory(prefix="penchant-bench-") as name:
        folder = Path(name)
        with LocalBroker.start(folder / "broker", 0, "kafka") as broker:
            for way in [given.only] if given.only else WAYS:
                for found in measure(way, broker, folder / way, given.seconds):
                    sys.stdout.write(row(found) + "\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
