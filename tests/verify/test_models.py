"""What a verification judges by, with no log and no store: two models of profiles that agree on any stream of events.

One keeps profiles, rows and vectors; the other recounts them, and they share no code. Whatever the events, both say the
same; and where one thing that is kept is off, the recount finds that and nothing else.
"""

import random

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st

from penchant.errors import ConfigurationError
from penchant.profile.affinity import Row, Transition
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons, interest_views
from penchant.profile.positions import Position
from penchant.profile.signals import Action, Signal
from penchant.profile.state import Limits, ProfileState
from penchant.settings import ProfileSettings
from penchant.streams import events as events_of
from penchant.streams.codec import Unusable, encode
from penchant.streams.events import Click, Media, MediaUpload, Post
from penchant.streams.interpret import Reader
from penchant.streams.records import Record
from penchant.streams.topics import Topic
from penchant.verify import Kind
from penchant.verify.check import check_log
from penchant.verify.choice import Sample
from penchant.verify.compare import compare, same
from penchant.verify.expected import Expectations, Interpreter, is_weak
from penchant.verify.held import facts_of
from penchant.verify.log import Extent
from penchant.verify.rows import HeldRows, Recount
from penchant.verify.views import views_of

HOUR_MS = 3_600_000
LIMITS = Limits(strong=4, weak=3, seen_bits=64)
NOW = 1_750_000_000_000

signals = st.builds(
    Signal,
    st.integers(NOW, NOW + 5),
    st.sampled_from([f"e{number}" for number in range(9)]),
    st.sampled_from(["i1", "i2"]),
    st.sampled_from([Action.LIKE, Action.PURCHASE, Action.VIEW, Action.CLICK]),
    st.sampled_from([0.5, 1.0, 2.0]),
)
streams = st.lists(signals, max_size=40)


def merged(some):
    """The state that signals make, by the code that keeps profiles."""
    return ProfileState.empty(LIMITS).adding(list(some), LIMITS)


def of_both(some, state):
    """A state of just these signals, whether or not merging could make it."""
    both = {weak: tuple(one for one in some if is_weak(one.action) == weak) for weak in (False, True)}
    return msgspec.structs.replace(state, strong=both[False], weak=both[True])


def judged(stored, expectations, *, may_precede=lambda _: False):
    """What is found wrong with a stored state of the user u."""
    return [
        finding
        for part, weak, limit in ((stored.strong, False, LIMITS.strong), (stored.weak, True, LIMITS.weak))
        for finding in compare(facts_of(part), expectations.of("u", weak=weak), limit, may_precede).findings
    ]


def expecting(some):
    """What the log says, of the user u."""
    expectations = Expectations(strong=LIMITS.strong, weak=LIMITS.weak)
    for fact in facts_of(some):
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
    held = {(is_weak(fact.action), fact) for fact in facts_of(stored.signals)}
    for fact in facts_of(allowed):
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
        findings = judged(of_both(some, state), expectations)
        return [(finding.kind, finding.event_id) for finding in findings]

    assert found(*rest) == [(Kind.LOST, victim.event_id)]
    altered = msgspec.structs.replace(victim, weight=victim.weight + 0.25)
    assert found(*rest, altered) == [(Kind.ALTERED, victim.event_id)]
    invented = msgspec.structs.replace(victim, event_id="x", item_id="i3")
    assert found(*state.signals, invented) == [(Kind.FOREIGN, "x")]
    assert found(*state.signals, msgspec.structs.replace(victim, event_id="x")) == [(Kind.DOUBLED, "x")]
    assert found(*state.signals, victim) == [(Kind.DOUBLED, victim.event_id)]
    assert found(*state.signals, altered) == [(Kind.DOUBLED, victim.event_id)]


@running(deadline=None)
@given(streams, st.integers(0, 40), st.data())
def test_what_is_older_than_the_log_is_taken_as_it_is(stream, cut, data):
    """With any beginning of the log gone, a right set is right still; but what the log knows must be as it says."""
    rest = stream[cut:]
    known = {(signal.strength, signal.event_id) for signal in rest}
    gone = [signal for signal in stream[:cut] if (signal.strength, signal.event_id) not in known]
    state, expectations = merged([*gone, *rest]), expecting(rest)

    def found(*some):
        findings = judged(of_both(some, state), expectations, may_precede=lambda _: True)
        return [(finding.kind, finding.event_id) for finding in findings]

    assert found(*state.signals) == []
    told = [signal for signal in state.signals if (signal.strength, signal.event_id) in known]
    if not told:
        return
    victim = data.draw(st.sampled_from(told))
    others = [signal for signal in state.signals if signal != victim]
    assert found(*others) == [(Kind.LOST, victim.event_id)]
    altered = msgspec.structs.replace(victim, weight=victim.weight + 0.25)
    assert found(*others, altered) == [(Kind.ALTERED, victim.event_id)]


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
    assert same(fact, facts_of([signal])[0])
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
    mine = views_of(facts_of(found), {item: content[row] for item, row in rows.items()}, 7, settings)
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
