"""What users were given, and what they liked next: how good lists are, and what weights are learned from.

A like is judged by the list that its user had been given before. It counts if it is of an item that the user had not
met, for nothing else is ever listed; if it is not older than what the list was made of; and if this worker has made
that list. So a record that is read again is not judged again: by then its item has been met.

The first such like after a list, if its item was among the candidates that the list was chosen from, is what weights
are learned from as well: the list is what it was, test first and then train. Candidates are kept while there is room.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import is_positive
from penchant.profile.profiles import Profile
from penchant.profile.ranking.recommend import Offered
from penchant.profile.seen import SeenItems
from penchant.profile.signals import Signal
from penchant.streams import metrics

__all__ = ["ABSENCE_MS", "Choice", "Judged", "Quality"]

ABSENCE_MS = 8 * 3_600_000
SITTING, ABSENCE = "sitting", "absence"
MOST_CANDIDATES = 2**19  # remembered of all users together: 3,500 lists' of 150, about 25 MB

Halves = NDArray[np.float16]


class Kept(Struct, frozen=True, eq=False):
    """The n candidates of a list.

    Attributes:
        items: hashes of their ids, shape (n,).
        features: as `Offered.features`, shape (F, n).
    """

    items: NDArray[np.int64]
    features: Halves


class Choice(Struct, frozen=True, eq=False):
    """A like of one of the candidates of a list.

    Attributes:
        event_id: of the like.
        features: of the candidates, shape (F, n).
        liked: which of them it was.
    """

    event_id: str
    features: Halves
    liked: int


class Given(Struct):
    """What a user was given, and what is known to have happened since.

    Attributes:
        items: of the list, best first.
        seen: what the user had met when it was made.
        met: and since then.
        as_of: time of the newest signal when it was made, epoch milliseconds.
        newest: and since then.
        kept: what it was chosen from, until something is liked.
    """

    items: tuple[str, ...]
    seen: SeenItems
    met: set[str]
    as_of: int
    newest: int
    kept: Kept | None


class Judged(Struct, frozen=True, kw_only=True):
    """A like.

    Attributes:
        user: who likes.
        item_id: what.
        place: of its item on the list, from 1; 0: it was not there.
        absence_ms: how long the user had been away.
        choice: what can be learned from it.
    """

    user: str
    item_id: str
    place: int
    absence_ms: int
    choice: Choice | None = None

    @property
    def after(self) -> str:
        """What it came after: an absence of eight hours or more, or not."""
        return ABSENCE if self.absence_ms >= ABSENCE_MS else SITTING


class Quality:
    """The lists given last, and how good they turned out to be.

    Args:
        capacity: lists remembered.
        candidates: remembered with them, in all.
    """

    def __init__(self, capacity: int, candidates: int = MOST_CANDIDATES) -> None:
        self._capacity = capacity
        self._room = candidates
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._keeping: OrderedDict[str, int] = OrderedDict()  # users whose candidates are kept: how many those are
        self._listed: Counter[str] = Counter()

    def give(self, profile: Profile, items: Iterable[str], offered: Offered | None = None) -> list[str]:
        """Remembers a list, and what it was chosen from; those given longest ago make room.

        Returns:
            Those items that were not on the user's list before.
        """
        before = self._given.get(profile.user)
        self._forget(profile.user)
        state = profile.state
        given = Given(tuple(items), state.seen, set(), state.as_of, state.as_of, None)
        if before is not None:  # signals may have been applied while the list was made, which it knows nothing of
            given.met.update(item_id for item_id in before.met if item_id not in state.seen)
            given.newest = max(given.newest, before.newest)
        self._given[profile.user] = given
        self._listed.update(given.items)
        if offered is not None:
            given.kept = Kept(hashes(offered.items), offered.features.astype(np.float16))
            self._keeping[profile.user] = len(offered.items)
            self._room -= len(offered.items)
        if len(self._given) > self._capacity:
            self._forget(next(iter(self._given)))
        while self._room < 0:
            self._drop(next(iter(self._keeping)))
        metrics.LISTED_ITEMS.set(len(self._listed))
        return [item_id for item_id in given.items if before is None or item_id not in before.items]

    def judge(self, signals: Mapping[str, Sequence[Signal]]) -> list[Judged]:
        """Judges the likes among some signals, in the order in which they came; to be asked before they are applied.

        Changes nothing: whoever has to apply the signals again judges them again.
        """
        found = []
        for user, mine in signals.items():
            given = self._given.get(user)
            if given is None:
                continue
            newest, met, kept = given.newest, set(given.met), given.kept
            for signal in mine:
                if (
                    is_positive(signal)
                    and signal.time > given.as_of
                    and signal.item_id not in met
                    and signal.item_id not in given.seen
                ):
                    place = given.items.index(signal.item_id) + 1 if signal.item_id in given.items else 0
                    absence_ms = max(0, signal.time - newest)
                    choice = None if kept is None else choice_of(signal, kept)
                    found.append(
                        Judged(user=user, item_id=signal.item_id, place=place, absence_ms=absence_ms, choice=choice)
                    )
                    kept = None  # what is liked next was chosen in the light of this
                met.add(signal.item_id)
                newest = max(newest, signal.time)
        return found

    def settle(self, signals: Mapping[str, Sequence[Signal]], judged: Iterable[Judged]) -> None:
        """Counts what was judged of signals, now that they are applied."""
        for user, mine in signals.items():
            if given := self._given.get(user):
                given.met.update(signal.item_id for signal in mine)
                given.newest = max([given.newest, *(signal.time for signal in mine)])
        for one in judged:
            self._drop(one.user)
            metrics.LIKES.labels(one.after).inc()
            if one.place:
                metrics.HITS.labels(one.after).inc()
                metrics.RECIPROCAL_RANKS.labels(one.after).inc(1 / one.place)

    def forget_all(self) -> None:
        """Drops all lists: others may make newer ones now."""
        for user in list(self._given):
            self._forget(user)
        metrics.LISTED_ITEMS.set(0)

    def _forget(self, user: str) -> None:
        self._drop(user)
        given = self._given.pop(user, None)
        if given is not None:
            self._listed.subtract(given.items)
            for item_id in given.items:
                if not self._listed[item_id]:
                    del self._listed[item_id]

    def _drop(self, user: str) -> None:
        """Forgets what a user's list was chosen from."""
        if user in self._keeping:
            self._room += self._keeping.pop(user)
            self._given[user].kept = None


def hashes(items: Sequence[str]) -> NDArray[np.int64]:
    """Items as they are remembered: eight bytes each, whatever their ids are."""
    return np.fromiter(map(hash, items), np.int64, len(items))


def choice_of(signal: Signal, kept: Kept) -> Choice | None:
    """What a like says of the candidates; None where its item was none of them, or the only one.

    What retrieval did not find teaches nothing about the order of what it found.
    """
    places = np.flatnonzero(kept.items == hash(signal.item_id))
    if not len(places) or len(kept.items) == 1:
        return None
    return Choice(signal.event_id, kept.features, int(places[0]))
