"""Lists against the size of the catalogue: users refreshed a second by the ranker, and by queries to the store.

On the embedded store, with no broker; a store of each size is filled once, and every case on it is a process of its
own. All serve the same users, who have sets of signals as Zipf's law makes them, and whose likes are in the rows. The
ranker makes whole lists, 256 at a time (candidates of four sources, features, diversity, reasons); the others find the
ten items nearest to each user alone: penchant without those that the user has met, and the store asked one by one, or
in one request, for any. The largest catalogue is measured once more as if it were beyond `recommend.exact_items`, where
the store searches for the ranker as well.
"""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penchant.parts import Parts, build_parts
from penchant.profile.affinity import Transition, positives, predecessors
from penchant.profile.profiles import Profile
from penchant.profile.shelf import Wanted
from penchant.profile.store.base import SearchFilter
from penchant.settings import Settings, load_settings
from penchant.streams.process import tune_process
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
FEW = 8  # users by whom it is found out how long one takes
LEAST_ROUNDS, MOST_ROUNDS = 3, 9
STOCKING_S = 600.0
RANKER, NEAREST, ONE_BY_ONE, BATCHED = (
    "penchant's lists", "penchant's nearest items", "queries one by one", "one batched query",
)  # fmt: skip

Answers = Sequence[Sequence[object]]
Contestant = Callable[[int], Awaitable[Answers]]


async def rates(settings: Settings, *, items: int, users: int, seconds: float, in_memory: bool) -> dict[str, Any]:
    """Users served a second, round by round, on a store that holds so many items.

    Args:
        settings: of the store.
        items: in it.
        users: served at a time.
        seconds: about how long each contestant has in all.
        in_memory: whether the catalogue is, as it is by default.
    """
    tune_process()  # as a worker does
    holding = settings.recommend.model_copy(update={} if in_memory else {"exact_items": 0})
    parts = build_parts(settings.model_copy(update={"recommend": holding}))
    await parts.open()
    shelf = parts.ranker.shelf
    before, began = memory_mib("RssAnon"), time.monotonic()
    shelving = asyncio.create_task(shelf.run())
    try:
        async with asyncio.timeout(STOCKING_S):
            while in_memory and not shelf.stocked:  # noqa: ASYNC110  nobody tells
                await asyncio.sleep(0.05)
        stocked_s, mib = time.monotonic() - began, memory_mib("RssAnon") - before
        profiles = await known(settings, parts, items, users)
        calibration = await parts.calibrations.in_force(settings.recommend.calibrate_at)
        if calibration is not None:
            parts.ranker.calibrate(calibration)
        contestants: dict[str, Contestant] = {
            RANKER: lambda count: lists(parts, profiles[:count]),
            NEAREST: lambda count: nearest(parts, profiles[:count]),
            ONE_BY_ONE: lambda count: one_by_one(parts, profiles[:count]),
            BATCHED: lambda count: batched(parts, profiles[:count]),
        }
        for contestant in contestants.values():
            await contestant(1)  # reads what is read once
        # Of what takes each user as long as the last no more than there is time for.
        each = {name: (await timed(contestant, FEW))[0] / FEW for name, contestant in contestants.items()}
        counts = {name: min(users, max(FEW, int(seconds / LEAST_ROUNDS / took))) for name, took in each.items()}
        if in_memory:  # whole batches, whatever they take: together is how they are cheap
            counts |= {RANKER: users, NEAREST: users}
        longest_s, _ = max([await timed(contestant, counts[name]) for name, contestant in contestants.items()])
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for _ in range(max(LEAST_ROUNDS, min(MOST_ROUNDS, int(seconds / longest_s)))):
            for name, contestant in contestants.items():
                took, answered = await timed(contestant, counts[name])
                if answered < counts[name] * COUNT / 2:  # some users have met nearly everything
                    raise RuntimeError(f"{name}: {answered} items for {counts[name]} users; to find nothing is quick")
                found[name].append(counts[name] / took)
        if shelf.stocked != in_memory:
            raise RuntimeError(f"{items} items: not searched where they should have been")
        return {"rates": found, "stocked_s": stocked_s, "mib": mib} if in_memory else {"rates": found}
    finally:
        shelving.cancel()
        await parts.store.close()


async def known(settings: Settings, parts: Parts, items: int, users: int) -> list[Profile]:
    """Users with a past, of which the items' rows know."""
    clicks = made_clicks(users * SIGNALS, users=users, items=items, prefix="past")
    updater = updater_of(settings, parts)
    signals = signals_of(clicks, settings)
    await updater.apply(signals)
    pasts = [positives(some) for some in signals.values()]
    likes = sorted(((signal, past) for past in pasts for signal in past), key=lambda one: one[0].time)
    transitions: dict[str, list[Transition]] = {}
    for offset, (signal, past) in enumerate(likes):
        told = Transition(
            item_id=signal.item_id,
            at=signal.time,
            previous=predecessors(past, of=signal),
            origin=("past", 0),
            offset=offset,
        )
        transitions.setdefault(signal.item_id, []).append(told)
    await parts.rows.apply(transitions)
    return list((await updater.read(signals)).values())


async def timed(contestant: Contestant, count: int) -> tuple[float, int]:
    """Seconds that a contestant takes for so many users, and how many items it finds for them."""
    began = time.perf_counter()
    answers = await contestant(count)
    return time.perf_counter() - began, sum(map(len, answers))


async def lists(parts: Parts, profiles: Sequence[Profile]) -> Answers:
    """Whole lists."""
    return [one.items for one in await parts.ranker.rank(profiles, [profile.state.as_of for profile in profiles])]


async def nearest(parts: Parts, profiles: Sequence[Profile]) -> Answers:
    """What the ranker asks for first: the nearest items of all users, without those that they have met."""
    wanted = [
        Wanted(
            vector=one.interest,
            author=parts.identity.author(one.user),
            state=one.state,
        )
        for one in profiles
    ]
    return await parts.ranker.shelf.search(wanted, limit=COUNT, least=COUNT)


async def one_by_one(parts: Parts, profiles: Sequence[Profile]) -> Answers:
    """A query for each user."""
    return [found for profile in profiles for found in await batched(parts, [profile])]


async def batched(parts: Parts, profiles: Sequence[Profile]) -> Answers:
    """One request for all users."""
    queries = [(profile.interest, SearchFilter()) for profile in profiles]
    return await parts.store.search(parts.items.layout.name, CONTENT, queries, limit=COUNT, payload=("item_id",))


def measure(rig: Rig) -> Part:
    """Measures at each size."""
    began = time.monotonic()
    sizes = rig.sizes
    rows: list[list[Cell]] = []
    curves: dict[str, Curve] = {}
    for items in sizes.catalogues:
        with prepared_stage(rig, f"catalogue-{items}") as stage:
            started = time.monotonic()
            filled(rig, stage, items)
            rig.say(f"stored {items:,} items in {time.monotonic() - started:.0f} s")
            for in_memory in (False, True) if items == max(sizes.catalogues) else (True,):
                told = {"items": items, "users": sizes.ranked, "seconds": sizes.catalogue_s, "in_memory": in_memory}
                found = run_child("catalogues", stage.settings, told, rig.folder / "catalogues.log")
                middle = {name: median(some) or 0.0 for name, some in found["rates"].items()}
                kind = "in memory" if in_memory else "in the store, beyond exact_items"
                rows.append(row(f"{items:,} items, {kind}", found))
                for name, rate in middle.items():
                    if in_memory or name == RANKER:
                        label = name if in_memory else f"{name}, catalogue in the store"
                        curve = curves.setdefault(label, Curve(name=label, x=[], y=[]))
                        curves[label] = Curve(name=label, x=[*curve.x, items], y=[*curve.y, rate])
                rates_said = ", ".join(f"{name} {rate:,.0f}" for name, rate in middle.items())
                rig.say(f"{items:,} items, {kind}: {rates_said} users/s")
        shutil.rmtree(stage.settings.data_dir)
    table = Table(
        title=f"Users served a second, up to {sizes.ranked} at a time",
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
            "read into memory in, s",
            "memory, MiB",
        ),
        rows=rows,
    )
    return Part(
        key=KEY,
        title="Catalogues",
        tables=[table],
        curves={PLOT: list(curves.values())},
        seconds=time.monotonic() - began,
    )


def row(name: str, found: dict[str, Any]) -> list[Cell]:
    """A row of the table: medians, and the medians of ratios within a round."""
    by_round = found["rates"]
    lists, near, single, batch = (median(by_round[one]) or 0.0 for one in (RANKER, NEAREST, ONE_BY_ONE, BATCHED))
    by_search, by_list = (
        median([one / other for one, other in zip(by_round[contestant], by_round[ONE_BY_ONE], strict=True)])
        for contestant in (NEAREST, RANKER)
    )
    return [
        name, lists, 1_000 / lists, near, single, batch, by_search, by_list, len(by_round[RANKER]),
        found.get("stocked_s"), found.get("mib"),
    ]  # fmt: skip


if __name__ == "__main__":
    answer(asyncio.run(rates(load_settings(), **asked())))
