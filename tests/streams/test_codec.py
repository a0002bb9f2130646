"""What reaches a lane is a struct within its bounds, or an `Unusable` that says nothing of the value."""

import json
import math
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.streams.codec import (
    CONTENT_TYPE,
    EARLIEST_MS,
    LATEST_AHEAD_MS,
    MAX_VALUE_BYTES,
    Unusable,
    decode,
    encode,
    event_time_ms,
)
from penchant.streams.events import (
    MAX_ID,
    MAX_INLINE_BYTES,
    MAX_MEDIA,
    MAX_TAGS,
    MAX_TEXT,
    Because,
    Click,
    ClickAction,
    Item,
    ItemReady,
    Media,
    MediaKind,
    MediaUpload,
    Post,
    Recommendations,
    Recommended,
    SourcePosition,
    Timings,
    Triple,
)

NOW = 1_750_000_000_000
TELLTALE = "hunter2-do-not-log"

CLICK = {"event_id": "e1", "user_id": "u1", "item_id": "i1"}
POST = {"event_id": "e1", "user_id": "u1"}
UPLOAD = {"event_id": "e1", "user_id": "u1", "kind": "image"}
ITEM = {"item_id": "i1"}
IMAGE = {"kind": "image", "uri": "https://example.org/cat.png"}

EXAMPLES = [
    Click(event_id="e1", user_id="u1", item_id="i1"),
    Click(
        event_id="e2",
        user_id="ü ser",
        item_id="i/2",
        action=ClickAction.RATE,
        value=4.5,
        dwell_ms=900,
        at=NOW,
        context={"page": "home"},
    ),
    Click(event_id="e3", user_id="u1", item_id="i1", at=datetime(2025, 6, 15, 12, tzinfo=UTC)),
    Post(
        event_id="e4",
        user_id="u1",
        text="two lines\nand a tab\t",
        tags=("a", "b"),
        language="en",
        media=(Media(kind=MediaKind.IMAGE, data=b"\x89PNG\x00"),),
        recommendable=False,
    ),
    MediaUpload(event_id="e5", user_id="u1", kind=MediaKind.AUDIO, uri="file:///a.wav", caption="rain"),
    Item(item_id="i1", title="T", text="x" * MAX_TEXT, tags=("t",), attributes={"year": "1995"}, entity="/m/0x"),
    ItemReady(user_id="u1", item_id="i1"),
    Triple(head="a", relation="r", tail="b"),
    Recommendations(
        user_id="u1",
        profile_version=3,
        as_of=NOW,
        items=(
            Recommended(
                item_id="i1",
                score=0.5,
                parts={"text_long": 0.5},
                because=(Because(event_id="e1", item_id="i2", action="like", part=0.2),),
            ),
        ),
        inputs=(SourcePosition(topic="clicks", partition=0, offset=7),),
        timings=Timings(recorded=NOW, stored=NOW + 2, ranked=NOW + 3),
    ),
]

HOSTILE_BYTES = {
    "nothing": (b"", "empty"),
    "a truncated map": (encode(EXAMPLES[1])[:-3], "malformed"),
    "a map cut after its header": (b"\x8a", "malformed"),
    "trailing bytes": (encode(EXAMPLES[0]) + b"\x00", "malformed"),
    "a reserved msgpack byte": (b"\xc1", "malformed"),
    "a string that is not UTF-8": (b"\x83\xa8event_id\xa1\xff\xa7user_id\xa1u\xa7item_id\xa1i", "malformed"),
    "an array of four thousand million": (b"\xdd\xff\xff\xff\xff", "invalid"),
    "a map of four thousand million": (b"\xdf\xff\xff\xff\xff", "malformed"),
    "an extension type": (b"\xc7\x01\x05x", "invalid"),
    "a number": (b"\x07", "invalid"),
    "nil": (b"\xc0", "invalid"),
    "half of a JSON object": (b'{"event_id": "e1"', "malformed"),
    "JSON after JSON": (b'{"event_id":"e","user_id":"u","item_id":"i"} {}', "malformed"),
    "JSON with NaN": (b'{"event_id":"e","user_id":"u","item_id":"i","value":NaN}', "malformed"),
    "JSON in another encoding": ('{"event_id": "é"}'.encode("latin-1"), "malformed"),
    "white space": (b"   \n", "malformed"),
    "nested a thousand deep": (msgspec.msgpack.encode({**CLICK, "x": 1})[:-1] + b"\x91" * 5_000 + b"\x01", "malformed"),
    "JSON nested a thousand deep": (b'{"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}", "malformed"),
    "more than the broker would take": (b"\x81" + b"\x00" * MAX_VALUE_BYTES, "too-large"),
    "plain text": (b"hello", "invalid"),
    "a PNG": (b"\x89PNG\r\n\x1a\n", "invalid"),
}

OUT_OF_BOUNDS = {
    "no user": (Click, {"event_id": "e", "item_id": "i"}),
    "no event id": (Click, {"user_id": "u", "item_id": "i"}),
    "an empty id": (Click, {**CLICK, "user_id": ""}),
    "an id too long": (Click, {**CLICK, "item_id": "x" * (MAX_ID + 1)}),
    "an id that is a number": (Click, {**CLICK, "user_id": 7}),
    "a newline in an id": (Click, {**CLICK, "user_id": "u\n1"}),
    "a newline behind an id": (Click, {**CLICK, "user_id": "u1\n"}),
    "an escape sequence in an id": (Click, {**CLICK, "item_id": "\x1b[31m"}),
    "a NUL in an id": (Click, {**CLICK, "event_id": "a\x00b"}),
    "a huge value": (Click, {**CLICK, "value": 1e300}),
    "a value that is text": (Click, {**CLICK, "value": "4.5"}),
    "a negative dwell time": (Click, {**CLICK, "dwell_ms": -1}),
    "a dwell time of days": (Click, {**CLICK, "dwell_ms": 10**9}),
    "a fractional time": (Click, {**CLICK, "at": 1.5}),
    "a time beyond the year 9999": (Click, {**CLICK, "at": 2**60}),
    "a time without a zone": (Click, {**CLICK, "at": "2025-06-15T12:00:00"}),
    "a time that is prose": (Click, {**CLICK, "at": TELLTALE}),
    "an unknown action": (Click, {**CLICK, "action": TELLTALE}),
    "an action of another topic": (Click, {**CLICK, "action": "post"}),
    "another type's tag": (Click, {**CLICK, "type": "post"}),
    "an unknown tag": (Click, {**CLICK, "type": TELLTALE}),
    "a context of objects": (Click, {**CLICK, "context": {"a": {}}}),
    "a context too wide": (Click, {**CLICK, "context": {str(n): "" for n in range(33)}}),
    "a text too long": (Post, {**POST, "text": "x" * (MAX_TEXT + 1)}),
    "too many tags": (Post, {**POST, "tags": ["t"] * (MAX_TAGS + 1)}),
    "an empty tag": (Post, {**POST, "tags": [""]}),
    "too much media": (Post, {**POST, "media": [IMAGE] * (MAX_MEDIA + 1)}),
    "media of an unknown kind": (Post, {**POST, "media": [{**IMAGE, "kind": TELLTALE}]}),
    "recommendable as text": (Post, {**POST, "recommendable": "no"}),
    "inline data too large": (MediaUpload, {**UPLOAD, "data": b"x" * (MAX_INLINE_BYTES + 1)}),
    "inline data that is empty": (MediaUpload, {**UPLOAD, "data": b""}),
    "an upload of no kind": (MediaUpload, {"event_id": "e", "user_id": "u"}),
    "a title too long": (Item, {**ITEM, "title": "x" * 1_001}),
    "attributes that are numbers": (Item, {**ITEM, "attributes": {"year": 1995}}),
    "a list": (Item, [1, 2]),
}


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("as_json", [False, True], ids=["msgpack", "json"])
def test_what_is_encoded_is_decoded_again(event, as_json):
    """Both formats carry every struct without loss, and need no header to be told apart."""
    assert decode(type(event), encode(event, json=as_json)) == event


@pytest.mark.parametrize(("value", "reason"), HOSTILE_BYTES.values(), ids=HOSTILE_BYTES)
def test_hostile_bytes_are_unusable_with_a_reason(value, reason):
    """Bytes that are no event become `Unusable` with the reason to count them by."""
    with pytest.raises(Unusable) as refusal:
        decode(Click, value)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(("kind", "fields"), OUT_OF_BOUNDS.values(), ids=OUT_OF_BOUNDS)
@pytest.mark.parametrize("as_json", [False, True], ids=["msgpack", "json"])
def test_every_bound_is_checked_and_no_value_is_quoted(kind, fields, as_json):
    """A field beyond its bounds is refused in both formats, in words that never repeat what was sent."""
    with pytest.raises(Unusable) as refusal:
        decode(kind, (msgspec.json if as_json else msgspec.msgpack).encode(fields))
    assert refusal.value.reason == "invalid"
    assert TELLTALE not in str(refusal.value)
    assert len(str(refusal.value)) < 300


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_is_a_finite_number(value):
    """NaN and infinity, which only msgpack can carry, satisfy no bound."""
    with pytest.raises(Unusable, match=r"\$\.value"):
        decode(Click, msgspec.msgpack.encode({**CLICK, "value": value}))


def test_a_missing_value_is_unusable():
    """A null on a topic where null says nothing is a reasoned refusal, not a crash."""
    with pytest.raises(Unusable, match="empty"):
        decode(Click, None)


def test_unknown_fields_are_ignored():
    """Producers may be newer than workers."""
    assert decode(Click, msgspec.msgpack.encode({**CLICK, "colour": {"deep": [1]}})) == EXAMPLES[0]


def test_the_type_tag_may_be_left_out_or_given():
    """Each topic carries one type, so its name need not be repeated."""
    bare, tagged = CLICK, {"type": "click", **CLICK}
    assert decode(Click, msgspec.msgpack.encode(bare)) == decode(Click, json.dumps(tagged).encode())


@pytest.mark.parametrize(
    ("header", "as_json"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/msgpack", False),
        (b" application/msgpack ", False),
    ],
)
def test_the_content_type_header_decides(header, as_json):
    """The header says which format a value has, whatever its case and parameters."""
    assert decode(Click, encode(EXAMPLES[1], json=as_json), {CONTENT_TYPE: header}) == EXAMPLES[1]


def test_a_header_against_the_value_is_malformed():
    """A value that is not what its header says is refused rather than guessed at."""
    with pytest.raises(Unusable) as refusal:
        decode(Click, encode(EXAMPLES[0], json=True), {CONTENT_TYPE: b"application/msgpack"})
    assert refusal.value.reason in {"malformed", "invalid"}


def test_an_unknown_content_type_is_unusable():
    """A format that penchant does not speak is refused by name of the field, not of the value."""
    with pytest.raises(Unusable) as refusal:
        decode(Click, encode(EXAMPLES[0]), {CONTENT_TYPE: TELLTALE.encode()})
    assert refusal.value.reason == "content-type"
    assert TELLTALE not in str(refusal.value)


KINDS = st.sampled_from([Click, Post, MediaUpload, Item, ItemReady, Triple, Recommendations])


def decodes_or_is_unusable(kind, value, headers=None):
    """Whether `value` gives a struct or a reason; anything but `Unusable` escapes."""
    try:
        decoded = decode(kind, value, headers)
    except Unusable as refusal:
        return bool(refusal.reason)
    return isinstance(decoded, kind)


@given(KINDS, st.binary(max_size=400), st.one_of(st.none(), st.binary(max_size=30)))
def test_no_bytes_at_all_raise_anything_but_unusable(kind, value, header):
    """Whatever arrives, and under whatever header, a lane has one exception to handle."""
    assert decodes_or_is_unusable(kind, value, None if header is None else {CONTENT_TYPE: header})


@given(st.data())
def test_mutated_events_raise_nothing_but_unusable(data):
    """Good events with bytes changed, cut out or put in decode within bounds or are unusable."""
    event = data.draw(st.sampled_from([event for event in EXAMPLES if not isinstance(event, Item)]))
    value = bytearray(encode(event, json=data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(value) - 1)))
        cut = data.draw(st.integers(0, 4))
        value[place : place + cut] = data.draw(st.binary(max_size=4))
    assert decodes_or_is_unusable(type(event), bytes(value))


words = st.text("abcé\x00\n\u4e2d\U0001f600", max_size=8)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | words | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for kind in (Click, Post, MediaUpload, Item) for name in kind.__struct_fields__} | {"type"})


@given(KINDS, st.dictionaries(st.sampled_from(FIELDS), json_like))
def test_well_formed_maps_of_any_content_raise_nothing_but_unusable(kind, fields):
    """Fields of the right names with any values whatever decode within bounds or are unusable."""
    assert decodes_or_is_unusable(kind, msgspec.msgpack.encode(fields))


# Ordinary words might be in a message by right; these cannot be.
telltales = st.text("QXZ0123456789", min_size=12, max_size=40)


@given(st.sampled_from(["event_id", "user_id", "item_id", "action", "value", "at", "type", "context"]), telltales)
def test_no_message_quotes_a_value(field, secret):
    """What a producer sent never shows in an error's text, in whichever field it stood."""
    for spoilt in (secret, [secret], {secret: secret}, secret * 30):
        try:
            decode(Click, msgspec.msgpack.encode({**CLICK, field: spoilt}))
        except Unusable as refusal:
            assert secret not in str(refusal)  # noqa: PT017  either outcome is fine, a leak is not


def test_a_time_may_be_a_number_or_rfc_3339():
    """Epoch milliseconds and RFC 3339 with any offset are the same instant."""
    moment = datetime(2025, 6, 15, 15, 6, 40, 123_000, tzinfo=UTC)
    forms = [1_750_000_000_123, "2025-06-15T15:06:40.123Z", "2025-06-15T17:06:40.123+02:00"]
    assert {
        event_time_ms(decode(Click, json.dumps({**CLICK, "at": form}).encode()).at, NOW + 1_000) for form in forms
    } == {round(moment.timestamp() * 1_000)}


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (None, NOW),
        (NOW - 86_400_000, NOW - 86_400_000),
        (EARLIEST_MS, EARLIEST_MS),
        (NOW + 300_000, NOW + 300_000),
        (NOW + 300_001, NOW),
        (NOW + LATEST_AHEAD_MS, NOW),
    ],
    ids=["absent", "yesterday", "1980", "within the skew", "beyond the skew", "a year ahead"],
)
def test_times_are_judged_against_the_record(at, expected):
    """A late event keeps its time; one ahead of its record by more than five minutes is clamped to it."""
    assert event_time_ms(at, NOW) == expected


@pytest.mark.parametrize("at", [-1, 0, NOW // 1_000, EARLIEST_MS - 1, NOW + LATEST_AHEAD_MS + 1])
def test_impossible_times_are_unusable(at):
    """Times in seconds, before 1980 or years ahead are refused, not bent."""
    with pytest.raises(Unusable) as refusal:
        event_time_ms(at, NOW)
    assert refusal.value.reason == "implausible-time"


@given(st.integers(-(2**53), 2**53) | st.datetimes(timezones=st.just(UTC)), st.integers(EARLIEST_MS, 2**42))
def test_a_time_is_within_bounds_or_unusable(at, record_ms):
    """Any instant gives a time from 1980 to five minutes after the record, or is unusable."""
    try:
        assert EARLIEST_MS <= event_time_ms(at, record_ms) <= record_ms + 300_000
    except Unusable as refusal:
        assert refusal.reason == "implausible-time"  # noqa: PT017  either outcome is fine
