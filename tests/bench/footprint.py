"""Bytes per user and per item: on the disk, in memory, and as they go to a server.

All by the difference between a store with many and one with few or none. Disk is what files really take (they have
holes), after a flush, and without the write-ahead log, which grows to the same size whatever there is. Memory is what
a process that opens the store and reads everything once holds of its own; mapped files come on top of that, as far as
the system has room, and go when it has not. A server is sent the same payloads and vectors.
"""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from penchant.parts import build_parts
from penchant.profile.store.base import SearchFilter
from penchant.settings import Settings, load_settings
from tests.bench.filling import signals_of, updater_of
from tests.bench.result import Cell, Part, Table
from tests.bench.rig import Rig, answer, asked, memory_mib, run_child
from tests.bench.throughput import prepared_stage
from tests.bench.world import ACTIONS, Clicks, fill, user_id

__all__ = ["measure"]

KEY = "g"
BLOCK = 512  # bytes, in which stat counts
MIB = 2**20
FLOAT = 4
LOG = "wal"
FEW = 20  # signals of a user who has just come
FIRST_SHARE = 10  # one item in so many is there before: what reading takes once is not weighed
FULL_SHARE = 5  # one user in so many has a full set, which takes as long to make as twenty small ones
PAGE = 16  # points read at a time: what reading itself leaves behind is not weighed
VIEW, LIKE = 0, len(ACTIONS) - 1  # a weak and a strong signal


async def write(settings: Settings, *, items: int, users: int, signals: int) -> None:
    """Fills a store with items, and with users of so many signals each, half of them strong."""
    parts = build_parts(settings)
    await parts.open()
    await fill(parts, items)
    if users:
        numbers = np.arange(users * signals)
        clicks = Clicks(
            prefix="past",
            users=numbers % users,
            items=np.random.default_rng(0).integers(0, items, len(numbers)),
            actions=np.where(numbers // users % 2, VIEW, LIKE),
        )
        await updater_of(settings, parts).apply(signals_of(clicks, settings))
    await parts.store.flush()
    await parts.store.close()


async def weigh(settings: Settings, *, users: int) -> dict[str, float]:
    """Bytes of a store that has been written: in memory, and as a server is sent them."""
    parts = build_parts(settings)
    before = memory_mib("RssAnon")
    await parts.open()
    sent = {"items": 0, "users": 0}
    layouts = {"items": parts.items.layout, "users": parts.profiles.layout}
    for kind, layout in layouts.items():
        async for point in parts.store.scroll(layout.name, SearchFilter(), vectors=tuple(layout.vectors), page=PAGE):
            sent[kind] += len(msgspec.json.encode(point.payload)) + sum(
                FLOAT * len(one) for one in point.vectors.values()
            )
    opened = memory_mib("RssAnon")
    kept = await parts.profiles.load(map(user_id, range(users)))
    found = {
        "store": (opened - before) * MIB,
        "kept": (memory_mib("RssAnon") - opened) * MIB,
        "disk": float(on_disk(settings.data_dir / "store")),
        **sent,
    }
    kept.clear()
    await parts.store.close()
    return found


async def run(settings: Settings, *, task: str, **told: Any) -> dict[str, float] | None:
    """One of the two; each in a process of its own, so that writing leaves nothing in the memory that is weighed."""
    return await weigh(settings, **told) if task == "weigh" else await write(settings, **told)


def on_disk(folder: Path) -> int:
    """Bytes that a folder's files really take, logs left out."""
    return sum(file.stat().st_blocks * BLOCK for file in folder.rglob("*") if LOG not in file.parts)


def measure(rig: Rig) -> Part:
    """Weighs stores that differ in one thing each."""
    began = time.monotonic()
    count = rig.sizes.weighed
    limits = 0
    found: list[dict[str, float]] = []
    first, full = count // FIRST_SHARE, count // FULL_SHARE
    cases = (("first", first, 0, 0), ("items", count, 0, 0), ("few", count, count, FEW), ("full", count, full, None))
    for name, items, users, signals in cases:
        with prepared_stage(rig, f"footprint-{name}") as stage:
            limits = stage.settings.profile.strong_limit + stage.settings.profile.weak_limit
            told = {"items": items, "users": users, "signals": limits if signals is None else signals}
            log_file = rig.folder / "footprint.log"
            run_child("footprint", stage.settings, {"task": "write", **told}, log_file)
            found.append(run_child("footprint", stage.settings, {"task": "weigh", "users": users}, log_file))
        shutil.rmtree(stage.settings.data_dir)
    with_first, with_items, with_few, with_full = found
    disk, store, sent = (per(count - first, with_items, with_first, key) for key in ("disk", "store", "items"))
    rows: list[list[Cell]] = [["item", disk, store, None, sent]]
    for name, users, one in (
        (f"user of {FEW} signals", count, with_few),
        (f"user of {limits} signals, the most", full, with_full),
    ):
        rows.append([name, *(per(users, one, with_items, key) for key in ("disk", "store", "kept", "users"))])
    table = Table(
        title=f"Bytes each, of {count:,} items, {count:,} new users and {full:,} with full sets",
        columns=(
            "",
            "disk, embedded",
            "memory, embedded",
            "memory, where it is kept at hand",
            "payload and vectors, as a server is sent them",
        ),
        rows=rows,
    )
    rig.say("weighed")
    return Part(key=KEY, title="Footprint", tables=[table], seconds=time.monotonic() - began)


def per(count: int, store: dict[str, float], without: dict[str, float], key: str) -> float:
    """What one of so many adds, bytes."""
    return (store[key] - without[key]) / count


if __name__ == "__main__":
    answer(asyncio.run(run(load_settings(), **asked())))
