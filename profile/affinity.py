"""What items have to do with each other: which came before which, and how often each was liked, as decayed sums.

Every positive signal on an item is a *transition*: to this item, after the user's most recent other ones. An item's
*row* is the sum of its transitions: how often it was liked (in all, and lately), and after what. A row with a large
share of the items that a user has just liked is an item that goes on from there.

All sums are forward-decayed (Cormode et al., "Forward Decay", ICDE 2009): an event of time t weighs 2^((t - L)/H) for
ever, with a fixed landmark L, and whoever reads a sum at a later moment divides by that moment's weight. So a sum
needs no touching while time passes, does not depend on the order of its events, and two rows compare as they are. In
double precision the shortest half-life, 30 days, reaches from 1941 to 2098; times beyond count as the nearest one.

What goes into a row is said once for all by the log of transitions: truncation looks at one transition after the
other, so that batches may be cut anywhere. A row notes the newest record of each partition that it has taken in, and
a transition whose origin lies at or before that is in it already.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import sparse

from penchant.profile.signals import Action, Signal
from penchant.profile.told import Origin, Telling

__all__ = [
    "FADE",
    "LANDMARK_MS",
    "MOST_PREVIOUS",
    "POPULARITY_HALF_LIVES_MS",
    "ROW_HALF_LIFE_MS",
    "ROW_LIMIT",
    "Liking",
    "Likings",
    "Positive",
    "Row",
    "RowTable",
    "Transition",
    "Weighted",
    "growth",
    "histories",
    "is_positive",
    "item_key",
    "log_growth",
    "positives",
    "predecessors",
    "recent_items",
    "row_measure",
    "transition_scores",
    "weighted",
]

DAY_MS = 86_400_000
LANDMARK_MS = 1_577_836_800_000  # the year 2020
POPULARITY_HALF_LIVES_MS = (30 * DAY_MS, 365 * DAY_MS)
ROW_HALF_LIFE_MS = 730 * DAY_MS
MOST_DOUBLINGS = 960  # of a weight from the landmark: leaves room for 2^63 of the largest

POSITIVE_WEIGHT = 1.0  # a click, twenty seconds of viewing, four stars of five
AUTHORED = frozenset({Action.POST, Action.UPLOAD, Action.SEARCH})

MOST_PREVIOUS = 50
FADE = 0.9
ROW_LIMIT = 256
SHRINK = 5.0

Weighted = tuple[str, float]  # item id, weight
Floats = NDArray[np.float64]


# What orders a user's signals.
moment: Callable[[Signal], tuple[int, str]] = attrgetter("time", "event_id")


class Transition(Struct, frozen=True, kw_only=True):
    """A positive signal on an item, after others of the same user, as rows take it in.

    Attributes:
        item_id: what it happened to.
        at: when, epoch milliseconds.
        previous: the user's most recent earlier items, latest first, with their weights.
        origin: the partition of the record that told of it; and
        offset: where in it.
    """

    item_id: str
    at: int
    previous: tuple[Weighted, ...]
    origin: Origin
    offset: int


class Positive(Struct, frozen=True, gc=False):
    """A positive signal, and the record that told of it."""

    signal: Signal
    telling: Telling


class Liking(Struct, frozen=True, kw_only=True, gc=False):
    """A positive signal on an item, and the items that it came after: what a transition is made of.

    Attributes:
        item_id: what it happened to.
        at: when, epoch milliseconds.
        previous: the user's most recent earlier items, latest first; what they weigh, `weighted` says.
        origin: the partition of the record that told of it; and
        offset: where in it.
    """

    item_id: str
    at: int
    previous: tuple[str, ...]
    origin: Origin
    offset: int

    @property
    def transition(self) -> Transition:
        """It, with its weights written out."""
        return Transition(
            item_id=self.item_id,
            at=self.at,
            previous=weighted(self.previous),
            origin=self.origin,
            offset=self.offset,
        )


class Likings(Struct, frozen=True, gc=False):
    """What of a user's records is told to others, made while it is gone through: whole, it is some fifty times as much.

    Attributes:
        firsts: those that were told of for the first time.
        past: all of the user that may precede them, as `positives` gives them.
    """

    firsts: Sequence[Positive]
    past: Sequence[Signal]

    def __iter__(self) -> Iterator[Liking]:
        for number, previous in histories([one.signal for one in self.firsts], self.past):
            signal, telling = self.firsts[number].signal, self.firsts[number].telling
            yield Liking(
                item_id=signal.item_id,
                at=signal.time,
                previous=previous,
                origin=telling.origin,
                offset=telling.offset,
            )


class Row(Struct, frozen=True, kw_only=True, eq=False):
    """An item's transitions, summed. All decayed sums are as of the landmark.

    Attributes:
        count: how many there were.
        popularity: decayed counts, by `POPULARITY_HALF_LIVES_MS`.
        mass: the decayed count by `ROW_HALF_LIFE_MS`, what `sums` are measured by.
        as_of: time of the newest, epoch milliseconds.
        keys: `item_key` of the items that came before, ascending, shape (m,), m at most `ROW_LIMIT`.
        sums: their decayed weights, by `ROW_HALF_LIFE_MS`, shape (m,), positive.
        applied: by origin, the offset of the last record that is in the sums.
    """

    item_id: str
    count: int = 0
    popularity: tuple[float, ...] = (0.0,) * len(POPULARITY_HALF_LIVES_MS)
    mass: float = 0.0
    as_of: int = 0
    keys: NDArray[np.uint64] = msgspec.field(default_factory=lambda: np.zeros(0, np.uint64))
    sums: Floats = msgspec.field(default_factory=lambda: np.zeros(0))
    applied: Mapping[Origin, int] = {}

    def adding(self, transitions: Iterable[Transition]) -> "Row":
        """This row with further transitions, in their order; those that are in it already change nothing."""
        count, popularity, mass, applied = self.count, list(self.popularity), self.mass, dict(self.applied)
        as_of = self.as_of
        sums = dict(zip(self.keys.tolist(), self.sums.tolist(), strict=True))
        for transition in transitions:
            if transition.offset <= applied.get(transition.origin, -1):
                continue
            applied[transition.origin] = transition.offset
            count += 1
            for horizon, half_life_ms in enumerate(POPULARITY_HALF_LIVES_MS):
                popularity[horizon] += growth(transition.at, half_life_ms)
            weight = growth(transition.at, ROW_HALF_LIFE_MS)
            mass += weight
            as_of = max(as_of, transition.at)
            for item_id, share in transition.previous:
                key = item_key(item_id)
                sums[key] = sums.get(key, 0.0) + share * weight
            if len(sums) > ROW_LIMIT:
                kept = sorted(sums.items(), key=itemgetter(1, 0), reverse=True)[:ROW_LIMIT]
                sums = dict(kept)
        if count == self.count:
            return self
        keys = np.fromiter(sums.keys(), np.uint64, len(sums))
        order = np.argsort(keys)
        return Row(
            item_id=self.item_id,
            count=count,
            popularity=tuple(popularity),
            mass=mass,
            as_of=as_of,
            keys=keys[order],
            sums=np.fromiter(sums.values(), np.float64, len(sums))[order],
            applied=applied,
        )

    def popularity_at(self, now_ms: int) -> Floats:
        """How often the item was liked, as of a moment: by `POPULARITY_HALF_LIVES_MS`, and in all; shape (3,)."""
        decayed = [
            value / growth(now_ms, half_life_ms)
            for value, half_life_ms in zip(self.popularity, POPULARITY_HALF_LIVES_MS, strict=True)
        ]
        return np.array([*decayed, float(self.count)])


class RowTable:
    """Rows of many candidates, compiled for scoring.

    Args:
        rows: one a candidate; None: it has none.
    """

    def __init__(self, rows: Sequence[Row | None]) -> None:
        empty = Row(item_id="")
        known = [row or empty for row in rows]
        lengths = [len(row.keys) for row in known]
        self._keys, columns = np.unique(np.concatenate([empty.keys, *(row.keys for row in known)]), return_inverse=True)
        self._masses = np.array([row.mass for row in known])
        self._sums = sparse.csr_matrix(
            (np.concatenate([empty.sums, *(row.sums for row in known)]), columns, np.cumsum([0, *lengths])),
            shape=(len(known), len(self._keys)),
        ).tocsc()

    def scores(self, keys: Sequence[NDArray[np.uint64]], weights: Sequence[Floats], now_ms: int) -> Floats:
        """Sums of weights times rows, divided by the roots of what the rows are measured by; (users, candidates).

        Args:
            keys: by user, of distinct items; shape (k,).
            weights: of them, likewise.
            now_ms: as of when, epoch milliseconds.
        """
        if not self._keys.size:
            return np.zeros((len(keys), self._sums.shape[0]))
        flat = np.concatenate([np.zeros(0, np.uint64), *keys])
        users = np.repeat(np.arange(len(keys)), [len(one) for one in keys])
        columns = np.minimum(np.searchsorted(self._keys, flat), self._keys.size - 1)
        known = self._keys[columns] == flat
        asked = sparse.csc_matrix(
            (np.concatenate([np.zeros(0), *weights])[known], (columns[known], users[known])),
            shape=(self._keys.size, len(keys)),
        )
        measures = growth(now_ms, ROW_HALF_LIFE_MS) * row_measure(self._masses, now_ms)
        scores: Floats = (self._sums @ asked).toarray().T / measures
        return scores


def transition_scores(
    recent: Sequence[Sequence[Weighted]],
    rows: Sequence[Row | None] | RowTable,
    masses: Mapping[str, float],
    *,
    now_ms: int,
) -> Floats:
    """How well candidates follow what users have just liked, shape (users, candidates).

        score(c) = Σ_j weight_j · row_c[j] / (√(m_c + 5) · √(m_j + 5))

    with sums and masses as of now; zero where nothing is known.

    Args:
        recent: by user, distinct items with their weights, as `recent_items` gives them.
        rows: of the candidates.
        masses: `Row.mass` of the items in `recent`; 0 where they are left out.
        now_ms: epoch milliseconds.
    """
    table = rows if isinstance(rows, RowTable) else RowTable(rows)
    keys = [np.array([item_key(item_id) for item_id, _ in items], np.uint64) for items in recent]
    weights = [
        np.array([weight / row_measure(masses.get(item_id, 0.0), now_ms) for item_id, weight in items])
        for items in recent
    ]
    return table.scores(keys, weights, now_ms)


def row_measure(mass: float | Floats, now_ms: int) -> Any:
    """√(m + 5), what rows are divided by: m are masses as of now, from those as of the landmark, of any shape."""
    return np.sqrt(mass / growth(now_ms, ROW_HALF_LIFE_MS) + SHRINK)


def is_positive(signal: Signal) -> bool:
    """Whether a signal says that a user liked something that was there to be liked.

    Writing and uploading do not, and what was written may be private; nor does a glance. (Taking every event for a
    positive one makes recommendations worse.)
    """
    return signal.weight >= POSITIVE_WEIGHT and signal.action not in AUTHORED


def positives(signals: Iterable[Signal]) -> list[Signal]:
    """The positive ones among `signals`, oldest first, by (time, event id)."""
    return sorted(filter(is_positive, signals))


def predecessors(
    past: Sequence[Signal], *, of: Signal, most: int = MOST_PREVIOUS, fade: float = FADE
) -> tuple[Weighted, ...]:
    """The most recent other items before a signal, latest first; the k-th weighs fade^k, from 0 on.

    Args:
        past: of the signal's user, as `positives` gives them; it may go on beyond the signal.
        of: the signal.
        most: how many items.
        fade: how much less each weighs than the one after it.
    """
    return faded(past[: bisect_left(past, moment(of), key=moment)], {of.item_id}, most, fade)


def histories(
    signals: Sequence[Signal], past: Sequence[Signal], *, most: int = MOST_PREVIOUS
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The items of the `predecessors` of many signals of one user, found in one walk: behind the number of each.

    Args:
        signals: in any order; they come oldest first.
        past: of the user, as `positives` gives them.
        most: how many items each.
    """
    order = sorted(range(len(signals)), key=signals.__getitem__)
    place = bisect_left(past, moment(signals[order[0]]), key=moment) if order else 0
    walked: set[str] = set()
    while place and len(walked) <= most:  # one more, for one of them may be the item itself
        place -= 1
        walked.add(past[place].item_id)
    recent: dict[str, None] = {}  # items in the order of their last occurrence
    for number in order:
        end = bisect_left(past, moment(signals[number]), lo=place, key=moment)
        for one in past[place:end]:
            recent.pop(one.item_id, None)
            recent[one.item_id] = None
        place = end
        item_id = signals[number].item_id
        if item_id in recent:
            latest = islice(reversed(recent), most + 1)
            yield number, tuple([one for one in latest if one != item_id][:most])
        else:
            yield number, tuple(islice(reversed(recent), most))


def weighted(previous: Sequence[str]) -> tuple[Weighted, ...]:
    """Items, latest first, with what each weighs: the k-th `FADE`^k, from 0 on."""
    return tuple(zip(previous, shares_of(MOST_PREVIOUS, FADE), strict=False))


@lru_cache
def shares_of(most: int, fade: float) -> tuple[float, ...]:
    """What each of the latest items weighs."""
    return tuple(fade**place for place in range(most))


def recent_items(past: Sequence[Signal], *, most: int = MOST_PREVIOUS, fade: float = FADE) -> tuple[Weighted, ...]:
    """The most recent items of a user, latest first, weighing as they will when something follows them.

    Args:
        past: as `positives` gives it.
        most: how many items.
        fade: how much less each weighs than the one after it.
    """
    return faded(past, set(), most, fade)


def faded(past: Sequence[Signal], left_out: set[str], most: int, fade: float) -> tuple[Weighted, ...]:
    """The distinct items of `past` from its end, with their weights."""
    found: list[Weighted] = []
    met = set(left_out)
    for signal in reversed(past):
        if len(found) == most:
            break
        if signal.item_id not in met:
            met.add(signal.item_id)
            found.append((signal.item_id, fade ** len(found)))
    return tuple(found)


def growth(time_ms: int, half_life_ms: int) -> float:
    """The weight of an event as of the landmark."""
    doublings = (time_ms - LANDMARK_MS) / half_life_ms
    return float(2.0 ** max(-MOST_DOUBLINGS, min(doublings, MOST_DOUBLINGS)))


def log_growth(times_ms: int | NDArray[np.int64], half_life_ms: int) -> Floats:
    """The logarithm of that to the base two, at many moments: of their shape."""
    doublings = (np.asarray(times_ms) - LANDMARK_MS) / half_life_ms
    return np.clip(doublings, -MOST_DOUBLINGS, MOST_DOUBLINGS)


@lru_cache(65_536)
def item_key(item_id: str) -> int:
    """Stands for an item in rows: 64 bits; remembered, for each list asks for those of what its user liked last."""
    return int.from_bytes(blake2b(item_id.encode(), digest_size=8, person=b"affinity").digest(), "little")
