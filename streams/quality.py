"""Live quality: each like is judged by the list that its user had been given before.

A like counts if it is of an item that the user had not met, for nothing else is ever listed; if it is not older than
what the list was made of; and if this worker has made that list. So a record that is read again is not judged again:
by then its item has been met.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from penchant.profile.affinity import is_positive
from penchant.profile.profiles import Profile
from penchant.profile.seen import SeenItems
from penchant.profile.signals import Signal
from penchant.streams import metrics

__all__ = ["ABSENCE_MS", "Judged", "Quality"]

ABSENCE_MS = 8 * 3_600_000
SITTING, ABSENCE = "sitting", "absence"


class Given(Struct):
    """What a user was given, and what is known to have happened since.

    Attributes:
        items: of the list, best first.
        seen: what the user had met when it was made.
        met: and since then.
        as_of: time of the newest signal when it was made, epoch milliseconds.
        newest: and since then.
    """

    items: tuple[str, ...]
    seen: SeenItems
    met: set[str]
    as_of: int
    newest: int


class Judged(Struct, frozen=True):
    """A like.

    Attributes:
        place: of its item on the list, from 1; 0: it was not there.
        after: what it came after: an absence of eight hours or more, or not.
    """

    place: int
    after: str


class Quality:
    """The lists given last, and how good they turned out to be.

    Args:
        capacity: lists remembered.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._listed: Counter[str] = Counter()

    def give(self, profile: Profile, items: Iterable[str]) -> None:
        """Remembers a list; those given longest ago make room."""
        self._forget(profile.user)
        state = profile.state
        given = Given(tuple(items), state.seen, set(), state.as_of, state.as_of)
        self._given[profile.user] = given
        self._listed.update(given.items)
        if len(self._given) > self._capacity:
            self._forget(next(iter(self._given)))
        metrics.LISTED_ITEMS.set(len(self._listed))

    def judge(self, signals: Mapping[str, Sequence[Signal]]) -> list[Judged]:
        """Judges the likes among some signals, in the order in which they came; to be asked before they are applied.

        Changes nothing: whoever has to apply the signals again judges them again.
        """
        found = []
        for user, mine in signals.items():
            given = self._given.get(user)
            if given is None:
                continue
            newest, met = given.newest, set(given.met)
            for signal in mine:
                new = signal.item_id not in met and signal.item_id not in given.seen
                if new and is_positive(signal) and signal.time > given.as_of:
                    place = given.items.index(signal.item_id) + 1 if signal.item_id in given.items else 0
                    found.append(Judged(place, ABSENCE if signal.time - newest >= ABSENCE_MS else SITTING))
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
            metrics.LIKES.labels(one.after).inc()
            if one.place:
                metrics.HITS.labels(one.after).inc()
                metrics.RECIPROCAL_RANKS.labels(one.after).inc(1 / one.place)

    def forget_all(self) -> None:
        """Drops all lists: others may make newer ones now."""
        self._given.clear()
        self._listed.clear()
        metrics.LISTED_ITEMS.set(0)

    def _forget(self, user: str) -> None:
        given = self._given.pop(user, None)
        if given is not None:
            self._listed.subtract(given.items)
            for item_id in given.items:
                if not self._listed[item_id]:
                    del self._listed[item_id]
