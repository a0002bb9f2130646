"""The verification: reads the store, then the log, and compares."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct, structs

from penchant.errors import ConfigurationError
from penchant.profile.identity import Identity
from penchant.profile.positions import Position
from penchant.settings import Settings
from penchant.streams.codec import Unusable
from penchant.streams.records import Record, SourceKey
from penchant.streams.topics import Topic
from penchant.verify.choice import Choice, choose
from penchant.verify.compare import compare, same
from penchant.verify.expected import Expectations, Interpreter, is_weak, topic_of
from penchant.verify.held import TOLERANCE, Held, Kept, at_baseline, at_rest, read_sets, read_store
from penchant.verify.log import SOURCES, Extent, Log
from penchant.verify.report import Fact, Kind, Report, RowsReport, UserReport
from penchant.verify.rows import HeldRows, Recount, read_rows

__all__ = ["Progress", "verify"]

# What is being done, how many records are done, and how many there were at the beginning; 0: that is not known.
Progress = Callable[[str, int, int], None]

PROGRESS_RECORDS = 5_000
CLOCK_SKEW_MS = 5 * 60_000

NOBODY = Kept(strong=(), weak=())


class NotKnown(ConfigurationError):
    """Neither the store nor the log knows the users that were asked for."""


class Tally(Struct):
    """What was read of the log."""

    records: int = 0
    unusable: int = 0
    in_flight: int = 0


def verify(
    settings: Settings,
    *,
    users: Sequence[str] | None = None,
    sample: int | None = None,
    seed: int = 0,
    baseline: str | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compares profiles, and the items' rows where everyone is looked at, with what the log says they must be.

    Workers may run meanwhile: what the store's positions cover must be there, what came later may be.

    Args:
        settings: of the worker; weights, half-lives and limits must be those that the profiles were written with.
        users: whom to look at; None: everyone.
        sample: look at so many users only.
        seed: of the sample.
        baseline: a snapshot to start from where the log no longer reaches back: its folder, or the address of a Qdrant
            server that it was restored on.
        progress: is told how far it is.

    Raises:
        ConfigurationError: the store or the log cannot be compared: another log, another layout, a gap.
        Unavailable: the broker, the store or the worker that has the store does not answer.
        NotKnown: nobody knows any of `users`.
    """
    tell = progress or (lambda *_: None)
    with contextlib.ExitStack() as stack:
        log, told = (stack.enter_context(Log(settings, topics)) for topics in (SOURCES, (Topic.TRANSITIONS,)))
        return verified(settings, log, told, users=users, sample=sample, seed=seed, baseline=baseline, tell=tell)


def verified(
    settings: Settings,
    log: Log,
    told: Log,
    *,
    users: Sequence[str] | None,
    sample: int | None,
    seed: int,
    baseline: str | None,
    tell: Progress,
) -> Report:
    """See `verify`; `log` holds what signals come from, `told` the transitions."""
    choice = choose(users, sample, seed)
    identity = Identity(settings.id_key.get_secret_value())
    limits = settings.profile
    expectations = Expectations(strong=limits.strong_limit, weak=limits.weak_limit)
    partitions, rows_of = log.partitions(), told.partitions()
    everyone = users is None and sample is None
    tell("reading the store", 0, 0)
    with at_rest(settings) as place:
        held = read_store(place, partitions, choice)
        held_rows = read_rows(place, rows_of) if everyone else None
    starts = dict.fromkeys(partitions, 0)
    rows_before: HeldRows | None = None
    if baseline is not None:
        tell("reading the snapshot", 0, 0)
        with at_baseline(settings, baseline) as place:
            before = read_sets(place, partitions, choice)
            rows_before = read_rows(place, rows_of) if everyone else None
        starts |= {source: position.next_offset for source, position in before.positions.items()}
        for user, kept in before.users.items():
            for fact in (*kept.strong, *kept.weak):
                expectations.add(user, fact)
    extents = log.extents()  # after the store was read: whatever is in it lies before these ends
    check_log(held.positions, extents)
    if baseline is not None:
        check_log(before.positions, extents)
        check_baseline(starts, held.positions, extents)
    reader = LogReader(log, Interpreter(identity, settings.profile), choice, held, tell)
    reader.read(starts, extents, expectations)
    torn = torn_topics(log, log.extents(), starts, has_baseline=baseline is not None)
    report = judged(held, expectations, choice, torn=torn, settings=settings, tally=reader.tally)
    if users is not None and not report.users:
        raise NotKnown("Neither the store nor the log knows these users", hint="Are the ids spelt as in the events?")
    if held_rows is None:
        return report
    tell("reading the transitions", 0, 0)
    return structs.replace(report, rows=recounted(told, held_rows, rows_before))


def recounted(log: Log, held: HeldRows, before: HeldRows | None) -> RowsReport:
    """Compares rows with the log of transitions.

    Args:
        log: of the transitions.
        held: what the store holds.
        before: a snapshot to start from; None: the beginning of the log.
    """
    extents = log.extents()
    starts = dict.fromkeys(extents, 0)
    check_log(held.positions, extents)
    if before is not None:
        starts |= {source: position.next_offset for source, position in before.positions.items()}
        check_log(before.positions, extents)
        check_baseline(starts, held.positions, extents)
    recount = Recount(held, before)
    for record in log.read(starts, extents):
        recount.take(record)
    return recount.report(log.extents(), starts)


class LogReader:
    """Takes the log's signals into account: those that the store must hold, and those of the rest that it does hold.

    Args:
        log: to read.
        interpreter: tells what a record says.
        choice: whose records count.
        held: what the store holds.
        tell: is told how far it is.
    """

    def __init__(self, log: Log, interpreter: Interpreter, choice: Choice, held: Held, tell: Progress) -> None:
        self.log = log
        self.interpreter = interpreter
        self.choice = choice
        self.held = held
        self.tell = tell
        self.tally = Tally()
        self.indexes: dict[str, dict[tuple[bool, str], list[Fact]]] = {}

    def read(
        self, starts: Mapping[SourceKey, int], extents: Mapping[SourceKey, Extent], expectations: Expectations
    ) -> None:
        """Reads from `starts` to the end."""
        sizes = [
            max(0, extent.end - max(starts[source], extent.low))
            for source, extent in extents.items()
            if extent.end is not None
        ]
        total = sum(sizes)
        covered = {source: position.next_offset for source, position in self.held.positions.items()}
        self.tell("reading the log", 0, total)
        for record in self.log.read(starts, extents):
            self.tally.records += 1
            if self.tally.records % PROGRESS_RECORDS == 0:
                self.tell("reading the log", self.tally.records, total)
            required = record.offset < covered.get((record.topic, record.partition), 0)
            self.tally.in_flight += not required
            for user, fact in self.signals(record):
                if required or self.is_held(user, fact):
                    expectations.add(user, fact, record.timestamp)
        self.tell("comparing", total, total)

    def signals(self, record: Record) -> Iterator[tuple[str, Fact]]:
        """What a record says of a user who is looked at, if anything."""
        if record.key is not None and not self.choice.may(record.key.decode(errors="replace")):
            return
        try:
            user, fact = self.interpreter.read(self.log.topics[record.topic], record)
        except Unusable:
            self.tally.unusable += 1
            return
        if self.choice.admit(user):
            yield user, fact

    def is_held(self, user: str, fact: Fact) -> bool:
        """Whether the store holds a signal of a record that it need not hold."""
        if user not in self.held.users:
            return False
        if user not in self.indexes:
            kept, index = self.held.users[user], self.indexes.setdefault(user, {})
            for one in (*kept.strong, *kept.weak):
                index.setdefault((is_weak(one.action), one.event_id), []).append(one)
        stored = self.indexes[user].get((is_weak(fact.action), fact.event_id), ())
        return any(same(fact, one) for one in stored)


def check_log(positions: Mapping[SourceKey, Position], extents: Mapping[SourceKey, Extent]) -> None:
    """Makes sure that positions speak of this log.

    Raises:
        ConfigurationError: they speak of another.
    """
    for (topic, number), position in positions.items():
        extent = extents[topic, number]
        recreated = position.topic_id != extent.topic_id
        if recreated or (extent.end is not None and position.next_offset > extent.end):
            said = "it was created anew" if recreated else f"it ends at {extent.end}"
            raise ConfigurationError(
                f"{topic}[{number}] is not the log that the store was filled from: the store covers it up to "
                f"{position.next_offset}, and {said}",
                hint="The topic was deleted and created anew, or the store is another's. Nothing can be verified.",
            )


def check_baseline(
    starts: Mapping[SourceKey, int], positions: Mapping[SourceKey, Position], extents: Mapping[SourceKey, Extent]
) -> None:
    """Makes sure that the log goes on where the snapshot ends, and that the store is not older than the snapshot.

    Raises:
        ConfigurationError: it does not, or is.
    """
    for (topic, number), start in sorted(starts.items()):
        low = extents[topic, number].low
        if start < low:
            raise ConfigurationError(
                f"There is a gap: the snapshot covers {topic}[{number}] up to {start}, and the log begins at {low}",
                hint="Take a newer snapshot, or leave --from out: what is older than the log is then taken as it is.",
            )
        covered = positions.get((topic, number))
        if start and (covered is None or covered.next_offset < start):
            raise ConfigurationError(
                f"The snapshot is newer than the store: it covers {topic}[{number}] up to {start}",
                hint="Take an older snapshot, or wait until the worker has caught up.",
            )


def torn_topics(
    log: Log, extents: Mapping[SourceKey, Extent], starts: Mapping[SourceKey, int], *, has_baseline: bool
) -> frozenset[Topic]:
    """The topics of which records are gone that were not read from a snapshot instead.

    Raises:
        ConfigurationError: retention has removed what was to be read, so that it may not have been read.
    """
    torn = frozenset(
        log.topics[topic] for (topic, number), extent in extents.items() if extent.low > starts[topic, number]
    )
    if torn and has_baseline:
        raise ConfigurationError(
            "Retention removed records while they were read", hint="Take a newer snapshot, and try again."
        )
    return torn


def judged(
    held: Held,
    expectations: Expectations,
    choice: Choice,
    *,
    torn: frozenset[Topic],
    settings: Settings,
    tally: Tally,
) -> Report:
    """Compares user by user.

    Args:
        held: what the store holds.
        expectations: what the log says, and what the store has of what it may have.
        choice: whom to look at.
        torn: topics of which records are gone.
        settings: how long an edited item may be seen as it was.
        tally: of the log.
    """
    counts: Counter[Kind] = Counter()
    found: list[UserReport] = []
    sums = Counter(dict.fromkeys(SUMS, 0))
    largest = 0.0
    for user in sorted(held.users.keys() | expectations.users.keys()):
        if not choice.stands(user):
            continue
        kept = held.users.get(user, NOBODY)
        compared = [
            compare(
                stored,
                expectations.of(user, weak=weak),
                expectations.limits[weak],
                lambda fact: topic_of(fact.action) in torn,
            )
            for stored, weak in ((kept.strong, False), (kept.weak, True))
        ]
        findings = tuple(finding for one in compared for finding in one.findings)
        counts.update(finding.kind for finding in findings)
        expected = sum(one.expected for one in compared)
        off = kept.deviation if kept.deviation > TOLERANCE else 0.0
        stale = bool(off) and is_stale(kept, expectations.recorded.get(user, 0), settings)
        if not stale:
            largest = max(largest, kept.deviation)
        sums.update(
            users=1,
            signals=expected,
            lost_users=user not in held.users,
            foreign_users=bool(findings) and not expected,
            before_log=sum(one.before_log for one in compared),
            waiting=kept.waits,
            forgotten=len(kept.forgotten),
            deviating=bool(off) and not stale,
            stale=stale,
        )
        if findings or off or kept.forgotten:
            found.append(UserReport(user=user, signals=findings, deviation=off, stale=stale, forgotten=kept.forgotten))
    return Report(
        records=tally.records,
        unusable=tally.unusable,
        in_flight=tally.in_flight,
        **{kind.value: counts[kind] for kind in Kind},
        **{name: int(sums[name]) for name in SUMS},
        largest_deviation=largest,
        findings=tuple(found),
        rows=None,
    )


SUMS = (
    "users", "signals", "lost_users", "foreign_users", "before_log", "waiting", "forgotten", "deviating", "stale",
)  # fmt: skip


def is_stale(kept: Kept, recorded_ms: int, settings: Settings) -> bool:
    """Whether a deviation may be that of an item which was edited after the profile was written.

    A profile takes an edit up when it is next written, and a worker's memory may lag behind the store for a while.
    When a profile was written is not noted; it was after the newest record of the user that is in the store.
    """
    newest_ms = max((fact.time for fact in (*kept.strong, *kept.weak)), default=0)
    written_ms = max(recorded_ms, newest_ms - CLOCK_SKEW_MS)
    return kept.newest_item_ms >= written_ms - 1_000 * settings.profile.item_cache_s
