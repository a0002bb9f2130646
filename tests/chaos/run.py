"""A run: plays on either store, each with its faults in an order drawn from a seed, and a table of what came of it."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from penchant.broker import LocalBroker
from penchant.streams import content
from tests.chaos.contrast import Contrast
from tests.chaos.embedded import Embedded
from tests.chaos.faults import EMBEDDED, NEEDS_OWN_DISK, SERVED
from tests.chaos.play import FENCES, Life, Play, Verdict
from tests.chaos.served import Served
from tests.end_to_end import test_stop_and_resume as scenes
from tests.stage import Stage, new_stage

__all__ = ["ENDINGS", "Outcome", "Strike", "contrast_table", "endings", "endings_table", "perform", "table"]

Say = Callable[[str], None]

# Faults that end a worker, or lose what nobody can bring back: it must say so, and do nothing else.
ENDINGS: Mapping[str, Callable[[Stage], None]] = {
    "topic recreated while the worker was away": scenes.test_a_topic_created_anew_is_refused,
    "topic recreated under the worker": scenes.test_a_topic_created_anew_under_a_running_worker_stops_it,
    "retention removed uncommitted records": scenes.test_a_gap_that_retention_tore_is_reported,
    "a second worker on the embedded store": scenes.test_a_second_worker_on_the_same_folder_is_refused,
}

USERS, ITEMS = 2_000, 300
EMBEDDED_SHARE = len(EMBEDDED) / (len(EMBEDDED) + len(SERVED))  # of the events and faults
LONGEST_WAIT_S = 2.0  # before a fault
GROWN_UP_S = 15.0  # a process has loaded what it needs by then
UNSENT = 1.5  # shares of events that may wait to be sent


class Strike(Struct, frozen=True):
    """A fault that struck, and seconds until events were applied again."""

    kind: str
    seconds: float


class Outcome(Struct, frozen=True, kw_only=True):
    """What came of a play."""

    name: str
    sent: int
    again: int
    strikes: Sequence[Strike]
    left_out: Sequence[str]
    verdict: Verdict
    fenced: Mapping[str, float]
    memory_mib: Sequence[float]
    seconds: float


def perform(folder: Path, *, seed: int, events: int, faults: int, say: Say) -> list[Outcome]:
    """Plays both plays.

    Args:
        folder: for everything; empty.
        seed: of traffic and faults.
        events: to send.
        faults: to strike with.
        say: told how it goes.
    """
    outcomes = []
    first, first_faults = round(events * EMBEDDED_SHARE), round(faults * EMBEDDED_SHARE)
    with Embedded(folder / "embedded", seed=seed, users=USERS, items=ITEMS) as play:
        left_out = () if play.own_disk else NEEDS_OWN_DISK
        kinds = {name: fault for name, fault in EMBEDDED.items() if name not in left_out}
        play.start("first")
        await_catalogue(play)
        play.workers["first"].kill()
        play.take_copy()
        play.start("first")
        outcomes.append(
            play_out(
                "embedded store",
                play,
                kinds,
                faults=first_faults,
                events=first,
                seed=seed,
                say=say,
                left_out=left_out,
            )
        )
    with Served(folder / "served", seed=seed + 1, users=USERS, items=ITEMS) as play:
        left_out = () if play.engine is not None else ("store killed",)
        kinds = {name: fault for name, fault in SERVED.items() if name not in left_out}
        for name in ("first", "second"):
            play.start(name)
        await_catalogue(play)
        outcomes.append(
            play_out(
                "server store, two workers",
                play,
                kinds,
                faults=faults - first_faults,
                events=events - first,
                seed=seed,
                say=say,
                left_out=left_out,
            )
        )
    return outcomes


def endings(broker: LocalBroker, folder: Path, say: Say) -> dict[str, float]:
    """Has faults strike that nothing can heal: each must end as its scene says; gives how long the scenes took.

    Raises:
        AssertionError: one did not.
    """
    took = {}
    for number, (name, scene) in enumerate(ENDINGS.items()):
        began = time.monotonic()
        with new_stage(broker, folder / str(number)) as stage:
            scene(stage)
        took[name] = time.monotonic() - began
        say(f"{name}: ended as it must")
    return took


def await_catalogue(play: Play) -> None:
    """Sends the catalogue, and waits until it is embedded."""
    play.stage.send(play.traffic.catalogue())
    play.stage.await_settled(next(iter(play.workers.values())), content.LANE)


def play_out(
    name: str,
    play: Play,
    kinds: Mapping[str, Callable[..., float]],
    *,
    faults: int,
    events: int,
    seed: int,
    say: Say,
    left_out: Iterable[str],
) -> Outcome:
    """Lets events flow and faults strike, then judges."""
    rng = random.Random(seed)
    began = time.monotonic()
    order = [kind for _ in range(-(-faults // len(kinds))) for kind in rng.sample(sorted(kinds), len(kinds))][:faults]
    strikes = []
    for number, kind in enumerate(order, 1):
        share = events // faults
        play.await_unsent(round(UNSENT * share))
        play.flow(share)
        time.sleep(rng.uniform(0, LONGEST_WAIT_S))
        seconds = kinds[kind](play, rng)
        strikes.append(Strike(kind, seconds))
        say(f"{name}: {number}/{faults} {kind}, applying again after {seconds:.1f} s; {play.traffic.sent:,} events")
    play.flow(max(0, events - play.traffic.sent))
    say(f"{name}: waiting for the end")
    play.settle()
    for worker in play.workers.values():
        play.note_fences(worker)
    play.stop()
    say(f"{name}: comparing")
    return Outcome(
        name=name,
        sent=play.traffic.sent,
        again=play.traffic.again,
        strikes=strikes,
        left_out=tuple(left_out),
        verdict=play.judge(),
        fenced={fence: sum(life.fenced.get(fence, 0) for life in play.lives.values()) for fence in FENCES},
        memory_mib=thirds(play.lives.values()),
        seconds=time.monotonic() - began,
    )


def thirds(lives: Iterable[Life]) -> list[float]:
    """Median memory of processes in each third of a play, MiB; processes that have just started are left out."""
    samples = sorted(
        (moment, kib / 1_024)
        for life in lives
        for moment, kib in life.memory
        if moment - life.memory[0][0] > GROWN_UP_S
    )
    if len(samples) < 3:
        return []
    size = len(samples) // 3
    return [statistics.median(mib for _, mib in samples[start : start + size]) for start in (0, size, 2 * size)]


def table(outcomes: Sequence[Outcome]) -> str:
    """Outcomes as Markdown."""
    lines = ["| fault | times | applying again after, p50 | p99 |", "|---|---:|---:|---:|"]
    for outcome in outcomes:
        lines.append(f"| **{outcome.name}** | {len(outcome.strikes)} | | |")
        for kind in sorted({strike.kind for strike in outcome.strikes}):
            took = sorted(strike.seconds for strike in outcome.strikes if strike.kind == kind)
            lines.append(f"| {kind} | {len(took)} | {quantile(took, 0.5):.1f} s | {quantile(took, 0.99):.1f} s |")
        lines += [f"| {kind} | not run here | | |" for kind in outcome.left_out]
    lines += ["", f"| | {' | '.join(outcome.name for outcome in outcomes)} |", f"|---|{'---:|' * len(outcomes)}"]
    rows: list[tuple[str, Callable[[Outcome], str]]] = [
        ("records sent", lambda one: f"{one.sent:,}"),
        ("of them again", lambda one: f"{one.again:,}"),
        ("users", lambda one: f"{one.verdict.users:,}"),
        ("signals compared", lambda one: f"{one.verdict.signals:,}"),
        ("lost", lambda one: f"{one.verdict.lost:,}"),
        ("counted twice", lambda one: f"{one.verdict.double:,}"),
        ("altered", lambda one: f"{one.verdict.altered:,}"),
        ("likes counted for items", lambda one: f"{one.verdict.likes:,}"),
        ("items that count wrong", lambda one: f"{one.verdict.miscounted:,}"),
        ("last list not of the last profile", lambda one: f"{one.verdict.stale_lists:,}"),
        ("`penchant verify` agrees", lambda one: "yes" if one.verdict.verified else "no"),
        ("largest deviation of a vector", lambda one: f"{one.verdict.deviation:.1e}"),
        ("store writes merged again", lambda one: f"{one.fenced['penchant_conflicts_total']:.0f}"),
        ("publications refused", lambda one: f"{one.fenced['penchant_fenced_total']:.0f}"),
        ("worker's memory by third of the run", lambda one: ", ".join(f"{mib:.0f}" for mib in one.memory_mib) + " MiB"),
        ("duration", lambda one: f"{one.seconds / 60:.1f} min"),
    ]
    lines += [f"| {name} | {' | '.join(value(one) for one in outcomes)} |" for name, value in rows]
    return "\n".join(lines)


def endings_table(took: Mapping[str, float]) -> str:
    """The faults that nothing can heal, as Markdown."""
    return "\n".join(
        ["| fault that nothing heals | ended as it must |", "|---|---:|", *(f"| {name} | yes |" for name in took)]
    )


def contrast_table(found: Contrast) -> str:
    """What came of the ordinary agent, as Markdown."""
    strikes = ", ".join(f"{kind} {times} times" for kind, times in found.strikes.items())
    rows = [
        ("faults", strikes),
        ("events", f"{found.tally.events:,}"),
        ("sent again", f"{found.again:,}"),
        ("lost", f"{found.tally.lost:,}"),
        ("counted twice or more", f"{found.tally.double:,}"),
    ]
    return "\n".join(["| | ordinary agent |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows)])


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least a share of all does not exceed."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
