"""Start-up: from starting the process to the moment at which `/readyz` says that all lanes have joined their groups.

Models load behind that, while the lanes work. A worker that starts again finds its store, its offsets and its name in
the group as it left them; here it was killed, as in a crash. The engine looks through its files when it loads them, so
it matters whether the system still has them in memory; a worker on many profiles is started either way.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from penchant.streams.worker import LANES
from tests.bench.result import Cell, Part, Table, median
from tests.bench.rig import Rig
from tests.bench.throughput import filled, prepared_stage
from tests.stage import START_TIMEOUT_S, Stage, Worker

__all__ = ["measure"]

KEY = "h"
LOOK_S = 0.01


def started(stage: Stage) -> float:
    """Starts a worker of all lanes, and kills it; gives the seconds until it was ready."""
    with Worker(stage.settings, LANES, stage.log_file) as worker:
        worker.await_that(worker.ready, "all lanes have joined", START_TIMEOUT_S, pause_s=LOOK_S)
        return time.monotonic() - worker.started


def put_out_of_memory(folder: Path) -> None:
    """Has the system read a folder's files from the disk when they are next asked for, as after it was started."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened)  # what is not written yet stays
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(rig: Rig) -> Part:
    """Starts workers: on nothing, on a catalogue, and on a catalogue and profiles, from memory and from the disk."""
    began = time.monotonic()
    sizes = rig.sizes
    rows: list[list[Cell]] = []

    def row(name: str, start: Callable[[int], float]) -> None:
        took = [start(number) for number in range(sizes.rounds)]
        rows.append([name, median(took), ", ".join(f"{one:.2f}" for one in took)])
        rig.say(f"start-up, {name}: {rows[-1][2]} s")

    def on_nothing(number: int) -> float:
        with prepared_stage(rig, f"start-{number}") as stage:
            return started(stage)

    def from_disk(stage: Stage) -> float:
        put_out_of_memory(stage.settings.data_dir)
        return started(stage)

    row("nothing: first start in a new namespace", on_nothing)
    for name, profiles in (
        (f"{sizes.items:,} items", 0),
        (f"{sizes.items:,} items and {sizes.stored:,} profiles", sizes.stored),
    ):
        with prepared_stage(rig, f"start-{profiles}-profiles") as stage:
            filling = time.monotonic()
            filled(rig, stage, sizes.items, profiles)
            if profiles:
                rig.say(f"stored {profiles:,} profiles in {time.monotonic() - filling:.0f} s")
            started(stage)  # joins its groups for the first time
            row(name, lambda _, stage=stage: started(stage))
            if profiles:
                row(f"{name}, read from the disk", lambda _, stage=stage: from_disk(stage))
        shutil.rmtree(stage.settings.data_dir)
    table = Table(title="Seconds until ready", columns=("", "s", "by round"), rows=rows)
    return Part(key=KEY, title="Start-up", tables=[table], seconds=time.monotonic() - began)
