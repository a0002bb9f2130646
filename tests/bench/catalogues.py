"""Lists against the size of the catalogue: users refreshed a second by the ranker, and by queries to the store.

One process a size, on the embedded store, with no broker. All three serve the same users, who have sets of signals as
Zipf's law makes them: the ranker makes whole lists, 256 at a time (candidates, features, diversity, reasons); the
others find the ten items nearest to each user alone: penchant's catalogue in memory for all users at once, and the
store asked one by one, or in one request. Memory holds each catalogue here (`recommend.exact_items`).
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penchant.profile.profiles import Profile
from penchant.profile.shelf import Wanted
from penchant.profile.store.base import SearchFilter
from penchant.settings import Settings, load_settings
from penchant.streams.worker import Parts, build_parts, tune_process
from tests.bench.filling import signals_of, updater_of
from tests.bench.result import Cell, Curve, Part, Table, median
from tests.bench.rig import Rig, answer, asked, memory_mib, run_child
from tests.bench.throughput import filled, prepared_stage
from tests.bench.world import made_clicks

__all__ = ["measure"]

KEY = "f"
PLOT = "catalogue"
CONTENT = "content"
COUNT = 10
SIGNALS = 100  # of a user, on average
MOST_ROUNDS = 9
RANKER, NEAREST, ONE_BY_ONE, BATCHED = (
    "penchant's lists", "penchant's nearest items", "queries one by one", "one batched query",
)  # fmt: skip


async def rates(settings: Settings, *, items: int, users: int, seconds: float) -> dict[str, Any]:
    """Users served a second, round by round, on a store that holds so many items.

    Args:
        settings: of the store.
        items: in it.
        users: served at a time.
        seconds: about how long each contestant has in all.
    """
    tune_process()  # as a worker does
    holding = settings.recommend.model_copy(update={"exact_items": max(settings.recommend.exact_items, items)})
    parts = build_parts(settings.model_copy(update={"recommend": holding}))
    await parts.open()
    before = memory_mib("RssAnon")
    shelving = asyncio.create_task(parts.ranker.shelf.run())
    try:
        while not parts.ranker.shelf.stocked:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.1)
        profiles = await known(settings, parts, items, users)
        calibration = await parts.calibrations.in_force(settings.recommend.calibrate_at)
        if calibration is not None:
            parts.ranker.calibrate(calibration)
        moments = [profile.state.as_of for profile in profiles]
        contestants: dict[str, Callable[[int], Awaitable[object]]] = {
            RANKER: lambda count: parts.ranker.rank(profiles[:count], moments[:count]),
            NEAREST: lambda count: nearest(parts, profiles[:count]),
            ONE_BY_ONE: lambda count: one_by_one(parts, profiles[:count]),
            BATCHED: lambda count: batched(parts, profiles[:count]),
        }
        first = {name: await timed(contestant, 1) for name, contestant in contestants.items()}
        # Whole batches by the ranker, whatever they take; of queries as many as there is time for.
        first[RANKER] = await timed(contestants[RANKER], users)
        counts = {name: min(users, max(8, int(seconds / took / 2))) for name, took in first.items()}
        counts[RANKER] = users
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(max(1, min(MOST_ROUNDS, int(seconds / first[RANKER])))):
            for name, contestant in contestants.items():
                found[name].append(counts[name] / await timed(contestant, counts[name]))
        return {"rates": found, "first": first[RANKER], "mib": memory_mib("RssAnon") - before}
    finally:
        shelving.cancel()
        await parts.store.close()


async def known(settings: Settings, parts: Parts, items: int, users: int) -> list[Profile]:
    """Users with a past."""
    clicks = made_clicks(users * SIGNALS, users=users, items=items, prefix="past")
    updater = updater_of(settings, parts)
    signals = signals_of(clicks, settings)
    await updater.apply(signals)
    return list((await updater.read(signals)).values())


async def timed(contestant: Callable[[int], Awaitable[object]], count: int) -> float:
    """Seconds that a contestant takes for so many users."""
    began = time.perf_counter()
    await contestant(count)
    return time.perf_counter() - began


async def nearest(parts: Parts, profiles: Sequence[Profile]) -> None:
    """What the ranker asks for first: the nearest items of all users, without those that they have met."""
    wanted = [
        Wanted(
            vector=one.interest,
            author=parts.identity.author(one.user),  # "" is the catalogue's: it would leave out everything
            state=one.state,
        )
        for one in profiles
    ]
    await parts.ranker.shelf.search(wanted, limit=COUNT, least=COUNT)


async def one_by_one(parts: Parts, profiles: Sequence[Profile]) -> None:
    """A query for each user."""
    for profile in profiles:
        await batched(parts, [profile])


async def batched(parts: Parts, profiles: Sequence[Profile]) -> None:
    """One request for all users."""
    queries = [(profile.interest, SearchFilter()) for profile in profiles]
    await parts.store.search(parts.items.layout.name, CONTENT, queries, limit=COUNT, payload=("item_id",))


def measure(rig: Rig) -> Part:
    """Measures at each size."""
    began = time.monotonic()
    sizes = rig.sizes
    rows: list[list[Cell]] = []
    by_name: dict[str, list[float]] = {}
    for items in sizes.catalogues:
        with prepared_stage(rig, f"catalogue-{items}") as stage:
            started = time.monotonic()
            filled(rig, stage, items)
            rig.say(f"stored {items:,} items in {time.monotonic() - started:.0f} s")
            told = {"items": items, "users": sizes.ranked, "seconds": sizes.catalogue_s}
            found = run_child("catalogues", stage.settings, told, rig.folder / "catalogues.log")
        shutil.rmtree(stage.settings.data_dir)
        middle = {name: median(some) or 0.0 for name, some in found["rates"].items()}
        for name, rate in middle.items():
            by_name.setdefault(name, []).append(rate)
        by_list, by_search = (
            median([one / other for one, other in zip(found["rates"][name], found["rates"][ONE_BY_ONE], strict=True)])
            for name in (RANKER, NEAREST)
        )
        rows.append(
            [
                f"{items:,} items", middle[RANKER], 1_000 / middle[RANKER], middle[NEAREST], middle[ONE_BY_ONE],
                middle[BATCHED], by_search, by_list, len(found["rates"][RANKER]), found["first"], found["mib"],
            ]
        )  # fmt: skip
        rig.say(f"{items:,} items: {', '.join(f'{name} {rate:,.0f}' for name, rate in middle.items())} users/s")
    table = Table(
        title=f"Users served a second, {sizes.ranked} at a time",
        columns=(
            "",
            "penchant's lists/s",
            "ms a list",
            "penchant's nearest, users/s",
            "one by one, users/s",
            "batched query, users/s",
            "nearest / one by one (wanted: 5)",
            "lists / one by one",
            "rounds",
            "the first lists, s",
            "memory, MiB",
        ),
        rows=rows,
    )  # fmt: skip
    curves = [Curve(name=name, x=list(sizes.catalogues), y=some) for name, some in by_name.items()]
    return Part(key=KEY, title="Catalogues", tables=[table], curves={PLOT: curves}, seconds=time.monotonic() - began)


if __name__ == "__main__":
    answer(asyncio.run(rates(load_settings(), **asked())))
