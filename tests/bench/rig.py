"""What measurements are made with: sizes, one broker, processes of their own, and what the group has committed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
from confluent_kafka import Consumer, TopicPartition
from msgspec import Struct

from penchant.broker import LocalBroker
from penchant.settings import Settings
from penchant.streams.connection import common_options
from tests.stage import environment

__all__ = [
    "FULL",
    "QUICK",
    "Backlog",
    "Meter",
    "Rig",
    "Sizes",
    "answer",
    "asked",
    "memory_mib",
    "peak_memory_mib",
    "run_child",
    "start_child",
]

ROOT = Path(__file__).resolve().parents[2]
CHILD_TIMEOUT_S = 1_800.0
TAIL = 4_000

Say = Callable[[str], None]


class Sizes(Struct, frozen=True, kw_only=True):
    """How much of everything.

    Attributes:
        users: whose events are sent.
        items: of the catalogue, where its size is not what is measured.
        events: in the log that contestants read.
        rounds: of contestants that are compared; each goes through all of them.
        most_s: of a contestant that does not get to the end of the log.
        ordinary_s: of an ordinary contestant, which would take minutes for it.
        history: events that profiles are made of before freshness is measured.
        rates: of events a second, at which freshness is measured.
        rate_s: how long at each.
        burst: events at once.
        catalogues: sizes to rank from.
        ranked: users who are given lists at once.
        catalogue_s: about how long a contestant ranks at each size.
        weighed: items and users whose bytes are counted; of those with full sets there are fewer.
        stored: profiles in the store of a worker that starts.
    """

    users: int = 2_000
    items: int = 5_000
    events: int
    rounds: int
    most_s: float
    ordinary_s: float
    history: int
    rates: Sequence[int]
    rate_s: float
    burst: int
    catalogues: Sequence[int]
    ranked: int = 256
    catalogue_s: float
    weighed: int
    stored: int


FULL = Sizes(
    events=400_000,
    rounds=3,
    most_s=45,
    ordinary_s=10,
    history=20_000,
    rates=(10, 100, 1_000),
    rate_s=20,
    burst=100_000,
    catalogues=(5_000, 50_000, 500_000),
    catalogue_s=6,
    weighed=10_000,
    stored=100_000,
)
QUICK = Sizes(
    events=10_000,
    rounds=1,
    most_s=15,
    ordinary_s=3,
    history=1_000,
    rates=(100,),
    rate_s=5,
    burst=2_000,
    catalogues=(2_000, 5_000),
    catalogue_s=1,
    weighed=300,
    stored=1_000,
)


class Rig(Struct, frozen=True, kw_only=True):
    """What every measurement is handed.

    Attributes:
        broker: that all of them use.
        folder: for whatever they leave.
        sizes: of everything.
        say: told how it goes.
    """

    broker: LocalBroker
    folder: Path
    sizes: Sizes
    say: Say


class Meter:
    """Counts what was done by when.

    Attributes:
        marks: moments, seconds, and how much was done by then.
    """

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[tuple[float, int]] = []

    def add(self, count: int) -> None:
        """Notes that so many more are done."""
        self.count += count
        self.marks.append((time.monotonic(), self.count))


class Backlog:
    """How far a consumer group is behind, seen from outside of it; a context manager.

    Args:
        settings: name the broker.
        group: as the broker knows it.
        topic: likewise.
    """

    def __init__(self, settings: Settings, group: str, topic: str) -> None:
        self._consumer = Consumer({**common_options(settings), "group.id": group, "enable.auto.commit": False})
        numbers = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._partitions = [TopicPartition(topic, number) for number in numbers]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def records(self) -> int:
        """Records behind what the group has committed."""
        ends = [self._consumer.get_watermark_offsets(part, 10, cached=False)[1] for part in self._partitions]
        committed = self._consumer.committed(self._partitions, 10)
        return sum(end - max(part.offset, 0) for end, part in zip(ends, committed, strict=True))


def start_child(module: str, settings: Settings, told: Mapping[str, Any], log_file: Path) -> subprocess.Popen[bytes]:
    """Starts a module of this folder in a process of its own, which reads what it is told from its command line.

    Args:
        module: less `tests.bench`.
        settings: that it finds in its environment.
        told: anything that JSON can say.
        log_file: where its standard error goes.
    """
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"tests.bench.{module}", json.dumps(told)],
            cwd=ROOT,
            env={**os.environ, **environment(settings)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )


def run_child(module: str, settings: Settings, told: Mapping[str, Any], log_file: Path) -> Any:
    """Runs a module as `start_child` does; gives what it answers.

    Raises:
        RuntimeError: it failed.
    """
    child = start_child(module, settings, told, log_file)
    try:
        answered, _ = child.communicate(timeout=CHILD_TIMEOUT_S)
    finally:
        child.kill()
    if child.returncode:
        raise RuntimeError(f"{module} ended with {child.returncode}:\n{log_file.read_text()[-TAIL:]}")
    return json.loads(answered.splitlines()[-1])


def asked() -> dict[str, Any]:
    """What this process is told."""
    told: dict[str, Any] = json.loads(sys.argv[1])
    return told


def answer(found: Any) -> None:
    """Tells the parent process what was found."""
    sys.stdout.buffer.write(b"\n" + msgspec.json.encode(found) + b"\n")
    sys.stdout.buffer.flush()


def peak_memory_mib(pid: int) -> float:
    """The most memory that a process has had."""
    return memory_mib("VmHWM", pid)


def memory_mib(kind: str, pid: int | str = "self") -> float:
    """A process's memory.

    Args:
        kind: as in the process's status: RssAnon is its own, RssFile that of mapped files.
        pid: of the process.
    """
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(f"{kind}:"))
    return int(found.split()[1]) / 1_024
