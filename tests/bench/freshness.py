"""Freshness: how long after a click its user's list is there that knows of it.

Clicks are sent in an open loop by a process of their own, at moments drawn from a Poisson process, and lists are
received by another one. Latency is from just before a click is handed to the producer to the moment at which a reader
of committed records has the first list of that user that covers it; all clocks are one.

A user's *first* click is one that finds no list of that user within the last interval of lists, and no other click
waiting. The others are coalesced behind one: their lists wait, on purpose, until the user's next one is due.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from subprocess import Popen

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.streams import interest
from penchant.streams.topics import Topic
from penchant.streams.worker import LANES
from tests.bench import ordinary
from tests.bench.result import Cell, Curve, Part, Table, percentiles
from tests.bench.rig import Backlog, Rig, run_child, start_child
from tests.bench.throughput import ORDINARY, create_topic, filled, prepared_stage
from tests.bench.world import ACTIONS, Clicks, made_clicks, send
from tests.stage import Stage, Worker

__all__ = ["Exchange", "Latencies", "answers", "latencies", "measure"]

KEY = "e"
PLOT = "freshness"
NS = 1_000_000_000
MS = 1_000
SETTLE_S = 90.0
LOOK_S = 0.2
PROBE_S = 0.05  # between two probes
PROBES_BEFORE_S = 5.0
CURVE = np.append(np.arange(1, 100), [99.5, 99.9])

Times = NDArray[np.int64]


class Latencies(Struct, frozen=True, kw_only=True, eq=False):
    """How long clicks waited, seconds.

    Attributes:
        first: users' first clicks after a quiet interval.
        behind: those coalesced behind one.
        unanswered: clicks that no list has covered.
    """

    first: Sequence[float]
    behind: Sequence[float]
    unanswered: int


class Exchange(Struct, frozen=True, kw_only=True, eq=False):
    """What was sent, in order, and what came of it: n clicks, and when a list covered each, or 0."""

    users: Times
    sent: Times
    answered: Times


def latencies(exchange: Exchange, interval_s: float) -> Latencies:
    """Divides clicks into first ones and others.

    Args:
        exchange: moments in nanoseconds.
        interval_s: of quiet that a first one comes after.
    """
    first, behind, unanswered = [], [], 0
    last: dict[int, float] = {}  # by user, when the click before was answered; infinite: never
    for user, sent, answered in zip(
        exchange.users.tolist(), exchange.sent.tolist(), exchange.answered.tolist(), strict=True
    ):
        quiet = last.get(user, 0) < sent - interval_s * NS
        last[user] = max(last.get(user, 0), answered or np.inf)
        if not answered:
            unanswered += 1
        else:
            (first if quiet else behind).append((answered - sent) / NS)
    return Latencies(first=first, behind=behind, unanswered=unanswered)


def answers(sent: Mapping[str, Times], received: Mapping[str, NDArray[np.generic]], keys: Sequence[bytes]) -> Times:
    """When the first list of a click's user covered it, nanoseconds; 0: never.

    Args:
        sent: partitions and offsets of the clicks.
        received: moments, keys, partitions and offsets of the lists.
        keys: of the clicks.
    """
    lists: dict[tuple[bytes, int], list[tuple[int, int]]] = {}
    rows = zip(*(received[name].tolist() for name in ("keys", "partitions", "offsets", "moments")), strict=True)
    for key, partition, offset, moment in rows:
        known = lists.setdefault((key, partition), [])
        if not known or offset > known[-1][0]:
            known.append((offset, moment))
    arrays = {source: np.array(known).T for source, known in lists.items()}
    found = np.zeros(len(keys), np.int64)
    for number, source in enumerate(zip(keys, sent["partitions"].tolist(), strict=True)):
        if source in arrays:
            offsets, moments = arrays[source]
            place = np.searchsorted(offsets, sent["offsets"][number])
            found[number] = moments[place] if place < len(moments) else 0
    return found


class Line:
    """From clicks to lists, as seen from outside: sends what is planned, and receives what comes of it.

    Args:
        rig: what measurements are made with.
        stage: whose clicks they are.
        lists: the topic that lists come on.
        group: that makes them.
    """

    def __init__(self, rig: Rig, stage: Stage, *, lists: str, group: str) -> None:
        self.rig = rig
        self.stage = stage
        self.folder = stage.settings.data_dir.parent
        self.topic = stage.topic(Topic.CLICKS)
        self._lists = lists
        self._group = group
        self._number = 0

    def settle(self) -> float:
        """Waits until all clicks are committed, or for so long; gives how long it took."""
        began = time.monotonic()
        with Backlog(self.stage.settings, self._group, self.topic) as backlog:
            while backlog.records() and time.monotonic() - began < SETTLE_S:
                time.sleep(LOOK_S)
        return time.monotonic() - began

    def exchange(self, clicks: Clicks, due: NDArray[np.float64]) -> Exchange:
        """Sends clicks when they are due, and waits for their lists."""
        self._number += 1
        plan, sent, received = (self.folder / f"{name}-{self._number}.npz" for name in ("plan", "sent", "received"))
        np.savez(plan, due=due, prefix=clicks.prefix, users=clicks.users, items=clicks.items, actions=clicks.actions)
        settings, log_file = self.stage.settings, self.folder / "exchange.log"
        told = {"topic": self._lists, "clicks": self.topic, "received": str(received)}
        receiver = start_child("receiving", settings, told, log_file)
        try:
            await_line(receiver)
            run_child("sending", settings, {"topic": self.topic, "plan": str(plan), "sent": str(sent)}, log_file)
            self.settle()
            time.sleep(1)  # the last lists are on their way
            receiver.communicate(timeout=60)
        finally:
            receiver.kill()
        keys = [key for key, _ in clicks.encoded()]
        with np.load(sent) as said, np.load(received) as heard:
            return Exchange(users=clicks.users, sent=said["moments"], answered=answers(said, heard, keys))

    def at_rate(self, rate: int) -> Exchange:
        """Clicks at a rate, at moments of a Poisson process."""
        sizes = self.rig.sizes
        count = round(rate * sizes.rate_s)
        due = np.cumsum(np.random.default_rng(rate).exponential(1 / rate, count))
        clicks = made_clicks(count, users=sizes.users, items=sizes.items, prefix=f"rate-{self._number}", seed=rate)
        return self.exchange(clicks, due)


def await_line(child: Popen[bytes]) -> None:
    """Waits until a child says that it is there."""
    assert child.stdout
    while (line := child.stdout.readline()) == b"\n":
        pass
    if not line:
        raise RuntimeError("the receiver ended at once")


def measure(rig: Rig) -> Part:
    """Measures penchant with all lanes in one worker, then the ordinary agent."""
    began = time.monotonic()
    rows: list[list[Cell]] = []
    curves: list[Curve] = []
    behind_rows: list[list[Cell]] = []
    burst = Table(title="", columns=(), rows=())
    for name, open_line in (("penchant", penchant_line), (ORDINARY["faust"], ordinary_line)):
        stage = prepared_stage(rig, name.replace(" ", "-"))
        interval_s = stage.settings.recommend.interval_s
        with stage:
            line, process = open_line(rig, stage)
            try:
                time.sleep(interval_s)
                for rate in rig.sizes.rates:
                    found = latencies(line.at_rate(rate), interval_s)
                    row = [*in_ms(found.first), MS * max(found.first, default=0.0), len(found.first), found.unanswered]
                    rig.say(f"{name} at {rate} events/s: {shown(row)}")
                    rows.append([f"{name}, {rate:,} events/s", *row])
                    behind_rows.append([f"{name}, {rate:,} events/s", *in_ms(found.behind), len(found.behind)])
                    curves.append(curve(f"{name}, {rate:,}/s", found.first))
                    time.sleep(interval_s)
                if name == "penchant":
                    burst = through_burst(line)
            finally:
                process.kill()
                process.wait()
        shutil.rmtree(stage.settings.data_dir)
    columns = ("", "p50 ms", "p99 ms", "p99.9 ms")
    tables = [
        Table(
            title="From a user's first click after a quiet interval to the list",
            columns=(*columns, "longest ms", "clicks", "unanswered"),
            rows=rows,
        ),
        Table(title="Clicks coalesced behind another one", columns=(*columns, "clicks"), rows=behind_rows),
        burst,
    ]
    return Part(key=KEY, title="Freshness", tables=tables, curves={PLOT: curves}, seconds=time.monotonic() - began)


def penchant_line(rig: Rig, stage: Stage) -> tuple[Line, Popen[bytes]]:
    """A worker of all lanes that knows its users."""
    filled(rig, stage, rig.sizes.items)
    history(rig, stage)
    worker = Worker(stage.settings, LANES, stage.log_file).await_ready()
    group = stage.settings.prefixed(interest.GROUP)
    line = Line(rig, stage, lists=stage.topic(Topic.RECOMMENDATIONS), group=group)
    line.settle()
    return line, worker.process


def ordinary_line(rig: Rig, stage: Stage) -> tuple[Line, Popen[bytes]]:
    """The ordinary Faust agent."""
    sizes = rig.sizes
    group = stage.settings.prefixed("ordinary")
    ordinary.make_store(stage.settings.data_dir / "store", users=sizes.users, items=sizes.items)
    create_topic(stage, ordinary.lists_of(group))
    told = {"kind": "faust", "topic": stage.topic(Topic.CLICKS), "group": group, "seconds": 0}
    process = start_child("ordinary", stage.settings, told, stage.log_file)
    line = Line(rig, stage, lists=ordinary.lists_of(group), group=group)
    send(stage.settings, line.topic, made_clicks(100, users=sizes.users, items=sizes.items, prefix="first"))
    line.settle()
    return line, process


def history(rig: Rig, stage: Stage) -> None:
    """What users have done before."""
    sizes = rig.sizes
    clicks = made_clicks(sizes.history, users=sizes.users, items=sizes.items, prefix="history", seed=0)
    send(stage.settings, stage.topic(Topic.CLICKS), clicks)


def through_burst(line: Line) -> Table:
    """A burst, with probes before, within and after: clicks of users who do nothing else."""
    sizes = line.rig.sizes
    probes = np.arange(round((PROBES_BEFORE_S + sizes.rate_s) / PROBE_S))
    of_burst = made_clicks(sizes.burst, users=sizes.users, items=sizes.items, prefix="", seed=1)
    due = np.concatenate([probes * PROBE_S, np.full(sizes.burst, PROBES_BEFORE_S)])
    order = np.argsort(due, kind="stable")
    likes = np.full(len(probes), len(ACTIONS) - 1)
    clicks = Clicks(
        prefix="burst",
        users=np.concatenate([sizes.users + probes, of_burst.users])[order],
        items=np.concatenate([probes % sizes.items, of_burst.items])[order],
        actions=np.concatenate([likes, of_burst.actions])[order],
    )
    found = line.exchange(clicks, due[order])
    is_probe = clicks.users >= sizes.users
    answered, sent = found.answered, found.sent
    drained, begun = answered[~is_probe].max(), sent[~is_probe].min()
    waited = (answered - sent) / NS
    line.rig.say(f"a burst of {sizes.burst:,}: {(drained - begun) / NS:.1f} s until every user has their list")
    rows: list[list[Cell]] = []
    for name, chosen in (
        ("probes answered before", answered < begun),
        ("probes within", (answered >= begun) & (sent < drained)),
        ("probes after", sent >= drained),
    ):
        some = waited[is_probe & chosen & (answered > 0)].tolist()
        rows.append([name, *in_ms(some), MS * max(some, default=0.0), len(some)])
    some = waited[~is_probe & (answered > 0)].tolist()
    rows.append(["clicks of the burst", *in_ms(some), MS * max(some, default=0.0), len(some)])
    return Table(
        title=f"Through a burst of {sizes.burst:,} clicks at once, which took {(drained - begun) / NS:.1f} s",
        columns=("", "p50 ms", "p99 ms", "p99.9 ms", "longest ms", "clicks"),
        rows=rows,
    )


def in_ms(values: Sequence[float]) -> list[Cell]:
    """Percentiles of seconds, in milliseconds."""
    return [None if one is None else MS * one for one in percentiles(values)]


def curve(name: str, values: Sequence[float]) -> Curve:
    """Share of clicks by latency, milliseconds."""
    points = (np.percentile(values, CURVE) * MS).tolist() if values else []
    return Curve(name=name, x=points, y=CURVE.tolist() if values else [])


def shown(row: Sequence[Cell]) -> str:
    """Figures in one line."""
    return ", ".join("-" if one is None else one if isinstance(one, str) else f"{one:.1f}" for one in row)
