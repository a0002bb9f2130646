"""Signals: what one event says about a user's interest, and the sets that they form.

The state of a user is a bounded set of signals, and merging two sets is union, then truncation to the newest
N of each strength. That is idempotent, commutative and associative: a join-semilattice, like the state-based
CRDTs of Shapiro et al., "Conflict-free Replicated Data Types" (2011). So a batch may be applied twice, in any
order, split anyhow or replayed from any earlier offset, and the set is the same.

Why truncation does no harm: a signal that is dropped from a part has N newer ones in that part, with other
event ids. Each of them is in the whole too, as itself or as a newer record of the same event, so the signal
would be dropped from the whole as well: the N newest of a union are the N newest of the N newest of its parts.
"""

import heapq
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct

__all__ = ["Action", "Signal", "Strength", "merge", "signal_weight", "strength_of"]


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


class Strength(StrEnum):
    """Signals are bounded apart by strength, so that a flood of views pushes no purchase out."""

    STRONG = "strong"
    WEAK = "weak"


WEAK_ACTIONS = frozenset({Action.VIEW, Action.CLICK, Action.SKIP})

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


class Signal(Struct, frozen=True, array_like=True, gc=False):
    """One event, as far as it speaks of interest.

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
    newest: dict[str, Signal] = {}
    for part in parts:
        for signal in part:
            known = newest.get(signal.event_id)
            if known is None or precedence(signal) > precedence(known):
                newest[signal.event_id] = signal
    return tuple(heapq.nlargest(limit, newest.values(), key=lambda signal: (signal.time, signal.event_id)))


def precedence(signal: Signal) -> tuple[int, str, str, float]:
    """What decides between two records of one event."""
    return (signal.time, signal.item_id, signal.action, signal.weight)
