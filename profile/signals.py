"""Signals: what one event says about a user's interest, and the sets that they form.

The state of a user is a bounded set of signals, and merging two sets is union, then truncation to the newest
N of each strength. That is idempotent, commutative and associative: a join-semilattice, like the state-based
CRDTs of Shapiro et al., "Conflict-free Replicated Data Types" (2011). So a batch may be applied twice, in any
order, split anyhow or replayed from any earlier offset, and the set is the same.

Why truncation does no harm: a signal that is dropped from a part has N newer ones in that part, with other
event ids. Each of them is in the whole too, as itself or as a newer record of the same event, so the signal
would be dropped from the whole as well: the N newest of a union are the N newest of the N newest of its parts.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import chain
from operator import attrgetter

from msgspec import Struct

__all__ = [
    "WEAK_ACTIONS",
    "Action",
    "Signal",
    "Strength",
    "joined",
    "kept_run",
    "merge",
    "signal_weight",
    "strength_of",
]


class Action(StrEnum):
    """What a user did to an item."""

    VIEW = "view"
    CLICK = "click"
    SKIP = "skip"
    LIKE = "like"
    SHARE = "share"
    SAVE = "save"
    PURCHASE = "purchase"
    RATE = "rate"
    DISLIKE = "dislike"
    HIDE = "hide"
    POST = "post"
    UPLOAD = "upload"
    SEARCH = "search"

    __hash__ = str.__hash__  # an enumeration's own is no part of the interpreter, and asked for with every signal


class Strength(StrEnum):
    """Signals are bounded apart by strength, so that a flood of views pushes no purchase out."""

    STRONG = "strong"
    WEAK = "weak"


WEAK_ACTIONS = frozenset({Action.VIEW, Action.CLICK, Action.SKIP})

event_of = attrgetter("event_id")

DEFAULT_WEIGHTS: Mapping[Action, float] = {
    Action.VIEW: 0.5,
    Action.CLICK: 1.0,
    Action.SKIP: -0.3,
    Action.LIKE: 2.0,
    Action.SHARE: 3.0,
    Action.SAVE: 2.0,
    Action.PURCHASE: 4.0,
    Action.RATE: 2.0,
    Action.DISLIKE: -2.0,
    Action.HIDE: -3.0,
    Action.POST: 2.0,
    Action.UPLOAD: 2.0,
    Action.SEARCH: 1.0,
}

REFERENCE_DWELL_MS = 10_000
DWELL_FACTORS = (0.1, 3.0)


class Signal(Struct, frozen=True, order=True, array_like=True, gc=False):
    """One event, as far as it speaks of interest. Signals are ordered by time, then by their ids.

    That order is by all attributes as they stand here, so of two records of one event it is by (time, content).

    Attributes:
        time: when it happened, epoch milliseconds.
        event_id: names the event; a record with an id already known is the same event again.
        item_id: what it happened to.
        action: what was done.
        weight: how much that says; negative for rejection.
    """

    time: int
    event_id: str
    item_id: str
    action: Action
    weight: float

    @property
    def strength(self) -> Strength:
        """Which of the two bounded sets the signal belongs to."""
        return strength_of(self.action)


def strength_of(action: Action) -> Strength:
    """The strength of an action."""
    return Strength.WEAK if action in WEAK_ACTIONS else Strength.STRONG


def signal_weight(
    action: Action,
    *,
    value: float | None,
    dwell_ms: int | None,
    weights: Mapping[Action, float],
    rating_range: tuple[float, float],
) -> float:
    """How much an event says about interest.

    A rating counts by its distance from the middle of the scale, from -w to +w; a view by how long it lasted,
    relative to ten seconds and within a tenth and three times; everything else by its action alone.

    Args:
        action: what was done.
        value: the rating given; clipped to the range.
        dwell_ms: how long the user stayed, milliseconds.
        weights: by action.
        rating_range: the lowest and the highest rating possible.
    """
    weight = weights[action]
    if action is Action.RATE and value is not None:
        low, high = rating_range
        return weight * (2 * (min(max(value, low), high) - low) / (high - low) - 1)
    if action is Action.VIEW and dwell_ms is not None:
        shortest, longest = DWELL_FACTORS
        return weight * min(max(dwell_ms / REFERENCE_DWELL_MS, shortest), longest)
    return weight


def merge(*parts: Iterable[Signal], limit: int) -> tuple[Signal, ...]:
    """The `limit` newest signals of the union of `parts`, newest first, by (time, event id).

    Of two records of one event the larger by (time, content) stands. All signals must be of one strength.
    """
    return tuple(sorted(standing(chain(*parts)).values(), reverse=True)[:limit])


def joined(kept: tuple[Signal, ...], further: Iterable[Signal], *, limit: int) -> tuple[Signal, ...]:
    """What `merge` gives of a set and further signals, in less time where those are few.

    Args:
        kept: as a merge has given it. Where nothing further stands beside it, it is what is given, to the object.
        further: in any order, with any repetitions.
        limit: how many at most.
    """
    newest = standing(further)
    # Most of what comes has not been there before, and then no signal of the set need be looked at.
    if newest and not newest.keys().isdisjoint(map(event_of, kept)):
        said_again = [signal for signal in kept if signal.event_id in newest]
        for signal in said_again:
            if signal >= newest[signal.event_id]:
                del newest[signal.event_id]
        if any(signal.event_id in newest for signal in said_again):
            kept = tuple(signal for signal in kept if signal.event_id not in newest)
    added = sorted(newest.values(), reverse=True)
    if len(kept) >= limit:
        kept = kept[:limit]
        added = [signal for signal in added if signal > kept[-1]]
    if not added:
        return kept
    if not kept or added[-1] > kept[0]:
        return (*added, *kept)[:limit]
    return tuple(sorted((*added, *kept), reverse=True)[:limit])


def kept_run(before: tuple[Signal, ...], after: tuple[Signal, ...]) -> tuple[int, int]:
    """How many signals joined a set at its front, and how many of its own stayed behind them; else all and none.

    Mostly the newest join and the oldest leave. To find that out no signal that stayed need be looked into.
    """
    if before:
        newest = before[0]
        joined = next((number for number, signal in enumerate(after) if signal is newest), len(after))
        stayed = len(after) - joined
        if stayed and after[joined:] == before[:stayed]:
            return joined, stayed
    return len(after), 0


def standing(signals: Iterable[Signal]) -> dict[str, Signal]:
    """The signals that stand, by their event: of each the largest."""
    found: dict[str, Signal] = {}
    for signal in signals:
        known = found.get(signal.event_id)
        if known is None or signal > known:
            found[signal.event_id] = signal
    return found
