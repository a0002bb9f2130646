"""What a lane owes: which users are due a list, and how far the input may be committed once they have it.

A batch is *settled* when every user that it touched has been published since, and an offset may be committed
when all batches up to it are settled. Were the offsets committed at once, a crash between that and a coalesced
list would leave the user without it; as it is, the crash repeats both. Touched users are due whether or not their
profile changed: after a crash between store and commit the replay changes nothing, and the list is still owed.

Of those who are due, users who have had no list for a while come first: they have just begun, and whoever waits for the
next list of many has one to look at. Some places are kept for the others, so that they and what is committed behind
them go on.

Each user's oldest unpublished batch is all that needs to be known for this, so memory grows with users, not with
events. Pure bookkeeping: the clock is passed in. Several publications may be in flight, in order: each counts on those
before it, and where one does not come about, neither do those behind it.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from math import ceil, inf

from msgspec import Struct, structs

from penchant.streams.records import Output, SourceKey

__all__ = ["Due", "Handled", "Ledger", "Publication", "Touch"]

KEPT = 1 / 4  # of a publication's places, for users who come due as they have rested


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
    """

    due: Sequence[Due]
    outputs: Sequence[Output]
    offsets: Mapping[SourceKey, int]

    def __bool__(self) -> bool:
        return bool(self.due or self.offsets)


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


class Flight(Struct):
    """A publication under way: the debts and the batches that it settles, and what was revoked meanwhile."""

    debts: dict[str, Debt]
    entries: dict[str, list[Entry]]
    revoked: set[SourceKey]


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
        # Users that are owed a list and neither rest nor are in flight, in the order of becoming so: those who have
        # had none for a while, and those who were owed one while they rested.
        self._fresh: dict[str, None] = {}
        self._rested: dict[str, None] = {}
        self._owing: Counter[int] = Counter()  # how many debts there are since each batch
        self._flights: deque[Flight] = deque()
        self._rests: OrderedDict[str, float] = OrderedDict()  # users published lately: until when they rest

    @property
    def backlog(self) -> int:
        """Records that are in the store and not yet committed."""
        in_flight = [entries for flight in self._flights for entries in flight.entries.values()]
        return sum(entry.records for entries in (*self._entries.values(), *in_flight) for entry in entries)

    def add(self, topic: str, offsets: Mapping[int, int], handled: Handled, *, records: int, now: float) -> None:
        """Notes a batch that is in the store.

        Args:
            topic: of the batch.
            offsets: next offset by partition; only of partitions that are still this worker's.
            handled: what came of it.
            records: how many records it had.
            now: seconds, monotonic.
        """
        self._forget_rested(now)  # so that it is known who has had no list for a while
        self._number += 1
        owned = [(partition, output) for partition, output in handled.outputs if partition in offsets]
        entry = Entry(number=self._number, offsets=dict(offsets), outputs=owned, records=records)
        self._entries.setdefault(topic, deque()).append(entry)
        for user, touch in handled.touched.items():
            if any(partition in offsets for _, partition in touch.positions):
                self._owe(user, Debt(since=self._number, touch=touch))
                self._come_due(user)

    def next(self, now: float, *, at_once: bool = False) -> Publication:
        """Takes what can be published behind what is in flight. It is in flight itself until `done` or `undo`.

        Args:
            now: seconds, monotonic.
            at_once: users are due however recently they were published; for an orderly stop.
        """
        self._forget_rested(now)
        users = list(islice(self._debts, self._most_due)) if at_once else self._first()
        debts = {user: self._settle(user) for user in users}
        unsettled = min(self._owing, default=inf)
        settled: dict[str, list[Entry]] = {}
        outputs: list[Output] = []
        offsets: dict[SourceKey, int] = {}
        for topic, entries in self._entries.items():
            while entries and entries[0].number < unsettled:
                entry = entries.popleft()
                settled.setdefault(topic, []).append(entry)
                outputs += [output for _, output in entry.outputs]
                offsets |= {(topic, partition): offset for partition, offset in entry.offsets.items()}
        publication = Publication(
            due=[Due(user=user, touch=debt.touch) for user, debt in debts.items()], outputs=outputs, offsets=offsets
        )
        if publication:
            self._flights.append(Flight(debts=debts, entries=settled, revoked=set()))
        return publication

    def done(self, now: float) -> None:
        """The first publication in flight has been committed."""
        for user in self._flights.popleft().debts:
            self._rests[user] = now + self._interval_s
            self._rests.move_to_end(user)

    def undo(self) -> None:
        """No publication in flight has been committed: what they took is owed as before, less what was revoked."""
        flights, self._flights = self._flights, deque()
        for flight in reversed(flights):
            for topic, entries in flight.entries.items():
                left = without(entries, topic, flight.revoked)
                self._entries[topic].extendleft(reversed(left))
            for user, debt in flight.debts.items():
                touch = debt.touch.without(flight.revoked)
                if touch is not None:
                    self._owe(user, Debt(since=debt.since, touch=touch))
        for flight in flights:  # in the order in which they were due
            for user in flight.debts:
                self._come_due(user)

    def revoke(self, partitions: set[SourceKey]) -> None:
        """Drops the debts of partitions that are no longer this worker's."""
        for flight in self._flights:
            flight.revoked |= partitions
        for user, debt in list(self._debts.items()):
            touch = debt.touch.without(partitions)
            if touch is None:
                self._settle(user)
            else:
                debt.touch = touch
        for topic, entries in self._entries.items():
            self._entries[topic] = deque(without(entries, topic, partitions))

    def next_due(self) -> float:
        """When a resting user that is owed a list comes due, seconds, monotonic; infinite where there is none."""
        if len(self._fresh) + len(self._rested) == len(self._debts):
            return inf
        return next((until for user, until in self._rests.items() if user in self._debts), inf)

    def _first(self) -> list[str]:
        """The users whose turn it is."""
        kept = min(len(self._rested), ceil(KEPT * self._most_due))
        fresh = list(islice(self._fresh, self._most_due - kept))
        return [*fresh, *islice(self._rested, self._most_due - len(fresh))]

    def _owe(self, user: str, debt: Debt) -> None:
        known = self._debts.get(user)
        if known is None:
            self._debts[user] = debt
            self._owing[debt.since] += 1
        elif debt.since < known.since:  # it was taken, and that publication was undone
            self._no_longer_owing(known.since)
            self._owing[debt.since] += 1
            self._debts[user] = Debt(since=debt.since, touch=debt.touch.joined(known.touch))
        else:
            known.touch = known.touch.joined(debt.touch)

    def _come_due(self, user: str) -> None:
        """Has a user wait for a turn who is owed a list and does not rest; one whose list is under way will rest."""
        if user in self._debts and user not in self._rests and user not in self._rested and not self._in_flight(user):
            self._fresh[user] = None

    def _in_flight(self, user: str) -> bool:
        return any(user in flight.debts for flight in self._flights)

    def _settle(self, user: str) -> Debt:
        """Takes a user's debt away."""
        debt = self._debts.pop(user)
        self._fresh.pop(user, None)
        self._rested.pop(user, None)
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
            if user in self._debts and not self._in_flight(user):
                self._rested[user] = None


def without(entries: Collection[Entry], topic: str, partitions: AbstractSet[SourceKey]) -> list[Entry]:
    """What is left of a topic's batches without some partitions."""
    gone = {partition for name, partition in partitions if name == topic}
    for entry in entries:
        entry.outputs = [(partition, output) for partition, output in entry.outputs if partition not in gone]
        entry.offsets = {partition: offset for partition, offset in entry.offsets.items() if partition not in gone}
    return [entry for entry in entries if entry.offsets]
