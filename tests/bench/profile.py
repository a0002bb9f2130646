"""Where the interest lane's time goes: `InterestHandler.handle` and `.refresh` in this process, by module.

    python -m tests.bench.profile

Batches of clicks on a real store, some of them profiled by cProfile. All threads that the event loop asks are put in
line with it, so that the engine's time is seen where it is waited for. A module's time is that of its own functions
and of whatever they call outside of penchant: numpy, the engine, msgspec. cProfile makes small functions look dearer
than they are, so rates are taken without it.
"""

import argparse
import asyncio
import concurrent.futures
import cProfile
import pstats
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from penchant.parts import Parts, build_parts
from penchant.profile.store.edge import EdgeStore
from penchant.settings import Settings, load_settings
from penchant.streams.affinity import AffinityHandler
from penchant.streams.connection import partition_of
from penchant.streams.interest import InterestHandler
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Handled
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from tests.bench.filling import updater_of
from tests.bench.report import as_markdown
from tests.bench.result import Table, median
from tests.bench.world import fill, made_clicks

USERS, ITEMS, BATCH, LISTS = 2_000, 5_000, 4_096, 256
WARM, TIMED, PROFILED = 6, 4, 2  # batches
PARTITIONS = 3
LEAST_SHARE = 0.005  # of the time, of a module that is shown
PACKAGE = "penchant"
ROOMS = ("encoders", "profile", "streams")  # which the package links to, and whose files are named by either path
ROOT = Path(__file__).resolve().parents[2]
LOOP = "event loop"
# What passes calls on: files, or folders of files.
PLUMBING = frozenset({Path(__file__), Path(asyncio.__file__).parent, Path(concurrent.futures.__file__).parent})

T = TypeVar("T")
Code = tuple[str, int, str]  # file, line, function


class InLine(ThreadPoolExecutor):
    """Does at once what it is asked for."""

    def submit(self, call: Callable[..., T], /, *arguments: Any, **options: Any) -> "Future[T]":
        """Calls."""
        done: Future[T] = Future()
        try:
            done.set_result(call(*arguments, **options))
        except BaseException as error:  # noqa: BLE001  it is raised where someone waits
            done.set_exception(error)
        return done


class Stages:
    """Time by module of what was profiled."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()
        self.count = 0

    async def watch(self, awaitable: Awaitable[T], count: int) -> T:
        """Profiles something that does so many things."""
        self.count += count
        self._profile.enable()
        try:
            return await awaitable
        finally:
            self._profile.disable()

    def table(self, title: str, unit: str, per: int) -> Table:
        """What each module takes, for so many things."""
        seconds = by_module(self._profile)
        total = sum(seconds.values())
        rows = [
            [name, 1_000 * took * per / self.count, f"{took / total:.0%}"]
            for name, took in seconds.most_common()
            if took > LEAST_SHARE * total
        ]
        return Table(title=title, columns=("", f"ms for {unit}", "share"), rows=rows)


def by_module(profile: cProfile.Profile) -> Counter[str]:
    """Seconds by module of the package."""
    found: Counter[str] = Counter()
    stats: dict[Code, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # its annotations lack it
    for code, (_, _, own, _, callers) in stats.items():
        name = module(code)
        if name is not None:
            found[name] += own
        for caller, (_, _, _, within) in callers.items():
            calling = module(caller)
            if name is None and calling is not None:
                found[calling] += within
            elif name is not None and calling is None:  # called back, in the time of whoever called outside
                for asker, share in askers(stats[caller][4]).items():
                    found[asker] -= within * share
    return found


def askers(callers: dict[Code, Any]) -> dict[str, float]:
    """Which modules of the package call a function, and their shares of its time."""
    within: Counter[str] = Counter()
    for caller, (_, _, _, took) in callers.items():
        if (name := module(caller)) is not None:
            within[name] += took
    total = sum(within.values())
    return {name: took / total for name, took in within.items()} if total else {}


def module(code: Code) -> str | None:
    """The module of the package that a function is in, or "event loop"; None for those outside."""
    file = Path(code[0])
    if file in PLUMBING or file.parent in PLUMBING:
        return LOOP
    if not file.is_relative_to(ROOT) or file.is_relative_to(ROOT / ".venv"):
        return None
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[:2] == ("src", PACKAGE):
        parts = parts[2:]
    return ".".join(parts) if parts[0] in ROOMS else None


def batch_of(settings: Settings, number: int) -> Batch:
    """The next records, as a lane takes them."""
    topic = settings.prefixed(Topic.CLICKS)
    clicks = made_clicks(BATCH, users=USERS, items=ITEMS, prefix=f"batch-{number}", seed=number)
    now = time.time_ns() // 1_000_000
    records = [
        Record(
            topic=topic,
            partition=partition_of(key, PARTITIONS),
            offset=number * BATCH + place,
            timestamp=now,
            key=key,
            value=value,
        )
        for place, (key, value) in enumerate(clicks.encoded())
    ]
    settled = dict.fromkeys(range(PARTITIONS), number * BATCH)
    return Batch(topic=topic, records=records, assignments=dict.fromkeys(range(PARTITIONS), 1), settled=settled)


def told(settings: Settings, handled: Handled, number: int) -> Batch:
    """What a batch has told the affinity lane, as that takes it."""
    topic = settings.prefixed(Topic.TRANSITIONS)
    records = [
        Record(
            topic=topic,
            partition=0,
            offset=number * BATCH + place,
            timestamp=0,
            key=output.key,
            value=output.value,
            headers=output.headers,
        )
        for place, (_, output) in enumerate(handled.outputs)
        if output.topic == topic
    ]
    return Batch(topic=topic, records=records, assignments={0: 1})


def due_of(handled: Handled) -> list[Due]:
    """Users to make lists for."""
    return [Due(user=user, touch=touch) for user, touch in list(handled.touched.items())[:LISTS]]


async def handler_on(settings: Settings, parts: Parts) -> InterestHandler:
    """The interest lane's handler, as a worker has it."""
    await fill(parts, ITEMS)
    calibration = await parts.calibrations.in_force(settings.recommend.calibrate_at)
    assert calibration is not None
    parts.ranker.calibrate(calibration)
    reader = Reader(parts.identity, settings.profile)
    return InterestHandler(settings, reader, updater_of(settings, parts), parts.vectors, parts.ranker)


async def profiled(settings: Settings) -> list[Table]:
    """Handles batches and makes lists: some to get warm, some by the clock, some under the profiler."""
    asyncio.get_running_loop().set_default_executor(InLine())
    parts = build_parts(settings)
    if isinstance(parts.store, EdgeStore):
        parts.store.engine = InLine()
    await parts.open()
    handler = await handler_on(settings, parts)
    shelving = asyncio.create_task(parts.ranker.shelf.run())
    while not parts.ranker.shelf.stocked:  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0.1)
    learning = AffinityHandler(settings, parts.rows)
    handling, listing = Stages(), Stages()
    events: list[float] = []
    lists: list[float] = []
    for number in range(WARM + TIMED + PROFILED):
        batch = batch_of(settings, number)
        if number < WARM + TIMED:
            began = time.perf_counter()
            handled = await handler.handle(batch)
            events.append(BATCH / (time.perf_counter() - began))
            await learning.handle(told(settings, handled, number))
            began = time.perf_counter()
            await handler.refresh(due_of(handled))
            lists.append(LISTS / (time.perf_counter() - began))
        else:
            handled = await handling.watch(handler.handle(batch), BATCH)
            await learning.handle(told(settings, handled, number))
            await listing.watch(handler.refresh(due_of(handled)), LISTS)
    shelving.cancel()
    await parts.store.close()
    rates = Table(
        title=f"Without the profiler, in one thread, {BATCH:,} events and {LISTS} lists at a time",
        columns=("", "a second"),
        rows=[["events handled", median(events[WARM:])], ["lists made", median(lists[WARM:])]],
    )
    return [
        rates,
        handling.table("Handling events", "1,000 events", 1_000),
        listing.table("Making lists", "100 lists", 100),
    ]


def main(arguments: Sequence[str]) -> None:
    """Profiles, and prints tables."""
    argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__).parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="penchant-profile-") as folder:
        tables = asyncio.run(profiled(load_settings(data_dir=Path(folder))))
    sys.stdout.write("\n".join(map(as_markdown, tables)))


if __name__ == "__main__":
    main(sys.argv[1:])
