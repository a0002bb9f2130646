"""The ledger never lets an offset be committed before everybody its records touched has been published."""

from math import inf

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penchant.streams.ledger import Handled, Ledger, Touch
from penchant.streams.records import Output

TOPICS = ("clicks", "posts")
PARTITIONS = (0, 1, 2)
INTERVAL_S = 2.0
MOST_DUE = 3
MOST_FLIGHTS = 2
# A user's records have one partition number in all topics.
USERS = {f"u{partition}{name}": partition for partition in PARTITIONS for name in "abc"}


def touch(topic, partition, offset, recorded=0):
    """A touch by one record."""
    return Touch(positions={(topic, partition): offset}, recorded=recorded, stored=recorded)


def handled(topic, *users, offset=0, outputs=()):
    """What came of a batch that touched users of partition 0."""
    return Handled(outputs=outputs, touched={user: touch(topic, 0, offset) for user in users})


def letter(name):
    """An output that can be told from others."""
    return Output(topic="dead-letters", key=None, value=name.encode())


class LedgerMachine(RuleBasedStateMachine):
    """A ledger beside a naive model that remembers every batch, whom it touched, and who was published after it."""

    @initialize()
    def start(self):
        """Nothing has happened."""
        self.ledger = Ledger(interval_s=INTERVAL_S, most_due=MOST_DUE)
        self.now = 0.0
        self.flights = []  # of publications, in order: each with the batches that it settles users of
        self.next_offset = {(topic, partition): 0 for topic in TOPICS for partition in PARTITIONS}
        self.committed = dict(self.next_offset)
        self.batches = []  # every batch that is owned and not known as committed
        self.published_at = {}  # user: when last
        self.emitted = []
        self.owed_outputs = set()

    @rule(
        topic=st.sampled_from(TOPICS),
        partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1),
        users=st.sets(st.sampled_from(sorted(USERS))),
        with_output=st.booleans(),
    )
    def add(self, topic, partitions, users, with_output):
        """A batch is in the store; it may be added while a publication is in flight."""
        offsets = {}
        for partition in partitions:
            self.next_offset[topic, partition] += 1
            offsets[partition] = self.next_offset[topic, partition]
        touched = {user for user in users if USERS[user] in partitions}
        name = f"{topic}-{offsets}"
        outputs = [(min(partitions), letter(name))] if with_output else []
        self.ledger.add(
            topic,
            offsets,
            Handled(
                outputs=outputs,
                touched={user: touch(topic, USERS[user], offsets[USERS[user]] - 1) for user in touched},
            ),
            records=len(partitions),
            now=self.now,
        )
        self.batches.append({"topic": topic, "offsets": offsets, "owed": set(touched)})
        if with_output:
            self.owed_outputs.add((topic, min(partitions), name))

    @precondition(lambda self: len(self.flights) < MOST_FLIGHTS)
    @rule(at_once=st.booleans())
    def take(self, at_once):
        """Takes what can be published; it must not go further than the model allows, if what is in flight arrives."""
        before = self.ledger.backlog
        publication = self.ledger.next(self.now, at_once=at_once)
        users = {due.user for due in publication.due}
        assert len(users) == len(publication.due) <= MOST_DUE
        owed = {user for batch in self.batches for user in batch["owed"]}
        assert users <= owed
        if not at_once:
            for user in users:
                assert self.published_at.get(user, -inf) + INTERVAL_S <= self.now
                assert not any(user in {due.user for due in publication.due} for publication, _ in self.flights)
        if at_once and owed:
            assert users
        for (topic, partition), offset in publication.offsets.items():
            unpublished = {
                user
                for batch in self.batches
                if batch["topic"] == topic and batch["offsets"].get(partition, inf) <= offset
                for user in batch["owed"]
            }
            assert unpublished <= users
        for due in publication.due:
            for (topic, partition), offset in due.touch.positions.items():
                assert partition == USERS[due.user]
                newest = [
                    batch["offsets"][partition] - 1
                    for batch in self.batches
                    if batch["topic"] == topic and due.user in batch["owed"]
                ]
                assert offset == max(newest)
        assert self.ledger.backlog == before
        if publication:
            # Batches that come while it is in flight owe their users a list of their own.
            taken = [(batch, batch["owed"] & users) for batch in self.batches]
            self.flights.append((publication, taken))
            for batch, mine in taken:
                batch["owed"] -= mine

    @precondition(lambda self: self.flights)
    @rule()
    def commit(self):
        """The first publication in flight stands."""
        publication, _ = self.flights.pop(0)
        self.ledger.done(self.now)
        for source, offset in publication.offsets.items():
            assert offset >= self.committed[source]
            self.committed[source] = offset
        for due in publication.due:
            self.published_at[due.user] = self.now
        for output in publication.outputs:
            self.emitted.append(output.value.decode())
        assert len(self.emitted) == len(set(self.emitted))
        self.batches = [
            batch
            for batch in self.batches
            if any(offset > self.committed[batch["topic"], number] for number, offset in batch["offsets"].items())
        ]

    @precondition(lambda self: self.flights)
    @rule()
    def fail(self):
        """The first publication in flight does not stand, nor do those behind it: everything is owed as before."""
        self.ledger.undo()
        for _, taken in self.flights:
            for batch, mine in taken:
                batch["owed"] |= mine
        self.flights = []

    @rule(partitions=st.sets(st.sampled_from(PARTITIONS), min_size=1))
    def revoke(self, partitions):
        """Partitions go to another worker, perhaps while a publication is in flight; later on they come back."""
        self.ledger.revoke({(topic, partition) for topic in TOPICS for partition in partitions})
        gone = {user for user in USERS if USERS[user] in partitions}
        for _, taken in self.flights:
            for _, mine in taken:
                mine.difference_update(gone)
        for batch in self.batches:
            batch["owed"] -= gone
            batch["offsets"] = {
                number: offset for number, offset in batch["offsets"].items() if number not in partitions
            }
        self.batches = [batch for batch in self.batches if batch["offsets"]]
        self.owed_outputs = {one for one in self.owed_outputs if one[1] not in partitions}

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
    def wait(self, seconds):
        """Time passes."""
        self.now += seconds

    def settle(self, *, at_once):
        """Publishes on and on, as many publications under way as may be."""
        for _ in range(200):
            while len(self.flights) < MOST_FLIGHTS:
                before = len(self.flights)
                self.take(at_once=at_once)
                if len(self.flights) == before:
                    break
            if not self.flights:
                return
            self.commit()

    @rule()
    def drain(self):
        """That settles everything: all offsets, all users, all outputs."""
        self.settle(at_once=True)
        assert self.batches == []
        assert self.ledger.backlog == 0
        assert {name for _, _, name in self.owed_outputs} <= set(self.emitted)

    @rule()
    def wait_until_due(self):
        """Who rests and is owed a list comes due exactly when the ledger says so, and not before."""
        self.settle(at_once=False)
        due = self.ledger.next_due()
        if due == inf:
            assert not any(batch["owed"] for batch in self.batches)
            return
        assert due > self.now
        self.now = due
        self.take(at_once=False)
        assert self.flights
        assert self.flights[0][0].due

    @invariant()
    def memory_is_bounded(self):
        """No more users rest than were published within the interval, but for those not looked at since."""
        if hasattr(self, "ledger"):
            self.ledger._forget_rested(self.now)
            resting = {user for user, at in self.published_at.items() if at + INTERVAL_S > self.now}
            assert set(self.ledger._rests) == resting
            assert set(self.ledger._debts) == {user for batch in self.batches for user in batch["owed"]}


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)


def test_an_offset_waits_for_the_list_of_everybody_behind_it():
    """While a user of an early batch rests, nothing from there on is committed."""
    ledger = Ledger(interval_s=10, most_due=10)
    ledger.add("clicks", {0: 1}, handled("clicks", "ada"), records=1, now=0)
    ledger.next(0)
    ledger.done(0)
    ledger.add("clicks", {0: 2}, handled("clicks", "ada", "bob", offset=1), records=1, now=0)
    ledger.add("clicks", {0: 3}, handled("clicks", "cid", offset=2), records=1, now=0)
    publication = ledger.next(1)
    assert {due.user for due in publication.due} == {"bob", "cid"}
    assert publication.offsets == {}
    ledger.done(1)
    assert ledger.next_due() == 10
    last = ledger.next(10)
    assert [due.user for due in last.due] == ["ada"]
    assert last.offsets == {("clicks", 0): 3}


def test_a_batch_that_touches_nobody_is_committed_at_once():
    """Dead letters and content wait for no list."""
    ledger = Ledger(interval_s=10, most_due=10)
    ledger.add("clicks", {0: 5, 1: 7}, Handled(outputs=[(0, letter("bad"))]), records=3, now=0)
    publication = ledger.next(0)
    assert publication.offsets == {("clicks", 0): 5, ("clicks", 1): 7}
    assert publication.outputs == [letter("bad")]


def test_a_user_of_two_topics_stays_owed_when_one_of_them_goes():
    """Where only one of a user's partitions is revoked, what the other one says is still owed before its commit."""
    ledger = Ledger(interval_s=0, most_due=10)
    ledger.add("clicks", {0: 1}, handled("clicks", "ada"), records=1, now=0)
    ledger.add("posts", {0: 1}, handled("posts", "ada"), records=1, now=0)
    ledger.revoke({("clicks", 0)})
    publication = ledger.next(0)
    assert [due.user for due in publication.due] == ["ada"]
    assert dict(publication.due[0].touch.positions) == {("posts", 0): 0}
    assert publication.offsets == {("posts", 0): 1}


def test_those_who_have_had_no_list_for_a_while_come_first():
    """Some places are kept all the same for those who were owed one while they rested."""
    ledger = Ledger(interval_s=1, most_due=4)
    busy, new = [f"busy{number}" for number in range(4)], [f"new{number}" for number in range(8)]
    ledger.add("clicks", {0: 1}, handled("clicks", *busy), records=1, now=0)
    ledger.next(0)
    ledger.add("clicks", {0: 2}, handled("clicks", *busy), records=1, now=0)
    ledger.done(0)
    assert not ledger.next(0.5)
    ledger.add("clicks", {0: 3}, handled("clicks", *new), records=1, now=0)
    turns = []
    while publication := ledger.next(1):
        turns.append([due.user for due in publication.due])
        ledger.done(1)
    assert turns == [[*new[:3], "busy0"], [*new[3:6], "busy1"], [*new[6:], "busy2", "busy3"]]


def test_what_is_behind_a_publication_that_fails_fails_with_it():
    """Its offsets count on those of the first; both are owed again, and in order."""
    ledger = Ledger(interval_s=0, most_due=10)
    ledger.add("clicks", {0: 1}, handled("clicks", "ada"), records=1, now=0)
    ledger.next(0)
    ledger.add("clicks", {0: 2}, handled("clicks", "bob", offset=1), records=1, now=0)
    assert ledger.next(0).offsets == {("clicks", 0): 2}
    assert ledger.backlog == 2
    ledger.undo()
    publication = ledger.next(0)
    assert {due.user for due in publication.due} == {"ada", "bob"}
    assert publication.offsets == {("clicks", 0): 2}
    assert ledger.backlog == 2


def test_partitions_that_come_back_are_not_those_that_went():
    """What is taken after partitions have come back is owed again in full; what was taken before they went is not."""
    ledger = Ledger(interval_s=0, most_due=10)
    ledger.add("clicks", {0: 1}, handled("clicks", "ada"), records=1, now=0)
    ledger.next(0)
    ledger.revoke({("clicks", 0)})
    ledger.add("clicks", {0: 1}, handled("clicks", "bob"), records=1, now=0)
    ledger.next(0)
    ledger.undo()
    publication = ledger.next(0)
    assert [due.user for due in publication.due] == ["bob"]
    assert publication.offsets == {("clicks", 0): 1}


def test_outputs_and_users_of_partitions_that_are_gone_are_not_taken_up():
    """A batch whose partitions were partly revoked while it was handled leaves nothing behind of those."""
    ledger = Ledger(interval_s=0, most_due=10)
    both = Handled(
        outputs=[(0, letter("mine")), (1, letter("theirs"))],
        touched={"ada": touch("clicks", 0, 0), "bob": touch("clicks", 1, 0)},
    )
    ledger.add("clicks", {0: 1}, both, records=4, now=0)
    publication = ledger.next(0)
    assert [due.user for due in publication.due] == ["ada"]
    assert publication.outputs == [letter("mine")]
