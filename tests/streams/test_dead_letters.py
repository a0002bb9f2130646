"""A dead letter keeps the original whole, says where it came from and why, and can be sent back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.streams.codec import Unusable
from penchant.streams.dead_letters import DETAIL, MAX_DETAIL, PREFIX, REASON, DeadLetter, dead_letter
from penchant.streams.records import Record

NOW = 1_750_000_000_000

# Not the prefix of penchant's own headers: what carries those is a dead letter already.
header_names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: not name.startswith(PREFIX)
)
records = st.builds(
    Record,
    topic=st.text("abcdefghijklmnopqrstuvwxyz.-", min_size=1, max_size=40),
    partition=st.integers(0, 2**31 - 1),
    offset=st.integers(0, 2**63 - 1),
    timestamp=st.integers(-1, 2**60),
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=st.dictionaries(header_names, st.binary(max_size=20), max_size=4),
)


def published(letter, *, partition=0, offset=0):
    """The record that `letter` becomes once it is on its topic."""
    return Record(
        topic=letter.topic,
        partition=partition,
        offset=offset,
        timestamp=NOW,
        key=letter.key,
        value=letter.value,
        headers=letter.headers,
    )


@given(records, st.text("abcé \n", max_size=60), st.text("abc-", min_size=1, max_size=20))
def test_a_dead_letter_gives_back_what_it_took(record, detail, reason):
    """Origin, reason, detail and every byte of the original survive the way to the topic and back."""
    letter = DeadLetter.read(published(dead_letter(record, Unusable(detail, reason=reason), topic="dead-letters")))
    assert (letter.topic, letter.partition, letter.offset) == (record.topic, record.partition, record.offset)
    assert (letter.timestamp, letter.reason, letter.detail) == (record.timestamp, reason, detail)
    original = letter.original()
    assert (original.topic, original.key, original.value) == (record.topic, record.key, record.value)
    assert dict(original.headers) == dict(record.headers)


@given(records)
def test_a_replayed_letter_that_fails_again_names_its_first_origin_topic(record):
    """Sent back and refused again, an original is a dead letter of its own topic, never of `dead-letters`."""
    error = Unusable("no", reason="invalid")
    first = DeadLetter.read(published(dead_letter(record, error, topic="dead-letters"))).original()
    again = DeadLetter.read(published(dead_letter(published(first), error, topic="dead-letters")))
    assert again.topic == record.topic
    assert again.value == record.value


def test_a_letter_goes_to_the_topic_asked_for():
    """The namespace decides where dead letters lie."""
    record = Record(topic="a.clicks", partition=1, offset=2, timestamp=NOW, key=b"k", value=b"v")
    letter = dead_letter(record, Unusable("no", reason="invalid"), topic="a.dead-letters")
    assert letter.topic == "a.dead-letters"
    assert letter.key == b"k"
    assert letter.headers[REASON] == b"invalid"


def test_a_long_detail_is_cut():
    """A header never outgrows what a broker takes, whatever an error says."""
    record = Record(topic="clicks", partition=0, offset=0, timestamp=NOW, key=None, value=None)
    letter = dead_letter(record, Unusable("é" * 10 * MAX_DETAIL, reason="invalid"), topic="dead-letters")
    assert len(letter.headers[DETAIL].decode()) == MAX_DETAIL


@pytest.mark.parametrize("name", ["topic", "partition", "offset", "timestamp", "reason", "detail"])
@pytest.mark.parametrize("spoilt", [None, b"\xff\xfe"], ids=["absent", "not text"])
def test_a_record_without_the_headers_of_a_dead_letter_is_unusable(name, spoilt):
    """Somebody else's record on the topic is refused with a reason, not guessed at."""
    record = Record(topic="clicks", partition=0, offset=0, timestamp=NOW, key=None, value=b"v")
    letter = published(dead_letter(record, Unusable("no", reason="invalid"), topic="dead-letters"))
    headers = {header: value for header, value in letter.headers.items() if header != PREFIX + name}
    if spoilt is not None:
        headers[PREFIX + name] = spoilt
    with pytest.raises(Unusable) as refusal:
        DeadLetter.read(
            Record(topic="dead-letters", partition=0, offset=0, timestamp=NOW, key=None, value=b"v", headers=headers)
        )
    assert refusal.value.reason == "no-dead-letter"
