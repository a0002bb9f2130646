"""Users' histories as ranking uses them: arrays, kept from one list to the next and moved on by what has changed.

A profile's signals are hundreds of objects, and whoever walks through them waits for memory. What ranking needs of
them fits into some arrays; from one list of a user to the next a few signals join in front and a few leave at the end.
"""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import MOST_PREVIOUS, Weighted, is_positive, recent_items
from penchant.profile.cache import VOID, Bounded, Content, ItemVectors, Mark
from penchant.profile.profiles import Profile
from penchant.profile.ranking.features import MOMENT, Past
from penchant.profile.signals import Signal, kept_run
from penchant.profile.state import ProfileState

__all__ = ["Histories", "History"]

MOST = 4_096  # histories kept: some 120 MB, if all are full

Floats = NDArray[np.float64]
Places = NDArray[np.intp]


class Columns(Struct, frozen=True, eq=False):
    """k signals, attribute by attribute: shape (k,) each.

    Attributes:
        times: epoch milliseconds.
        weights: of the signals.
        rows: of their items among the vectors that were gathered; `VOID` where there is no content.
        positive: which of them are positive.
    """

    times: NDArray[np.int64]
    weights: Floats
    rows: NDArray[np.int32]
    positive: NDArray[np.bool_]

    @classmethod
    def of(cls, signals: Sequence[Signal], content: Content) -> "Columns":
        """Those of signals, in their order."""
        rows = content.rows
        return cls(
            np.array([signal.time for signal in signals], np.int64),
            np.array([signal.weight for signal in signals], np.float64),
            np.array([rows.get(signal.item_id, VOID) for signal in signals], np.int32),
            np.array([is_positive(signal) for signal in signals], np.bool_),
        )

    def at(self, places: Places | slice) -> "Columns":
        """Some of them, in some order."""
        return Columns(self.times[places], self.weights[places], self.rows[places], self.positive[places])

    @classmethod
    def together(cls, parts: Sequence["Columns"]) -> "Columns":
        """One behind the other."""
        return cls(
            np.concatenate([part.times for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.positive for part in parts]),
        )


class History(Struct, frozen=True, kw_only=True, eq=False):
    """A user's signals as ranking uses them.

    Attributes:
        signals: all of them, strong ones first, each strength newest first.
        columns: of those.
        past: those that count, k of them, newest first.
        places: which of `signals` those are, shape (k,).
        recent: what the user has liked last, as `recent_items` gives it: r items.
        starts: which of `signals` says so of each: the newest positive one on it, shape (r,).
    """

    signals: Sequence[Signal]
    columns: Columns
    past: Past
    places: Places
    recent: Sequence[Weighted]
    starts: Places


class Kept(Struct, frozen=True, eq=False):
    """A user's history, the state that it is of, and until when its rows hold."""

    state: ProfileState
    history: History
    mark: Mark


class Histories:
    """Makes users' histories.

    Args:
        vectors: of the items.
    """

    def __init__(self, vectors: ItemVectors) -> None:
        self._vectors = vectors
        self._kept: Bounded[str, Kept] = Bounded(MOST)

    async def of(self, profiles: Sequence[Profile], further: Sequence[str] = ()) -> tuple[list[History], Content]:
        """The histories of some users, and the content that their rows are of.

        Args:
            profiles: of the users.
            further: items that the content is to hold as well.
        """
        while True:  # once more where rows have moved meanwhile: then nothing is kept
            kept = [self._usable(profile) for profile in profiles]
            news = [
                signal.item_id
                for profile, one in zip(profiles, kept, strict=True)
                for signal in joined(profile.state, None if one is None else one.state)
            ]
            content = await self._vectors.gather([*news, *further])
            if all(one is None or self._held(one) for one in kept):
                made = [self._made(profile, one, content) for profile, one in zip(profiles, kept, strict=True)]
                return made, content

    def forget_all(self) -> None:
        """Drops all histories."""
        self._kept.drop_where(lambda _: True)

    def _usable(self, profile: Profile) -> Kept | None:
        """What is kept of a user, where its rows are still those of the items."""
        kept = self._kept.get(profile.user)
        return kept if kept is not None and self._held(kept) else None

    def _held(self, kept: Kept) -> bool:
        """Whether the rows of a history are still those of its items."""
        return self._vectors.holds(kept.mark, (signal.item_id for signal in kept.history.signals))

    def _made(self, profile: Profile, kept: Kept | None, content: Content) -> History:
        """A user's history, moved on from what is kept of it."""
        state = profile.state
        if kept is not None and kept.state is state:
            return kept.history
        parts: list[Columns] = []
        strong = 0  # of the columns before
        for before, after in strengths(None if kept is None else kept.state, state):
            news, stayed = kept_run(before, after)
            parts.append(Columns.of(after[:news], content))
            if kept is not None and stayed:
                parts.append(kept.history.columns.at(slice(strong, strong + stayed)))
            strong += len(before)
        history = history_of(state, Columns.together(parts))
        mark = content.mark
        if kept is not None:
            mark = mark.along(kept.mark)
        if profile.awaits:  # nobody may be told when that comes
            self._kept.drop(profile.user)
        else:
            self._kept.put(profile.user, Kept(state, history, mark))
        return history


def strengths(before: ProfileState | None, after: ProfileState) -> list[tuple[tuple[Signal, ...], tuple[Signal, ...]]]:
    """The signals of two states, by strength."""
    strong, weak = ((), ()) if before is None else (before.strong, before.weak)
    return [(strong, after.strong), (weak, after.weak)]


def joined(state: ProfileState, before: ProfileState | None) -> Sequence[Signal]:
    """The signals of a state that have joined it since it was another."""
    if state is before:
        return ()
    return [signal for earlier, later in strengths(before, state) for signal in later[: kept_run(earlier, later)[0]]]


def history_of(state: ProfileState, columns: Columns) -> History:
    """A history by its columns."""
    signals = state.signals
    order = newest_first(signals, columns.times, len(state.strong))
    counted = order[columns.rows[order] != VOID]
    ordered = columns.at(counted)
    starts: dict[str, int] = {}
    for place in order[columns.positive[order]].tolist():
        starts.setdefault(signals[place].item_id, place)
        if len(starts) == MOST_PREVIOUS:
            break
    return History(
        signals=signals,
        columns=columns,
        past=Past(
            rows=ordered.rows,
            weights=ordered.weights,
            ages=(ordered.times.max(initial=0) - ordered.times).astype(float),
            positive=ordered.positive,
        ),
        places=counted,
        recent=recent_items([signals[place] for place in reversed(starts.values())]),
        starts=np.array(list(starts.values()), np.intp),
    )


def newest_first(signals: Sequence[Signal], times: NDArray[np.int64], strong: int) -> Places:
    """Orders signals by (time, event id), newest first; of two parts, each of which is in that order.

    Args:
        signals: k of them.
        times: of those.
        strong: how many make the first part.
    """
    order = np.argsort(-times, kind="stable")
    same = np.diff(times[order]) == 0
    if same.any() and (same & (order[:-1] < strong) & (order[1:] >= strong)).any():  # ids must tell
        return np.array(sorted(range(len(signals)), key=lambda place: MOMENT(signals[place]), reverse=True), np.intp)
    return order
