"""Examples: an even sample, the same for the same log, of bounded size, that names nobody."""

from collections import Counter

import msgspec
import numpy as np
import pytest

from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.events import MAX_CANDIDATES, MAX_FEATURES, MAX_VECTOR_BYTES, Example, Lesson, Reset
from penchant.streams.examples import OTHERS, Seen, example_of, lesson_in
from penchant.streams.quality import Choice
from penchant.streams.records import Record

NAMES = ("text_long", "popularity", "age")


def choice(event_id="e1", count=100, liked=7):
    """Candidates whose first feature is their place in hundredths, and whose others are noise."""
    features = np.random.default_rng(0).standard_normal((3, count)).astype(np.float16)
    features[0] = np.arange(count) / 100
    return Choice(event_id, features, liked)


def record(value):
    """A record of the topic."""
    value = value if isinstance(value, bytes) else encode(value)
    return Record(topic="examples", partition=0, offset=0, timestamp=0, key=None, value=value)


def sampled(example):
    """Which candidates an example has, by their first feature."""
    rows = np.frombuffer(example.features, "<f4").reshape(len(example.names), example.candidates)
    return np.rint(100 * rows[0]).astype(int).tolist()


def test_an_example_is_what_was_liked_and_a_sample_of_the_rest():
    """The liked one first, then others, each once."""
    liked, *others = sampled(example_of(choice(), NAMES, 5))
    assert liked == 7
    assert len(set(others)) == len(others) == OTHERS
    assert 7 not in others
    assert sampled(example_of(choice(count=4, liked=2), NAMES, 5)) == [2, 0, 1, 3]


def test_the_sample_is_even():
    """Over many likes every other candidate is drawn as often, within what chance allows."""
    drawn = Counter(one for n in range(3_000) for one in sampled(example_of(choice(f"e{n}"), NAMES, 0))[1:])
    share = OTHERS / 99
    spread = np.sqrt(3_000 * share * (1 - share))
    assert len(drawn) == 99
    assert max(abs(count - 3_000 * share) for count in drawn.values()) < 5 * spread


def test_the_same_log_gives_the_same_examples():
    """Byte for byte, wherever it is made; another event gives another sample."""
    one = encode(example_of(choice(), NAMES, 5))
    assert encode(example_of(choice(), NAMES, 5)) == one != encode(example_of(choice("e2"), NAMES, 5))
    assert sampled(example_of(choice(), NAMES, 5))[1:5] == [0, 4, 6, 9]


def test_an_example_says_nothing_but_features_and_absence():
    """No user, item, event or moment: those four fields are all that is on the wire, and an absence is in minutes."""
    wire = msgspec.msgpack.decode(encode(example_of(choice("a-secret-event"), NAMES, 5)))
    assert set(wire) == {"type", "names", "candidates", "features", "absence_ms"}
    assert wire["names"] == list(NAMES)
    assert b"a-secret-event" not in encode(example_of(choice("a-secret-event"), NAMES, 5))
    away = [example_of(choice(), NAMES, absence_ms).absence_ms for absence_ms in (0, 59_999, 60_000, 28_811_327)]
    assert away == [0, 0, 60_000, 28_800_000]


def test_a_lesson_is_read_as_it_was_told():
    """By name, whatever order the learner has: what it does not know is left out, what is not told is 0."""
    example = example_of(choice(), NAMES, 60_000)
    seen = lesson_in(record(example), ("age", "new", "text_long"))
    assert isinstance(seen, Seen)
    told = np.frombuffer(example.features, "<f4").reshape(3, -1)
    assert (seen.features == np.stack([told[2], np.zeros(33), told[0]])).all()
    assert seen.absence_ms == 60_000
    assert lesson_in(record(Reset()), NAMES) == Reset()
    assert decode(Lesson, encode(Reset(), json=True)) == Reset()


def test_the_largest_example_fits():
    """As many candidates and features as are allowed are within what the value may hold."""
    assert 4 * MAX_CANDIDATES * MAX_FEATURES <= MAX_VECTOR_BYTES
    names = tuple(f"f{number}" for number in range(MAX_FEATURES))
    features = np.zeros(MAX_FEATURES * MAX_CANDIDATES, "<f4").tobytes()
    largest = Example(names=names, candidates=MAX_CANDIDATES, features=features, absence_ms=0)
    assert lesson_in(record(largest), names).features.shape == (MAX_FEATURES, MAX_CANDIDATES)


def forged(**changes):
    """An example with some fields as nobody should send them."""
    fields = {"type": "example", "names": ["age"], "candidates": 2, "features": bytes(8), "absence_ms": 0}
    return msgspec.msgpack.encode(fields | changes)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (forged(candidates=1, features=bytes(4)), "invalid"),
        (forged(candidates=MAX_CANDIDATES + 1, features=bytes(4 * (MAX_CANDIDATES + 1))), "invalid"),
        (forged(candidates=3), "invalid"),
        (forged(candidates=2**62), "invalid"),
        (forged(features=bytes(7)), "invalid"),
        (forged(names=[]), "invalid"),
        (forged(names=["age"] * 2, features=bytes(16)), "invalid"),
        (forged(names=[f"f{n}" for n in range(MAX_FEATURES + 1)]), "invalid"),
        (forged(names=["age\x1b"]), "invalid"),
        (forged(names=["unheard-of"]), "unknown-features"),
        (forged(features=np.array([np.nan, 0], "<f4").tobytes()), "invalid"),
        (forged(features=np.array([np.inf, 0], "<f4").tobytes()), "invalid"),
        (forged(features=np.array([101, 0], "<f4").tobytes()), "invalid"),
        (forged(absence_ms=-1), "invalid"),
        (forged(absence_ms=10**18), "invalid"),
        (forged(type="transition"), "invalid"),
        (msgspec.msgpack.encode({"names": ["age"]}), "invalid"),
        (b"\x81", "malformed"),
        (b"", "empty"),
    ],
)
def test_what_nobody_should_send_is_refused(value, reason):
    """Before anything is computed of it, with a reason."""
    with pytest.raises(Unusable) as refused:
        lesson_in(record(value), NAMES)
    assert refused.value.reason == reason
