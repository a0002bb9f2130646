"""What a lane owes: which users are due a list, and how far the input may be committed once they have it.

A batch is *settled* when every user that it touched has been published since, and an offset may be committed
when all batches up to it are settled. Were the offsets committed at once, a crash between that and a coalesced
list would leave the user without it; as it is, the crash repeats both. Touched users are due whether or not their
profile changed: after a crash between store and commit the replay changes nothing, and the list is still owed.

Each user's oldest unpublished batch is all that needs to be known for this, so memory grows with users, not with
events. Pure bookkeeping: the clock is passed in, one publication is in flight at a time.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from math import inf

from msgspec import Struct, structs

from penchant.streams.records import Output, SourceKey

__all__ = ["Due", "Handled", "Ledger", "Publication", "Touch"]


class Touch(Struct, frozen=True, kw_only=True):
    """What a batch did to a user, as far as a list's readers want to know.

    Attributes:
        positions: offset of the user's newest record, by topic and partition.
        recorded: that record's timestamp, epoch milliseconds.
        stored: when the user's profile was in the store, epoch milliseconds.
    """

    positions: Mapping[SourceKey, int]
    recorded: int
    stored: int

    def joined(self, later: "Touch") -> "Touch":
        """Both touches as one."""
        return Touch(
            positions={**self.positions, **later.positions},
            recorded=max(self.recorded, later.recorded),
            stored=max(self.stored, later.stored),
        )

    def without(self, partitions: AbstractSet[SourceKey]) -> "Touch | None":
        """What is left of the touch without some partitions; None where nothing is."""
        kept = {source: offset for source, offset in self.positions.items() if source not in partitions}
        return structs.replace(self, positions=kept) if kept else None


class Handled(Struct, frozen=True, kw_only=True):
    """What came of a batch.

    Attributes:
        outputs: records to publish with the batch's offsets, each with the partition of the batch's topic it is for.
        touched: users to publish a list for.
    """

    outputs: Sequence[tuple[int, Output]] = ()
    touched: Mapping[str, Touch] = {}


class Due(Struct, frozen=True, kw_only=True):
    """A user to publish a list for now."""

    user: str
    touch: Touch


class Publication(Struct, frozen=True, kw_only=True):
    """What belongs into the next transaction.

    Attributes:
        due: users to publish a list for.
        outputs: of the batches that the transaction commits.
        offsets: next offset by topic and partition.
        settled: by topic, the number of the last batch that it settles.
        since: for undoing: each due user's oldest unpublished batch.
    """

    due: Sequence[Due]
    outputs: Sequence[Output]
    offsets: Mapping[SourceKey, int]
    settled: Mapping[str, int]
    since: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.due or self.settled)


class Entry(Struct):
    """A batch that is in the store and not yet committed."""

    number: int
    offsets: dict[int, int]
    outputs: list[tuple[int, Output]]
    records: int


class Debt(Struct):
    """A user's unpublished batches: the number of the oldest, and what they did."""

    since: int
    touch: Touch


class Ledger:
    """The debts of one lane.

    Args:
        interval_s: at most one list a user in this time.
        most_due: users in one publication.
    """

    def __init__(self, *, interval_s: float, most_due: int) -> None:
        self._interval_s = interval_s
        self._most_due = most_due
        self._number = 0
        self._entries: dict[str, deque[Entry]] = {}
        self._debts: dict[str, Debt] = {}
        self._ready: dict[str, None] = {}  # users that are owed a list and do not rest, in the order of becoming so
        self._owing: Counter[int] = Counter()  # how many debts there are since each batch
        self._in_flight = False
        self._revoked: set[SourceKey] = set()  # what went while a publication was in flight
        self._rests: OrderedDict[str, float] = OrderedDict()  # users published lately: until when they rest

    @property
    def backlog(self) -> int:
        """Records that are in the store and not yet committed."""
        return sum(entry.records for entries in self._entries.values() for entry in entries)

    def add(self, topic: str, offsets: Mapping[int, int], handled: Handled, *, records: int) -> None:
        """Notes a batch that is in the store.

        Args:
            topic: of the batch.
            offsets: next offset by partition; only of partitions that are still this worker's.
            handled: what came of it.
            records: how many records it had.
        """
        self._number += 1
        owned = [(partition, output) for partition, output in handled.outputs if partition in offsets]
        entry = Entry(number=self._number, offsets=dict(offsets), outputs=owned, records=records)
        self._entries.setdefault(topic, deque()).append(entry)
        for user, touch in handled.touched.items():
            if any(partition in offsets for _, partition in touch.positions):
                self._owe(user, Debt(since=self._number, touch=touch))

    def next(self, now: float, *, at_once: bool = False) -> Publication:
        """Takes what can be published now. It is in flight until `done` or `undo`.

        Args:
            now: seconds, monotonic.
            at_once: users are due however recently they were published; for an orderly stop.
        """
        if self._in_flight:
            raise RuntimeError("a publication is in flight")
        self._forget_rested(now)
        ready = list(islice(self._debts if at_once else self._ready, self._most_due))
        taken = {user: self._settle(user) for user in ready}
        unsettled = min(self._owing, default=inf)
        outputs: list[Output] = []
        offsets: dict[SourceKey, int] = {}
        settled: dict[str, int] = {}
        for topic, entries in self._entries.items():
            for entry in entries:
                if entry.number >= unsettled:
                    break
                settled[topic] = entry.number
                outputs += [output for _, output in entry.outputs]
                offsets |= {(topic, partition): offset for partition, offset in entry.offsets.items()}
        publication = Publication(
            due=[Due(user=user, touch=debt.touch) for user, debt in taken.items()],
            outputs=outputs,
            offsets=offsets,
            settled=settled,
            since={user: debt.since for user, debt in taken.items()},
        )
        self._in_flight = bool(publication)
        self._revoked.clear()
        return publication

    def done(self, publication: Publication, now: float) -> None:
        """The publication has been committed."""
        self._in_flight = False
        for topic, number in publication.settled.items():
            entries = self._entries[topic]
            while entries and entries[0].number <= number:
                entries.popleft()
        for due in publication.due:
            self._rests[due.user] = now + self._interval_s
            self._rests.move_to_end(due.user)
            self._ready.pop(due.user, None)  # it may be owed another one already

    def undo(self, publication: Publication) -> None:
        """The publication has not been committed: what it took is owed as before, less what was revoked meanwhile."""
        self._in_flight = False
        for due in publication.due:
            touch = due.touch.without(self._revoked)
            if touch is not None:
                self._owe(due.user, Debt(since=publication.since[due.user], touch=touch))

    def revoke(self, partitions: set[SourceKey]) -> None:
        """Drops the debts of partitions that are no longer this worker's."""
        self._revoked |= partitions
        for user, debt in list(self._debts.items()):
            touch = debt.touch.without(partitions)
            if touch is None:
                self._settle(user)
            else:
                debt.touch = touch
        for topic, entries in self._entries.items():
            gone = {partition for name, partition in partitions if name == topic}
            for entry in entries:
                entry.outputs = [(partition, output) for partition, output in entry.outputs if partition not in gone]
                entry.offsets = {
                    partition: offset for partition, offset in entry.offsets.items() if partition not in gone
                }
            self._entries[topic] = deque(entry for entry in entries if entry.offsets)

    def next_due(self) -> float:
        """When a resting user that is owed a list comes due, seconds, monotonic; infinite where there is none."""
        if len(self._ready) == len(self._debts):
            return inf
        return next((until for user, until in self._rests.items() if user in self._debts), inf)

    def _owe(self, user: str, debt: Debt) -> None:
        known = self._debts.get(user)
        if known is None:
            self._debts[user] = debt
            self._owing[debt.since] += 1
            if user not in self._rests:
                self._ready[user] = None
        elif debt.since < known.since:  # it was taken, and that publication was undone
            self._no_longer_owing(known.since)
            self._owing[debt.since] += 1
            self._debts[user] = Debt(since=debt.since, touch=debt.touch.joined(known.touch))
        else:
            known.touch = known.touch.joined(debt.touch)

    def _settle(self, user: str) -> Debt:
        """Takes a user's debt away."""
        debt = self._debts.pop(user)
        self._ready.pop(user, None)
        self._no_longer_owing(debt.since)
        return debt

    def _no_longer_owing(self, since: int) -> None:
        self._owing[since] -= 1
        if not self._owing[since]:
            del self._owing[since]

    def _forget_rested(self, now: float) -> None:
        while self._rests:
            user, until = next(iter(self._rests.items()))
            if until > now:
                return
            del self._rests[user]
            if user in self._debts:
                self._ready[user] = None
