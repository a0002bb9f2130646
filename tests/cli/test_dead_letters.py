"""`penchant dead-letters`: found, shown whatever they hold, and sent back as they were."""

import json

from penchant.streams.codec import Unusable, encode
from penchant.streams.dead_letters import dead_letter
from penchant.streams.events import Click
from penchant.streams.onlooker import TopicReader
from penchant.streams.records import Output, Record
from penchant.streams.topics import Topic
from tests.cli.rig import ok, produce, values


def bury(settings, letters):
    """Puts dead letters on their topic; gives what they were made of."""
    outputs = [
        dead_letter(
            Record(
                topic=settings.prefixed(topic),
                partition=0,
                offset=offset,
                timestamp=1_700_000_000_000 + offset,
                key=b"ada",
                value=value,
                headers={"trace": b"\xff1"},
            ),
            Unusable("it is spoilt", reason=reason),
            topic=settings.prefixed(Topic.DEAD_LETTERS),
        )
        for offset, (topic, value, reason) in enumerate(letters)
    ]
    produce(settings, outputs)


def test_dead_letters_are_listed_shown_and_sent_back(here, settings):
    """List filters, show reads any bytes, replay sends the originals back as they were, and no others."""
    good = encode(Click(event_id="e", user_id="ada", item_id="i"))
    bury(
        settings,
        [
            ("clicks", good, "invalid"),
            ("clicks", b"\xc1\x1b[31m\x00", "malformed"),
            ("posts", b"", "empty"),
            ("not-ours", b"x", "invalid"),
        ],
    )
    listed = [json.loads(line) for line in ok(here("dead-letters", "list", "--json")).splitlines()]
    assert sorted(one["reason"] for one in listed) == ["empty", "invalid", "invalid", "malformed"]
    assert "it is spoilt" in ok(here("dead-letters", "list", "--topic", "clicks"))
    (malformed,) = (one for one in listed if one["reason"] == "malformed")
    shown = ok(here("dead-letters", "show", malformed["letter"]))
    assert "c1 1b 5b 33 31 6d 00" in shown
    assert "\x1b" not in shown
    (first,) = (one for one in listed if one["topic"].endswith("clicks") and one["reason"] == "invalid")
    assert '"user_id": "ada"' in ok(here("dead-letters", "show", first["letter"]))
    assert json.loads(ok(here("dead-letters", "show", first["letter"], "--json")))["value_hex"] == good.hex()
    assert here("dead-letters", "show", "0:999").exit_code == 1

    assert "2 would be sent back" in ok(here("dead-letters", "replay", "--topic", "clicks", "--dry-run"))
    assert values(settings, Topic.CLICKS, Click) == []
    result = here("dead-letters", "replay", "--reason", "invalid")
    assert "1 sent back" in ok(result)
    assert "1 left alone" in result.stderr
    with TopicReader(settings, Topic.CLICKS, from_beginning=True) as reader:
        (record,) = reader.to_end()
    assert (record.key, record.value, record.timestamp) == (b"ada", good, 1_700_000_000_000)
    assert dict(record.headers) == {"trace": b"\xff1"}


def test_a_stranger_among_the_dead_letters_is_passed_over(here, settings):
    """A record without the headers of a dead letter ends no command."""
    bury(settings, [("clicks", b"x", "malformed")])
    produce(settings, [Output(topic=settings.prefixed(Topic.DEAD_LETTERS), key=b"?", value=b"?")])
    result = here("dead-letters", "list", "--json")
    assert len(ok(result).splitlines()) == 1
    assert "passed over" in result.stderr
