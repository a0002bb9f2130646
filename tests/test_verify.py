"""Verification: exact where the store is, whatever is under way, and nothing that is wrong goes unseen."""

import asyncio
import json
import os
import random
import threading
import time

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st
from typer.testing import CliRunner

from penchant.cli import app
from penchant.errors import ConfigurationError, PenchantError
from penchant.profile.affinity import Row, Transition
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons, interest_views
from penchant.profile.positions import Position, Positions
from penchant.profile.signals import Action, Signal, strength_of
from penchant.profile.state import Limits, ProfileState
from penchant.profile.store.edge import copy_shards
from penchant.settings import ProfileSettings
from penchant.streams import events as events_of
from penchant.streams import interest
from penchant.streams.codec import Unusable, encode
from penchant.streams.events import Click, Item, Media, MediaUpload, Post
from penchant.streams.interpret import Reader
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic
from penchant.streams.worker import build_parts
from penchant.verify import Kind, take_snapshot, verify
from penchant.verify.check import check_log
from penchant.verify.choice import Sample
from penchant.verify.compare import compare, same
from penchant.verify.expected import Expectations, Interpreter, is_weak
from penchant.verify.held import facts_of
from penchant.verify.log import Extent
from penchant.verify.rows import HeldRows, Recount
from penchant.verify.views import views_of

STRONG, WEAK = 12, 8
USERS, ITEMS, CLICKS, POSTS = 12, 20, 2_000, 24
HOUR_MS = 3_600_000
LIMITS = Limits(strong=4, weak=3, seen_bits=64)
NOW = 1_750_000_000_000


# The independent model, against the one that keeps profiles.

signals = st.builds(
    Signal,
    st.integers(NOW, NOW + 5),
    st.sampled_from([f"e{number}" for number in range(9)]),
    st.sampled_from(["i1", "i2"]),
    st.sampled_from([Action.LIKE, Action.PURCHASE, Action.VIEW, Action.CLICK]),
    st.sampled_from([0.5, 1.0, 2.0]),
)
streams = st.lists(signals, max_size=40)


def as_facts(some):
    """Signals as the verification sees them, with their strength."""
    return facts_of(some)


def merged(some):
    """The state that signals make, by the code that keeps profiles."""
    return ProfileState.empty(LIMITS).adding(list(some), LIMITS)


def judged(stored, expectations, *, may_precede=lambda _: False):
    """What is found wrong with a stored state of the user u."""
    return [
        finding
        for part, weak, limit in ((stored.strong, False, LIMITS.strong), (stored.weak, True, LIMITS.weak))
        for finding in compare(as_facts(part), expectations.of("u", weak=weak), limit, may_precede).findings
    ]


def expecting(some):
    """What the log says, of the user u."""
    expectations = Expectations(strong=LIMITS.strong, weak=LIMITS.weak)
    for fact in as_facts(some):
        expectations.add("u", fact)
    return expectations


@running(deadline=None)
@given(streams, st.randoms(use_true_random=False))
def test_two_models_that_share_no_code_agree(stream, chance):
    """Any stream, shuffled and with repetitions: the set that is kept is the set that is expected."""
    again = [*stream, *chance.sample(stream, len(stream) // 2)]
    chance.shuffle(again)
    assert judged(merged(again), expecting(stream)) == []


@running(deadline=None)
@given(streams, streams, st.randoms(use_true_random=False))
def test_records_in_flight_raise_no_alarm(required, allowed, chance):
    """Whatever part of what came after the positions is in the store, it is right, also where it pushed others out."""
    stored = merged([*required, *chance.sample(allowed, chance.randint(0, len(allowed)))])
    expectations = expecting(required)
    held = {(is_weak(fact.action), fact) for fact in as_facts(stored.signals)}
    for fact in as_facts(allowed):
        if (is_weak(fact.action), fact) in held:
            expectations.add("u", fact)
    assert judged(stored, expectations) == []


@running(deadline=None)
@given(streams.filter(bool), st.data())
def test_any_one_signal_less_or_more_or_other_is_found(stream, data):
    """A signal dropped, altered, invented or counted twice is found as what it is, and nothing else is."""
    state, expectations = merged(stream), expecting(stream)
    victim = data.draw(st.sampled_from(state.signals))
    rest = [signal for signal in state.signals if signal != victim]

    def found(*some):
        both = {weak: tuple(one for one in some if is_weak(one.action) == weak) for weak in (False, True)}
        findings = judged(ProfileState(strong=both[False], weak=both[True], seen=state.seen), expectations)
        return [(finding.kind, finding.event_id) for finding in findings]

    assert found(*rest) == [(Kind.LOST, victim.event_id)]
    altered = msgspec.structs.replace(victim, weight=victim.weight + 0.25)
    assert found(*rest, altered) == [(Kind.ALTERED, victim.event_id)]
    invented = msgspec.structs.replace(victim, event_id="x", item_id="i3")
    assert found(*state.signals, invented) == [(Kind.FOREIGN, "x")]
    assert found(*state.signals, msgspec.structs.replace(victim, event_id="x")) == [(Kind.DOUBLED, "x")]
    assert found(*state.signals, victim) == [(Kind.DOUBLED, victim.event_id)]


@running(deadline=None)
@given(streams, st.integers(0, 40))
def test_what_is_older_than_the_log_is_taken_as_it_is(stream, cut):
    """With any beginning of the log gone, a right set is right still; but what the log knows must be as it says."""
    state = merged(stream)
    rest = stream[cut:]
    known = {(strength_of(signal.action), signal.event_id) for signal in rest}
    gone = [signal for signal in stream[:cut] if (signal.strength, signal.event_id) not in known]
    assert judged(merged([*gone, *rest]), expecting(rest), may_precede=lambda _: True) == []
    if cut == 0:
        assert judged(state, expecting(rest), may_precede=lambda _: True) == []


times = st.one_of(
    st.none(),
    st.integers(NOW - 10**12, NOW + 4 * 10**10),
    st.datetimes(timezones=st.timezones()).filter(lambda one: 1971 < one.year < 9_998),
    st.integers(NOW + 299_990, NOW + 300_010),
)
events = st.one_of(
    st.builds(
        Click,
        event_id=st.just("e"),
        user_id=st.sampled_from(["u", "other"]),
        item_id=st.just("i"),
        action=st.sampled_from([*Click.__annotations__["action"]]),
        value=st.none() | st.floats(-2, 8),
        dwell_ms=st.none() | st.integers(0, 86_400_000),
        at=times,
    ),
    st.builds(
        Post,
        event_id=st.just("e"),
        user_id=st.just("u"),
        item_id=st.none() | st.just("mine"),
        text=st.sampled_from(["", " ", "words"]),
        media=st.sampled_from([(), (Media(kind="image"),), (Media(kind="image", uri="https://a/b"),)]),
        recommendable=st.booleans(),
        at=times,
    ),
    st.builds(
        MediaUpload,
        event_id=st.just("e"),
        user_id=st.just("u"),
        kind=st.just("audio"),
        uri=st.none() | st.just("https://a/b"),
        data=st.none() | st.just(b"x"),
        at=times,
    ),
)


@running(deadline=None)
@given(events, st.sampled_from([None, b"u"]))
def test_records_say_the_same_to_both(event, key):
    """Of any record both say the same: that it is a dead letter, or whose signal it is, with weight and time."""
    identity, settings = Identity("key"), ProfileSettings(rating_low=1, weights={"view": 0.7})
    reader, interpreter = Reader(identity, settings), Interpreter(identity, settings)
    topic, read = {
        Click: (Topic.CLICKS, reader.click),
        Post: (Topic.POSTS, reader.post),
        MediaUpload: (Topic.MEDIA_UPLOADS, reader.upload),
    }[type(event)]
    record = Record(topic=topic, partition=0, offset=0, timestamp=NOW, key=key, value=encode(event))
    try:
        user, signal = read(record)[:2]
    except Unusable:
        with pytest.raises(Unusable):
            interpreter.read(topic, record)
        return
    found, fact = interpreter.read(topic, record)
    assert found == user
    assert same(fact, as_facts([signal])[0])
    assert is_weak(fact.action) == (signal.strength == "weak")


PLACE = ("transitions", 0)
liked = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(NOW - 10**11, NOW),
    st.lists(st.tuples(st.sampled_from([f"i{number}" for number in range(400)]), st.just(0.5)), max_size=50),
)


@running(deadline=None, max_examples=25)
@given(st.lists(liked, max_size=30), st.data())
def test_rows_are_the_same_to_both(events, data):
    """Any log of transitions, parts of it published again: rows are what is expected, and one that is off is found."""
    log = [
        Transition(item_id=item, at=at, previous=before, origin=("clicks", 0), offset=offset)
        for offset, (item, at, before) in enumerate(events)
    ]
    back = data.draw(st.integers(0, len(log)))
    log = [*log, *log[back:], *log[back:]]
    rows = {item: Row(item_id=item).adding(one for one in log if one.item_id == item) for item in ("a", "b")}
    rows = {item: row for item, row in rows.items() if row.count}
    covered = data.draw(st.integers(0, len(log)))

    def findings(rows):
        held = HeldRows(positions={PLACE: Position(topic_id="t", next_offset=covered)}, rows=rows)
        recount = Recount(held, None)
        for offset, one in enumerate(log):
            recount.take(as_record(one, offset))
        extents = {PLACE: Extent(topic_id="t", low=0, end=len(log))}
        return recount.report(extents, {PLACE: 0}).findings

    assert findings(rows) == ()
    if not rows:
        return
    item = data.draw(st.sampled_from(sorted(rows)))
    row = rows[item]
    twice = msgspec.structs.replace(row, count=row.count + 1)
    lighter = msgspec.structs.replace(row, mass=row.mass * (1 - 1e-5))
    for wrong, stored in ((twice, row.count + 1), (lighter, row.count)):
        [found] = findings({**rows, item: wrong})
        assert (found.item_id, found.expected, found.stored) == (item, row.count, stored)
    if any(one.item_id == item for one in log[:covered]):
        [found] = findings({name: one for name, one in rows.items() if name != item})
        assert (found.item_id, found.stored) == (item, 0)


def as_record(transition, offset):
    """A transition as it lies in the log."""
    topic, partition = transition.origin
    told = events_of.Transition(
        item_id=transition.item_id,
        at=transition.at,
        previous=tuple(transition.previous),
        origin=events_of.SourcePosition(topic=topic, partition=partition, offset=transition.offset),
    )
    return Record(topic=PLACE[0], partition=PLACE[1], offset=offset, timestamp=NOW, key=None, value=encode(told))


@running(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**11), st.integers(0, 5), st.sampled_from([-3.0, 0.0, 0.5, 4.0])), max_size=9)
)
def test_vectors_are_the_same_to_both(deeds):
    """Vectors of any set agree, with items that are missing, long absence and rejections."""
    settings = ProfileSettings()
    content = np.random.default_rng(3).normal(size=(5, 7)).astype(np.float32)
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    found = [
        Signal(NOW - ago, f"e{number}", f"i{item}", Action.LIKE, weight)
        for number, (ago, item, weight) in enumerate(deeds)
    ]
    horizons = Horizons(short_ms=8 * HOUR_MS, long_ms=50 * 24 * HOUR_MS, short_share_at=3.0)
    rows = {f"i{row}": row for row in range(5)}
    views = interest_views([found], [max((one.time for one in found), default=0)], rows, content, horizons)
    mine = views_of(as_facts(found), {item: content[row] for item, row in rows.items()}, 7, settings)
    for one, other in zip(mine, (views.short[0], views.long[0], views.interest[0]), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_sample_is_the_same_in_any_order():
    """A sample depends on its seed and on who there is, not on the order in which they are met."""
    users = [f"u{number}" for number in range(500)]

    def sampled(seed, order):
        sample = Sample(20, seed)
        for user in order:
            sample.admit(user)
        return {user for user in users if sample.stands(user)}

    first = sampled(1, users)
    assert len(first) == 20
    assert sampled(1, random.Random(2).sample(users, 500)) == first
    assert sampled(2, users) != first


@pytest.mark.parametrize(
    ("topic_id", "end", "words"), [("b", 99, "created anew"), ("a", 9, "ends at 9"), ("b", None, "created anew")]
)
def test_a_store_of_another_log_is_not_compared(topic_id, end, words):
    """A topic that was created anew, or that ends before what the store covers, gives no verdict."""
    position = Position(topic_id="a", next_offset=10)
    with pytest.raises(ConfigurationError, match=words):
        check_log({("clicks", 0): position}, {("clicks", 0): Extent(topic_id=topic_id, low=0, end=end)})
    check_log({("clicks", 0): position}, {("clicks", 0): Extent(topic_id="a", low=0, end=None)})


# On a real log and a real store.


def items(stage):
    """A catalogue."""
    for number in range(ITEMS):
        item = Item(item_id=f"i{number}", title=f"thing number {number} of kind {number % 5}")
        yield Output(topic=stage.topic(Topic.ITEMS), key=item.item_id.encode(), value=encode(item))


def deeds(stage, count, chance, *, users=USERS, first=0):
    """Clicks of all kinds, out of order; some twice, some with an id used before, some on items that do not exist."""
    topic = stage.topic(Topic.CLICKS)
    now = time.time_ns() // 1_000_000
    for number in range(first, first + count):
        action = chance.choice(["view", "click", "skip", "like", "rate", "dislike", "purchase"])
        click = Click(
            event_id=f"e{chance.choice([number, number, number, chance.randint(first, number)])}",
            user_id=f"u{chance.randrange(users)}",
            item_id=f"i{chance.randrange(ITEMS + 2)}",
            action=action,
            value=chance.randint(1, 10) / 2 if action == "rate" else None,
            dwell_ms=chance.randrange(60_000) if action == "view" else None,
            at=now - chance.randrange(HOUR_MS),
        )
        for _ in range(chance.choice([1, 1, 1, 2])):
            yield Output(topic=topic, key=click.user_id.encode(), value=encode(click))
        if not number % 100:
            yield Output(topic=topic, key=b"u1", value=b"no click")


def posts(stage):
    """Posts, some of them searches."""
    for number in range(POSTS):
        user = f"u{number % USERS}"
        post = Post(event_id=f"p{number}", user_id=user, text=f"about {number}", recommendable=bool(number % 2))
        yield Output(topic=stage.topic(Topic.POSTS), key=user.encode(), value=encode(post))


def beside(worker):
    """The settings of a command beside a running worker."""
    port = worker.settings.worker.model_copy(update={"http_port": worker.port})
    return worker.settings.model_copy(update={"worker": port})


class Played:
    """What a worker has left behind.

    Attributes:
        live: reports made while it worked and more was sent.
        settled: the report when it had read everything, and still ran.
        snapshot: a copy of its store, taken while it worked.
    """

    def __init__(self, stage, folder):
        self.stage = stage
        self.snapshot = folder / "store"
        chance = random.Random(5)
        moment = time.time_ns() // 1_000_000 - HOUR_MS
        stage.send(items(stage), timestamps=iter(lambda: moment, None))
        stage.send(posts(stage))
        stage.send(deeds(stage, CLICKS, chance))
        with stage.worker() as worker:
            worker.await_ready()
            settings = beside(worker)
            stage.await_settled(worker)
            sending = threading.Thread(target=self.trickle, args=(chance,))
            sending.start()
            take_snapshot(settings, self.snapshot)
            self.live = [verify(settings), verify(settings)]
            sending.join()
            stage.await_settled(worker)
            self.settled = verify(settings)
            assert worker.stop() == 0

    def trickle(self, chance):
        """Sends more, little by little."""
        for part in range(30):
            self.stage.send(deeds(self.stage, 100, chance, first=CLICKS + 100 * part))
            time.sleep(0.1)

    def copied(self, folder, source=None):
        """Settings for a copy of the store, or of the snapshot, that a test may spoil."""
        data = folder / "data"
        copy_shards(source or self.stage.settings.data_dir / "store", data / "store")
        return self.stage.settings.model_copy(update={"data_dir": data})


@pytest.fixture(scope="module")
def played(kafka, make_stage, tmp_path_factory):
    """A worker's life, verified on the way."""
    with make_stage(kafka, profile={"strong_limit": STRONG, "weak_limit": WEAK}) as stage:
        yield Played(stage, tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(played, tmp_path):
    """Settings for a copy of the store that this test may spoil."""
    return played.copied(tmp_path)


def files(folder):
    """The files of a folder: when each was last written, and how long it is."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def spoil(settings, user, change):
    """Writes a profile as `change` makes it of the one that stands."""

    async def write():
        parts = build_parts(settings)
        await parts.open()
        profile = (await parts.profiles.load([user]))[user]
        assert await parts.profiles.write([change(profile)])
        await parts.store.close()

    asyncio.run(write())


def with_strong(change):
    """Alters the strong signals of a profile, and leaves its vectors."""
    replace = msgspec.structs.replace
    return lambda profile: replace(profile, state=replace(profile.state, strong=tuple(change(profile.state.strong))))


def only(report):
    """The findings of the only user with whom something is wrong."""
    assert not report.exact
    (one,) = report.findings
    return one


def kinds(report):
    """Signals that are wrong, by kind."""
    return {kind.value: getattr(report, kind.value) for kind in Kind if getattr(report, kind.value)}


def run(settings, *words):
    """Runs a command in this process."""
    kafka = ["--bootstrap-servers", settings.kafka.bootstrap_servers]
    flags = ["--namespace", settings.namespace, "--data-dir", str(settings.data_dir), *kafka]
    return CliRunner().invoke(app, [*flags, *map(str, words)])


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    """The limits that the worker was told, for commands."""
    for name in list(os.environ):
        if name.startswith("PENCHANT_") and not name.startswith("PENCHANT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PENCHANT_PROFILE__STRONG_LIMIT", str(STRONG))
    monkeypatch.setenv("PENCHANT_PROFILE__WEAK_LIMIT", str(WEAK))


def test_exact_while_a_worker_works(played):
    """Beside a running worker, with events coming in all the while, there is no false alarm."""
    for report in [*played.live, played.settled]:
        assert report.exact, report.findings
        assert report.users == USERS
        assert report.signals == USERS * (STRONG + WEAK)
        assert report.unusable
    assert played.live[0].records < played.settled.records
    assert played.settled.largest_deviation < 1e-6
    assert played.settled.stale == 0
    assert played.settled.in_flight == 0
    assert played.settled.rows.rows == ITEMS + 2
    assert played.settled.rows.in_flight == 0
    assert played.settled.rows.before_log == 0


def test_exact_when_the_worker_has_stopped(played, copy):
    """The store at rest is verified from a copy: itself is not touched, and nothing is left behind."""
    before = files(copy.data_dir)
    report = verify(copy)
    assert report.exact
    assert report.signals == played.settled.signals
    after = files(copy.data_dir)
    assert after.keys() - before.keys() == {copy.data_dir / "store" / "lock"}
    assert {path: after[path] for path in before} == before


def test_a_dropped_signal_is_lost(copy):
    """Its user and its event are named, with what the log says of it."""
    dropped = []
    spoil(copy, "u3", with_strong(lambda strong: (dropped.append(strong[4]), *strong[:4], *strong[5:])[1:]))
    report = verify(copy)
    assert kinds(report) == {"lost": 1}
    (finding,) = only(report).signals
    assert only(report).user == "u3"
    assert finding.expected == as_facts(dropped)[0]
    assert finding.stored is None


def test_a_signal_under_another_id_is_doubled(copy):
    """The same deed once more, pushing out the oldest."""
    spoil(
        copy,
        "u3",
        with_strong(lambda strong: [msgspec.structs.replace(strong[0], event_id="again"), *strong[:-1]]),
    )
    report = verify(copy)
    assert kinds(report) == {"doubled": 1, "lost": 1}
    assert [one.event_id for one in only(report).signals if one.kind is Kind.DOUBLED] == ["again"]


def test_a_signal_twice_under_its_own_id_is_doubled(copy):
    """Even what no merging could make."""
    spoil(copy, "u3", with_strong(lambda strong: [strong[0], *strong]))
    report = verify(copy)
    assert kinds(report) == {"doubled": 1}


def test_a_misweighted_signal_is_altered(copy):
    """What the log says and what the store holds are told side by side."""
    spoil(
        copy,
        "u3",
        with_strong(lambda strong: [msgspec.structs.replace(strong[0], weight=strong[0].weight + 1), *strong[1:]]),
    )
    report = verify(copy)
    assert kinds(report) == {"altered": 1}
    (finding,) = only(report).signals
    assert finding.stored.weight == pytest.approx(finding.expected.weight + 1)
    assert report.deviating == 1  # the vectors are not those of the altered set


def test_a_vector_that_is_off_is_found(copy):
    """By a thousandth in one component; the signals are as they must be."""

    def off(profile):
        long = profile.long.copy()
        long[7] += 1e-3
        return msgspec.structs.replace(profile, long=long)

    spoil(copy, "u5", off)
    report = verify(copy)
    assert (report.deviating, kinds(report), report.exact) == (1, {}, False)
    assert only(report).user == "u5"
    assert report.largest_deviation == pytest.approx(1e-3, rel=1e-2)


def test_a_profile_forgotten_to_wait_is_found(copy):
    """An item that is missing and that nobody waits for would never count."""
    report = verify(copy)
    assert report.waiting
    spoil(copy, "u5", lambda profile: msgspec.structs.replace(profile, awaits=frozenset()))
    found = verify(copy)
    assert only(found).forgotten
    assert found.waiting == report.waiting - 1


def test_a_row_that_is_off_is_found(copy):
    """An item that counts once too often is named, with what the log says; looking at one user looks at no row."""

    async def edit():
        parts = build_parts(copy)
        await parts.open()
        row = (await parts.rows.get(["i3"]))["i3"]
        told = Transition(item_id="i3", at=row.as_of, previous=(), origin=("elsewhere", 0), offset=0)
        await parts.rows.apply({"i3": [told]})
        await parts.store.close()
        return row.count

    count = asyncio.run(edit())
    report = verify(copy)
    assert not report.exact
    [found] = report.rows.findings
    assert (found.item_id, found.expected, found.stored) == ("i3", count, count + 1)
    assert verify(copy, users=["u1"]).rows is None
    shown = run(copy, "verify")
    assert shown.exit_code == 1
    assert "wrong rows" in shown.stdout
    [one] = json.loads(run(copy, "verify", "--json").stdout)["rows"]["findings"]
    assert one["item_id"] == "i3"


def test_an_item_edited_since_is_not_wrong(copy):
    """A profile takes an edit up when it is next written: until then it is stale, and said so."""

    async def edit():
        parts = build_parts(copy)
        await parts.open()
        (item,) = (await parts.items.get(["i3"])).values()
        vector = np.zeros(parts.space.dimension, np.float32)
        vector[0] = 1
        now = time.time_ns() // 1_000_000
        await parts.items.put([(msgspec.structs.replace(item, version=(now, now, 0)), vector)])
        await parts.store.close()

    asyncio.run(edit())
    report = verify(copy)
    assert report.stale
    assert report.exact
    assert all(one.stale for one in report.findings)


def test_records_behind_the_positions_may_be_there_or_not(played, copy):
    """After a crash between the profiles and their position, what is there is right; and so it is when all of it is."""
    stage = played.stage
    outputs = list(deeds(stage, 100, random.Random(8), first=50_000))
    stage.send(outputs)
    report = verify(copy)
    assert report.exact
    assert report.in_flight == len(outputs)
    reader = Reader(Identity(copy.id_key.get_secret_value()), copy.profile)
    records = [
        record
        for record in stage.read(Topic.CLICKS)
        if (record.value, record.key) in {(one.value, one.key) for one in outputs}
    ]

    async def apply_half():
        parts = build_parts(copy)
        await parts.open()
        for record in records[::2]:
            try:
                user, signal = reader.click(record)
            except Unusable:
                continue
            profile = (await parts.profiles.load([user]))[user]
            state = profile.state.adding([signal], parts.limits)
            await parts.profiles.write([msgspec.structs.replace(profile, state=state)])
        await parts.store.close()

    asyncio.run(apply_half())
    report = verify(copy)
    assert kinds(report) == {}
    assert report.in_flight == len(outputs)


def cover_all(settings, stage):
    """Lets the store say that it covers the whole log."""

    async def save():
        parts = build_parts(settings)
        await parts.open()
        positions = Positions(parts.store, parts.profiles.layout.name, settings.prefixed(interest.GROUP))
        stored = await positions.load(stage.ends([Topic.CLICKS]))
        await positions.save(
            {
                source: msgspec.structs.replace(stored[source], next_offset=end)
                for source, end in stage.ends([Topic.CLICKS]).items()
            }
        )
        await parts.store.close()

    asyncio.run(save())


def test_a_lost_user_is_found(played, copy):
    """Someone of whom the store knows nothing, though it says that it covers their events."""
    stage = played.stage
    click = Click(event_id="only", user_id="nobody", item_id="i1")
    stage.send([Output(topic=stage.topic(Topic.CLICKS), key=b"nobody", value=encode(click))])
    assert verify(copy).exact
    cover_all(copy, stage)
    report = verify(copy)
    assert report.lost_users == 1
    one = next(one for one in report.findings if one.user == "nobody")
    assert [(finding.kind, finding.event_id) for finding in one.signals] == [(Kind.LOST, "only")]
    assert verify(copy, users=["nobody"]).lost == 1
    assert verify(copy, users=["u2"]).users == 1
    assert verify(copy, sample=5).users == 5


def test_what_cannot_be_compared_is_refused(played, copy, tmp_path):
    """A user nobody knows, another namespace, a log that is not the store's: words, and no verdict."""
    with pytest.raises(PenchantError, match="knows these users"):
        verify(copy, users=["stranger"])
    with pytest.raises(ConfigurationError, match="no snapshot's folder"):
        verify(copy, baseline=str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="There is no store"):
        verify(copy.model_copy(update={"data_dir": tmp_path / "elsewhere"}))
    assert not (tmp_path / "elsewhere").exists()
    (copy.data_dir / "store" / f"{copy.namespace}.profiles").rename(tmp_path / "profiles")
    with pytest.raises(ConfigurationError, match="There is no collection"):
        verify(copy)


def test_the_commands(played, copy, tmp_path):
    """Exit code 0 and 1, one JSON value, a table for a person, and a snapshot that is not written over."""
    exact = run(copy, "verify", "--json", "--user", "u1")
    assert exact.exit_code == 0, exact.output
    found = json.loads(exact.stdout)
    assert (found["exact"], found["users"], found["findings"]) == (True, 1, [])
    assert run(copy, "snapshot", tmp_path / "made").exit_code == 0
    again = run(copy, "snapshot", tmp_path / "made")
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    assert run(copy, "verify", "--user", "u1", "--from", tmp_path / "made").exit_code == 0
    spoil(copy, "u1", with_strong(lambda strong: strong[1:]))
    wrong = run(copy, "verify", "--json")
    assert wrong.exit_code == 1
    (one,) = json.loads(wrong.stdout)["findings"]
    assert one["user"] == "u1"
    assert one["signals"][0]["expected"]["action"]
    shown = run(copy, "verify")
    assert shown.exit_code == 1
    assert "not exact" in shown.stdout
    assert "u1" in shown.stdout
    assert run(copy, "verify", "--user", "u1", "--sample", 2).exit_code == 2


def test_a_snapshot_restored_catches_up(played, tmp_path):
    """A worker on a snapshot taken under a running worker applies what came since, and the result is exact."""
    settings = played.copied(tmp_path, played.snapshot)
    before = verify(settings)
    assert before.exact
    assert before.in_flight
    stage = played.stage.with_settings()
    stage.settings = settings
    with stage.worker("interest") as worker:
        worker.await_ready()
        worker.await_that(lambda: not verify(beside(worker)).in_flight, "the store covers the log", pause_s=0.5)
        assert worker.stop() == 0
    report = verify(settings)
    assert report.exact
    assert report.users == USERS + 1


# What is left to say where retention has removed records. Last of all, for it cannot be undone.


@pytest.fixture(scope="module")
def torn(played, tmp_path_factory):
    """Settings for a copy of the store; the log begins where the snapshot ends."""
    settings = played.copied(tmp_path_factory.mktemp("torn"))
    delete(played.stage, covered(played, tmp_path_factory.mktemp("covered")))
    return settings


def covered(played, folder):
    """The positions of the snapshot in the topic of clicks."""
    settings = played.copied(folder, played.snapshot)

    async def load():
        parts = build_parts(settings)
        await parts.open()
        positions = Positions(parts.store, parts.profiles.layout.name, settings.prefixed(interest.GROUP))
        found = await positions.load(played.stage.ends([Topic.CLICKS]))
        await parts.store.close()
        return {source: position.next_offset for source, position in found.items()}

    return asyncio.run(load())


def delete(stage, offsets):
    """Removes the records before some offsets."""
    asked = stage.admin.delete_records([TopicPartition(*source, offset) for source, offset in offsets.items()])
    for done in asked.values():
        done.result(30)


def test_what_the_log_no_longer_has_is_taken_as_it_is(torn):
    """Older signals are counted and believed; newer ones are checked as ever."""
    report = verify(torn)
    assert report.exact
    assert report.before_log
    assert report.before_log < report.signals


def test_a_snapshot_stands_in_for_what_is_gone(torn, played, tmp_path):
    """From a snapshot on everything is checked again: a signal altered before the log begins is found."""
    before = files(played.snapshot)
    report = verify(torn, baseline=str(played.snapshot))
    assert report.exact
    assert report.before_log == 0
    settings = played.copied(tmp_path)
    oldest = []
    spoil(settings, "u2", with_strong(lambda strong: (oldest.append(strong[-1]), *strong[:-1])[1:]))
    assert kinds(verify(settings, baseline=str(played.snapshot))) == {"lost": 1}
    assert files(played.snapshot) == before


def test_a_gap_between_snapshot_and_log_is_said(torn, played, tmp_path):
    """Where the log begins after the snapshot ends, there is no verdict; nor where the snapshot is the newer."""
    with pytest.raises(ConfigurationError, match="newer than the store"):
        verify(
            played.copied(tmp_path / "older", played.snapshot),
            baseline=str(torn.data_dir / "store"),
        )
    ends = played.stage.ends([Topic.CLICKS])
    delete(played.stage, {source: end - 1 for source, end in ends.items()})
    with pytest.raises(ConfigurationError, match="There is a gap"):
        verify(torn, baseline=str(played.snapshot))
