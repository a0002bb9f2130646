"""A play: traffic on a stage, workers that serve it, and what is seen of them from outside while faults strike.

Events flow all the time, in a thread of their own; a fault strikes, is healed, and the play waits until a worker
applies events again. In the end it lets the workers finish, stops them, and judges what they left behind.
"""

import contextlib
import logging
import queue
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
from confluent_kafka import KafkaError, Message, Producer
from msgspec import Struct

from penchant.broker import LocalBroker
from penchant.profile.affinity import Row
from penchant.streams import interest
from penchant.streams.connection import producer_options
from penchant.streams.records import Output
from penchant.verify import verify
from tests.chaos.traffic import DAY_MS, Traffic
from tests.stage import Stage, Worker, new_stage

__all__ = ["Life", "Play", "Verdict"]

log = logging.getLogger("tests.chaos")
log.disabled = True  # the broker is killed on purpose
logging.getLogger("tests.kafka").disabled = True

HEALED_TIMEOUT_S = 120.0
POLL_S = 0.02
RATE_PER_S = 4_000
CHUNK = 200
TRICKLE = 10
SAMPLE_S = 0.5
SAMPLES = re.compile(r"^(penchant_\w+?)(?:\{([^}]*)\})? ([\d.e+]+)$", re.MULTILINE)
# Counted over all lives of all workers: what was refused to a worker that had been overtaken.
FENCES = ("penchant_conflicts_total", "penchant_fenced_total")


class Life(Struct):
    """What was seen of one worker process.

    Attributes:
        memory: (seconds into the play, KiB that are its own) now and then.
        fenced: store writes and publications that were refused to it.
    """

    memory: list[tuple[float, int]]
    fenced: dict[str, float]


class Verdict(Struct, kw_only=True):
    """What the workers left behind.

    Attributes:
        users: with a profile.
        signals: that profiles must hold.
        lost: of them, those that they do not.
        double: signals held twice, or under ids that nobody sent.
        altered: signals that differ from what was sent.
        likes: that items' rows must count.
        miscounted: items that count another number of them, or weigh them otherwise by age.
        stale_lists: users whose last list on the topic is not that of the last version of their profile.
        verified: whether `penchant verify` finds the same: all as the log says.
        deviation: largest difference of a stored vector from one computed in double precision.
    """

    users: int
    signals: int
    lost: int
    double: int
    altered: int
    likes: int
    miscounted: int
    stale_lists: int
    verified: bool
    deviation: float

    @property
    def exact(self) -> bool:
        """Whether all is as it must be."""
        wrong = self.lost or self.double or self.altered or self.miscounted or self.stale_lists
        return self.verified and not wrong


class Play:
    """A stage under traffic; a context manager.

    Args:
        folder: for everything.
        seed: of the traffic.
        users: in the traffic.
        sections: of the settings.
    """

    def __init__(
        self, folder: Path, *, seed: int, users: int, items: int, sections: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.folder = folder
        self._broker_folder = folder / "broker"
        self.broker = LocalBroker.start(self._broker_folder, 0, "kafka")
        kept = {"strong_limit": 64, "weak_limit": 64, "seen_bits": 4_096}  # so that truncation is at work as well
        self.stage = new_stage(self.broker, folder, **{"profile": kept, **sections})
        start_ms = time.time_ns() // 1_000_000 - 2 * 86_400_000
        self.traffic = Traffic(self.stage, seed=seed, users=users, items=items, start_ms=start_ms)
        self.stages: dict[str, Stage] = {}  # as each worker sees it
        self.workers: dict[str, Worker] = {}
        self.lives: dict[int, Life] = {}
        self.started = time.monotonic()
        self._chunks: queue.Queue[list[Output] | None] = queue.Queue()
        self._sender = threading.Thread(target=self._send, name="sender", daemon=True)
        self._sampler = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._over = threading.Event()
        self._failed: list[KafkaError] = []
        self._http = httpx.Client(timeout=5.0, trust_env=False)

    def __enter__(self) -> Self:
        self._sender.start()
        self._sampler.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._chunks.put(None)
        for worker in self.workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGCONT)
            worker.kill()
        self._sampler.join()
        self._sender.join(5)
        self._http.close()
        self.stage.__exit__()
        self.broker.kill()

    # Traffic.

    def flow(self, count: int) -> None:
        """Lets further events flow, behind those under way."""
        while count > 0:
            part = min(CHUNK, count)
            self._chunks.put(self.traffic.events(part))
            count -= part

    def keep_flowing(self) -> None:
        """Has further events flow if none are under way: somebody must have something to apply."""
        if self._chunks.empty():
            self.flow(TRICKLE)

    def resend(self, count: int) -> None:
        """Sends events of the past again."""
        self._chunks.put(self.traffic.resend(count))

    def await_unsent(self, most: int) -> None:
        """Waits until no more than so many events wait to be sent."""
        while self._chunks.qsize() * CHUNK > most:
            time.sleep(POLL_S)

    def await_flown(self) -> None:
        """Waits until the broker has all events."""
        self._chunks.join()
        assert not self._failed, self._failed[0]

    def _send(self) -> None:
        options = {**producer_options(self.stage.settings, delivery_timeout_ms=0), "error_cb": lambda _: None}
        producer = Producer(options, logger=log)
        while (chunk := self._chunks.get()) is not None:
            began = time.monotonic()
            for output in chunk:
                producer.produce(output.topic, output.value, output.key, on_delivery=self._delivered)
            while producer.flush(0.1) and not self._over.is_set():
                pass
            self._chunks.task_done()
            time.sleep(max(0.0, len(chunk) / RATE_PER_S - (time.monotonic() - began)))

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error)

    # Workers.

    def start(self, name: str) -> Worker:
        """Starts a worker process; under the name of one before, its successor."""
        worker = self.stages.setdefault(name, self.stage).worker()
        self.workers[name] = worker
        self.lives[worker.process.pid] = Life([], {})
        return worker

    def applied(self, worker: Worker) -> float:
        """Records that a worker's interest lane has applied in its life; 0 while it does not answer."""
        return self.metrics(worker).get(("penchant_records_total", interest.LANE), 0.0)

    def metrics(self, worker: Worker) -> dict[tuple[str, str], float]:
        """A worker's counters by name and lane, summed; none while it does not answer."""
        found: dict[tuple[str, str], float] = defaultdict(float)
        try:
            text = self._http.get(f"http://127.0.0.1:{worker.port}/metrics").text
        except httpx.HTTPError:
            return found
        for name, labels, value in SAMPLES.findall(text):
            lane = re.search(r'lane="(\w+)"', labels)
            found[name, lane[1] if lane else ""] += float(value)
        return found

    def await_applying(self, *names: str, beyond: Mapping[str, float] | None = None, since: float) -> float:
        """Waits until one of the workers named applies events beyond what it had; gives seconds since a moment."""
        deadline = time.monotonic() + HEALED_TIMEOUT_S
        wanted = names or tuple(self.workers)
        had = {name: (beyond or {}).get(name, 0.0) for name in wanted}
        while not any(self.applied(self.workers[name]) > had[name] for name in wanted):
            self.keep_flowing()
            self.check(wanted)
            assert time.monotonic() < deadline, f"nobody applies events:\n{self.tail()}"
            time.sleep(POLL_S)
        return time.monotonic() - since

    def committed(self) -> int:
        """How many records of the log the interest lane's group has committed."""
        return sum(self.stage.committed(interest.LANE).values())

    def await_committing(self, *, beyond: int, since: float) -> float:
        """Waits until the group commits beyond what it had; gives seconds since a moment."""
        deadline = time.monotonic() + HEALED_TIMEOUT_S
        while self.committed() <= beyond:
            self.keep_flowing()
            self.check(tuple(self.workers))
            assert time.monotonic() < deadline, f"nobody commits:\n{self.tail()}"
            time.sleep(POLL_S)
        return time.monotonic() - since

    def check(self, names: Sequence[str]) -> None:
        """Sees that workers live."""
        for name in names:
            code = self.workers[name].process.poll()
            assert code is None, f"the worker {name!r} ended with {code}:\n{self.tail()}"

    def tail(self) -> str:
        """The end of the workers' log; at its end once more the lines that are no mere warnings."""
        lines = self.stage.log_file.read_text(errors="replace")[-60_000:].splitlines()
        grave = [line for line in lines if not re.search(r"\[(debug|info|warning) *\]", line)]
        return "\n".join([*lines[-20:], "", *grave[-20:]])

    def count(self) -> dict[str, float]:
        """What each worker has applied in its life."""
        return {name: self.applied(worker) for name, worker in self.workers.items()}

    @property
    def broker_pid(self) -> int:
        """Of the broker's process."""
        return self.broker._process.pid

    def restart_broker(self) -> None:
        """Starts it again where it was."""
        port = int(self.broker.bootstrap_servers.rpartition(":")[2])
        self.broker = LocalBroker.start(self._broker_folder, port, "kafka")

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            for worker in list(self.workers.values()):
                pid = worker.process.pid
                memory = own_memory_kib(pid)
                if memory:
                    self.lives[pid].memory.append((time.monotonic() - self.started, memory))
                self.note_fences(worker)

    def note_fences(self, worker: Worker) -> None:
        """Notes what was refused to a worker so far in its life."""
        life = self.lives[worker.process.pid]
        for (name, _), value in self.metrics(worker).items():
            if name in FENCES:
                life.fenced[name] = max(life.fenced.get(name, 0.0), value)

    # The end.

    def settle(self) -> None:
        """Waits until everything is sent, applied, published and committed."""
        self.await_flown()
        one = next(iter(self.workers.values()))
        self.stage.await_settled(one)

    def stop(self) -> None:
        """Stops all workers in order."""
        for worker in self.workers.values():
            worker.process.send_signal(signal.SIGTERM)
        for worker in self.workers.values():
            assert worker.await_exit() == 0, self.tail()

    def judge(self) -> Verdict:
        """Compares what the workers left behind with what was sent. They must have stopped."""
        held = self.traffic.held()
        snapshot = self.stage.snapshot()
        profiles, likes = snapshot.profiles, self.traffic.likes
        lists = self.stage.lists()
        report = verify(self.stage.settings)
        lost = double = altered = stale = 0
        for user, parts in held.items():
            profile = profiles.get(user)
            strong, weak = (profile.state.strong, profile.state.weak) if profile else ((), ())
            for expected, stored in zip(parts, (strong, weak), strict=True):
                told = [(one.time, one.event_id, one.item_id, str(one.action), one.weight) for one in stored]
                known, found = {one[1]: one for one in expected}, {one[1]: one for one in told}
                lost += len(known.keys() - found.keys())
                double += len(told) - len(found) + len(found.keys() - known.keys())
                altered += sum(found[name] != known[name] for name in known.keys() & found.keys())
            published = lists.get(user)
            stale += published is None or profile is None or published.profile_version != profile.version
        return Verdict(
            users=len(profiles),
            signals=sum(len(part) for parts in held.values() for part in parts),
            lost=lost,
            double=double + len(profiles.keys() - held.keys()),
            altered=altered,
            likes=sum(map(len, likes.values())),
            miscounted=sum(
                not counts(snapshot.rows.get(item_id), likes.get(item_id, [])) for item_id in likes | snapshot.rows
            ),
            stale_lists=stale,
            verified=report.exact and not report.stale,
            deviation=report.largest_deviation,
        )


def counts(row: Row | None, times: Sequence[int]) -> bool:
    """Whether a row counts an item's likes, each by its age and once."""
    if row is None or not times:
        return row is None and not times
    now = max(times)
    expected = [sum(0.5 ** ((now - at) / (days * DAY_MS)) for at in times) for days in (30, 365)]
    return row.count == len(times) and np.allclose(row.popularity_at(now), [*expected, len(times)], rtol=1e-6)


def own_memory_kib(pid: int) -> int:
    """Memory of a process that is backed by no file, KiB; 0 of a process that has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1])
    return 0
