"""Events a second: the ceiling, the lane, the whole interest path, and the ordinary contestants; round by round.

All read one log that was produced before. Each is a process of its own, on a store of its own, in a consumer group
that has read nothing yet. What they do is counted between a tenth and nine tenths of the records. Contestants take
turns within a round, so that a machine whose speed changes bears on all alike; ratios are those of one round.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # not in its __all__
from msgspec import Struct

from penchant.profile.store.edge_shard import copy_shards
from penchant.streams import interest
from penchant.streams.codec import decode
from penchant.streams.events import Recommendations
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic
from penchant.streams.worker import LANES
from tests.bench import ordinary
from tests.bench.result import Cell, Curve, Part, Table, interpolated_rate, median, window
from tests.bench.rig import Backlog, Rig, peak_memory_mib, run_child
from tests.bench.world import made_clicks, send, user_id
from tests.stage import Stage, Worker, new_stage

__all__ = ["KEYS", "ORDINARY", "create_topic", "filled", "measure", "prepared_stage"]

KEYS = ("a", "b", "c", "d")
CONSUME, LANE, WHOLE, ALL_LANES = "confluent-kafka consume", "lane with decoding", "penchant", "penchant, all lanes"
ORDINARY = {"faust": "Faust agent", "loop": "confluent loop", "coalescing": "coalescing loop"}
ORDER = (CONSUME, LANE, WHOLE, ALL_LANES, *ORDINARY.values())
# What is compared with what, and what it should be.
RATIOS = (
    (WHOLE, ORDINARY["faust"], "40"),
    (WHOLE, ORDINARY["loop"], "20"),
    (WHOLE, ORDINARY["coalescing"], "4"),
    (LANE, CONSUME, "0.5"),
)
PLOT = "throughput"
COMMITTED = "events/s, committed"
BUSIEST = 100  # users who have something new at any moment
LOOK_S = 0.25
LIST_PARTITIONS = 3


class Run(Struct, frozen=True, kw_only=True):
    """What a contestant did in a round.

    Attributes:
        rate: events a second.
        lists: a second, where it makes any.
        more: figures of its own, by name.
    """

    rate: float
    lists: float | None = None
    more: Mapping[str, float] = {}


class Arena:
    """One log on the broker, and stores to start from.

    Args:
        rig: what measurements are made with.
    """

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.stage = prepared_stage(rig, "throughput")
        self.folder = self.stage.settings.data_dir
        self.topic = self.stage.topic(Topic.CLICKS)
        self._numbers = itertools.count()

    def open(self, keys: set[str]) -> None:
        """Produces the log, and fills the stores that are needed."""
        sizes = self.rig.sizes
        produce_log(self.rig, self.stage)
        if "c" in keys:
            self.rig.say("filling a store")
            filled(self.rig, self.stage, sizes.items)
        if "d" in keys:
            ordinary.make_store(self.folder / "ordinary", users=sizes.users, items=sizes.items)

    def fresh(self) -> tuple[Stage, str]:
        """The stage on a folder that is empty, and a name that no group has had."""
        name = f"round-{next(self._numbers)}"
        folder = self.folder / name
        return Stage(self.stage.settings.model_copy(update={"data_dir": folder}), folder), name

    def child(self, module: str, stage: Stage, group: str, **told: Any) -> Any:
        """Runs a contestant that is a module of this folder."""
        told = {"topic": self.topic, "group": group, **told}
        return run_child(module, stage.settings, told, stage.settings.data_dir / "log")

    def ceiling(self) -> Run:
        """Consumes, and does nothing."""
        found = self.child("ceiling", *self.fresh(), events=self.rig.sizes.events)
        return Run(rate=interpolated_rate(found["marks"]))

    def lane(self) -> Run:
        """Decodes."""
        found = self.child("decoding", *self.fresh(), events=self.rig.sizes.events)
        took = found["committed"] - found["marks"][0][0]
        return Run(rate=interpolated_rate(found["marks"]), more={COMMITTED: self.rig.sizes.events / took})

    def whole(self) -> Run:
        """The interest lane of a worker."""
        stage, _ = self.fresh()
        copy_shards(self.folder / "store", stage.settings.data_dir / "store")
        return watched(stage, (interest.LANE,), self.rig.sizes.events, self.rig.sizes.most_s)

    def ordinary(self, kind: str) -> Run:
        """An ordinary contestant."""
        stage, group = self.fresh()
        copy_shards(self.folder / "ordinary", stage.settings.data_dir / "store")
        create_topic(stage, ordinary.lists_of(group))
        found = self.child("ordinary", stage, group, kind=kind, seconds=self.rig.sizes.ordinary_s)
        return Run(rate=interpolated_rate(found["marks"]), lists=interpolated_rate(found["lists"]))


def measure(rig: Rig, keys: Iterable[str]) -> Part:
    """Measures what is asked for of `KEYS`."""
    began = time.monotonic()
    keys = set(keys)
    arena = Arena(rig)
    contestants: dict[str, Callable[[], Run]] = {}
    if "a" in keys:
        contestants[CONSUME] = arena.ceiling
    if "b" in keys:
        contestants[LANE] = arena.lane
    if "c" in keys:
        contestants[WHOLE] = arena.whole
    if "d" in keys:
        contestants |= {name: lambda kind=kind: arena.ordinary(kind) for kind, name in ORDINARY.items()}
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    with arena.stage:
        arena.open(keys)
        for number in range(1, rig.sizes.rounds + 1):
            for name, contestant in contestants.items():
                run = contestant()
                rig.say(f"round {number}, {name}: {run.rate:,.0f} events/s")
                runs[name].append(run)
    if "c" in keys:
        runs[ALL_LANES] = [all_lanes(rig)]
        runs = {name: runs[name] for name in ORDER if name in runs}
    shutil.rmtree(arena.folder)
    return part_of(runs, keys, time.monotonic() - began)


def all_lanes(rig: Rig) -> Run:
    """All lanes of a worker, on a namespace of their own: they read what others of them write."""
    with prepared_stage(rig, "all-lanes") as stage:
        produce_log(rig, stage)
        filled(rig, stage, rig.sizes.items)
        run = watched(stage, LANES, rig.sizes.events, rig.sizes.most_s)
        rig.say(f"all lanes in one worker: {run.rate:,.0f} events/s")
        shutil.rmtree(stage.settings.data_dir)
    return run


def prepared_stage(rig: Rig, name: str) -> Stage:
    """A namespace whose worker keeps one name whatever its data folder, so that it resumes its membership."""
    return new_stage(rig.broker, rig.folder / name, worker={"instance_id": "bench"})


def filled(rig: Rig, stage: Stage, items: int, profiles: int = 0) -> None:
    """Fills the store of a stage."""
    run_child("filling", stage.settings, {"items": items, "profiles": profiles}, rig.folder / "filling.log")


def produce_log(rig: Rig, stage: Stage) -> None:
    """Produces the clicks that contestants read."""
    sizes = rig.sizes
    rig.say(f"producing {sizes.events:,} events")
    clicks = made_clicks(sizes.events, users=sizes.users, items=sizes.items, prefix="event")
    send(stage.settings, stage.topic(Topic.CLICKS), clicks)


def create_topic(stage: Stage, name: str) -> None:
    """A topic for lists, as the others are."""
    made = stage.admin.create_topics([NewTopic(name, LIST_PARTITIONS, 1)])
    made[name].result(30)


def watched(stage: Stage, lanes: Sequence[str], events: int, most_s: float) -> Run:
    """Starts a worker on a log, and watches it by its metrics until all is committed, or for so long."""
    topic = stage.topic(Topic.CLICKS)
    group = stage.settings.prefixed(interest.GROUP)
    with Worker(stage.settings, lanes, stage.log_file) as worker, Backlog(stage.settings, group, topic) as backlog:
        worker.await_ready()
        marks = [(time.monotonic(), 0.0)]
        while marks[-1][1] < events and marks[-1][0] - marks[0][0] < most_s:
            time.sleep(LOOK_S)
            done = worker.metric("penchant_records_total", lane=interest.LANE, topic=topic)
            marks.append((time.monotonic(), max(done, marks[-1][1])))  # it answers nothing while it is too busy
            if worker.process.poll() is not None:
                raise RuntimeError(f"the worker ended:\n{worker.log[-4_000:]}")
        begin, end = window(marks)
        more = {"MiB at most": peak_memory_mib(worker.process.pid)}
        batches = worker.metric("penchant_batch_seconds_count", lane=interest.LANE, topic=topic)
        more["events a batch"] = marks[-1][1] / max(batches, 1)
        while marks[-1][1] >= events and time.monotonic() - marks[0][0] < 2 * most_s:
            if not backlog.records():
                more[COMMITTED] = events / (time.monotonic() - marks[0][0])
                break
            time.sleep(LOOK_S)
        worker.stop()
    lists, longest, usual = list_times(stage, begin, end)
    more |= {"longest interval, s": longest, "usual interval, s": usual}
    return Run(rate=interpolated_rate(marks), lists=lists, more=more)


def list_times(stage: Stage, begin: float, end: float) -> tuple[float, float, float]:
    """Lists a second within a time, and the longest and the median interval between two of a busy user then.

    Args:
        stage: whose lists.
        begin: seconds, monotonic.
        end: likewise. To a user's intervals belong those from the beginning to the first list and from the last to
            the end.
    """
    shift = time.time() - time.monotonic()
    busiest = {user_id(number): [begin, end] for number in range(BUSIEST)}
    count = 0
    with TopicReader(stage.settings, Topic.RECOMMENDATIONS, from_beginning=True) as reader:
        for record in reader.to_end():
            at = record.timestamp / 1_000 - shift
            if begin < at < end:
                count += 1
                times = busiest.get(decode(Recommendations, record.value, record.headers).user_id)
                if times is not None:
                    times.append(at)
    intervals = np.concatenate([np.diff(sorted(times)) for times in busiest.values()])
    return count / (end - begin), float(intervals.max()), float(np.median(intervals))


def part_of(runs: Mapping[str, Sequence[Run]], keys: set[str], seconds: float) -> Part:
    """What all rounds gave."""
    rows: list[list[Cell]] = [
        [
            name,
            median([run.rate for run in some]),
            median([run.more[COMMITTED] for run in some if COMMITTED in run.more]),
            median([run.lists for run in some if run.lists is not None]),
            ", ".join(f"{run.rate:,.0f}" for run in some),
        ]
        for name, some in runs.items()
    ]
    tables = [
        Table(
            title="Events a second",
            columns=("", "events/s", "until all is committed, events/s", "lists/s", "events/s by round"),
            rows=rows,
        )
    ]
    compared: list[list[Cell]] = []
    for above, below, wanted in RATIOS:
        if above in runs and below in runs:
            pairs = list(zip(runs[above], runs[below], strict=True))
            ratios = [one.rate / other.rate for one, other in pairs]
            to_the_end = [one.more[COMMITTED] / other.rate for one, other in pairs if COMMITTED in one.more]
            by_round = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            compared.append([f"{above} / {below}", median(ratios), wanted, by_round, median(to_the_end)])
    if compared:
        columns = ("", "ratio", "wanted", "by round", "of the first until all is committed")
        tables.append(Table(title="Ratios of events a second", columns=columns, rows=compared))
    of_workers = {name: some for name, some in runs.items() if name in {WHOLE, ALL_LANES}}
    if of_workers:
        names = ("events a batch", "usual interval, s", "longest interval, s", "MiB at most")
        tables.append(
            Table(
                title=f"While saturated: intervals between two lists of one of the {BUSIEST} busiest users",
                columns=("", *names),
                rows=[
                    [name, *(median([run.more[key] for run in some]) for key in names)]
                    for name, some in of_workers.items()
                ],
            )
        )
    bars = [Curve(name=str(row[0]), x=(), y=(float(row[1] or 0),)) for row in rows]
    return Part(key="".join(sorted(keys)), title="Throughput", tables=tables, curves={PLOT: bars}, seconds=seconds)
