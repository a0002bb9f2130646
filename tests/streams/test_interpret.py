"""What records mean: weights, names that cannot collide, and what is refused with which reason."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.errors import ConfigurationError
from penchant.profile.identity import Identity
from penchant.profile.items import Reference
from penchant.profile.signals import Action, Signal
from penchant.settings import ProfileSettings
from penchant.streams.codec import Unusable, decode
from penchant.streams.events import Click, Item, ItemReady, Media, MediaUpload, Post
from penchant.streams.interpret import Reader, click_of
from penchant.streams.records import Record

NOW = 1_750_000_000_000
PNG = Media(kind="image", data=b"png")
SAME_AS_USER = object()


@pytest.fixture
def reader():
    """A reader with the usual weights."""
    return Reader(Identity("key"), ProfileSettings())


def record(event, *, key=SAME_AS_USER, timestamp=NOW, offset=0):
    """A record with an event, or raw bytes, as its value."""
    value = event if event is None or isinstance(event, bytes) else msgspec.msgpack.encode(event)
    if key is SAME_AS_USER:
        key = getattr(event, "user_id", None) or getattr(event, "item_id", None)
    return Record(
        topic="topic",
        partition=0,
        offset=offset,
        timestamp=timestamp,
        key=key.encode() if isinstance(key, str) else key,
        value=value,
    )


def refused(read, *arguments, **options):
    """The reason for which a record is refused."""
    with pytest.raises(Unusable) as refusal:
        read(record(*arguments, **options))
    return refusal.value.reason


def outcome(read):
    """The fields of what is read, or the words and the reason of its refusal."""
    try:
        return msgspec.structs.asdict(read())
    except Unusable as error:
        return str(error), error.reason


def click(**changes):
    """A click by ada."""
    return Click(**{"event_id": "e1", "user_id": "ada", "item_id": "film", **changes})


@pytest.mark.parametrize(
    ("event", "action", "weight"),
    [
        (click(), Action.CLICK, 1.0),
        (click(action="view"), Action.VIEW, 0.5),
        (click(action="view", dwell_ms=30_000), Action.VIEW, 1.5),
        (click(action="purchase", value=99.0), Action.PURCHASE, 4.0),
        (click(action="rate", value=5.0), Action.RATE, 2.0),
        (click(action="rate", value=0.5), Action.RATE, -2.0),
        (click(action="hide"), Action.HIDE, -3.0),
    ],
)
def test_a_click_becomes_a_signal(reader, event, action, weight):
    """Event, item, action, time and weight are those of the event."""
    assert reader.click(record(event)) == ("ada", Signal(NOW, "e1", "film", action, weight))


ids = st.one_of(
    st.text(max_size=4),
    st.text("a\n\r\x00\x1f\x7f\x85\xad\u2028é\u200b ", max_size=3),
    st.sampled_from(["~anyone", "~anyone\n", "~anyones", "é" * 256, "é" * 257]),
)


@given(event_id=ids, user_id=ids, item_id=ids, action=st.sampled_from(["view", "like", "none"]), json=st.booleans())
def test_clicks_are_what_the_contract_says(event_id, user_id, item_id, action, json):
    """A click is read as its struct says, or refused in the same words, however its ids are looked at."""
    fields = {"event_id": event_id, "user_id": user_id, "item_id": item_id, "action": action, "dwell_ms": 5}
    sent = record((msgspec.json if json else msgspec.msgpack).encode(fields))
    assert outcome(lambda: click_of(sent)) == outcome(lambda: decode(Click, sent.value))


def test_weights_and_scales_are_settings():
    """An operator's weights and rating scale are those that count."""
    own = Reader(Identity(""), ProfileSettings(weights={"click": 7.0}, rating_low=0, rating_high=10))
    assert own.click(record(click()))[1].weight == 7
    assert own.click(record(click(action="rate", value=5.0)))[1].weight == 0


@pytest.mark.parametrize("changed", [{"weights": {"lick": 1.0}}, {"rating_low": 5.0, "rating_high": 5.0}])
def test_weights_that_mean_nothing_are_refused_at_once(changed):
    """A wrong action or an empty scale is an error at the start, not a wrong profile later."""
    with pytest.raises(ConfigurationError, match=r"profile\."):
        Reader(Identity(""), ProfileSettings(**changed))


def test_a_rating_without_a_value_says_nothing(reader):
    """It is refused rather than guessed."""
    assert refused(reader.click, click(action="rate")) == "invalid"


def test_an_event_is_under_its_users_key_or_none(reader):
    """A wrong key is refused for every kind of event; a missing one is taken as it is."""
    post = Post(event_id="p", user_id="ada", text="words")
    upload = MediaUpload(event_id="u", user_id="ada", kind="image", data=b"png")
    ready = ItemReady(user_id="ada", item_id="film")
    item = Item(item_id="film", title="A film")
    for read, event in (
        (reader.click, click()),
        (reader.post, post),
        (reader.upload, upload),
        (reader.item_ready, ready),
        (reader.item, item),
    ):
        assert refused(read, event, key="bob") == "key-mismatch"
        assert refused(read, event, key=b"") == "key-mismatch"
        assert refused(read, event, key=b"\xff\xfe") == "key-mismatch"
        read(record(event, key=None))


def test_an_event_ahead_of_its_record_counts_from_the_record(reader):
    """A clock that runs ahead moves no signal into the future; one behind leaves the time as it was."""
    assert reader.click(record(click(at=NOW + 3_600_000)))[1].time == NOW
    assert reader.click(record(click(at=NOW - 3_600_000)))[1].time == NOW - 3_600_000
    assert refused(reader.click, click(at=1_750_000_000)) == "implausible-time"
    assert refused(reader.click, click(), timestamp=-1) == "implausible-time"


def test_a_post_is_a_signal_on_an_item_of_its_authors_own(reader):
    """Signal, item and embedded text agree on the name, and the author is no raw user id."""
    post = Post(event_id="p1", user_id="ada", text="a poem", tags=("verse",), media=(PNG,))
    user, signal, draft = reader.post(record(post, offset=9))
    identity = Identity("key")
    assert (user, signal) == ("ada", Signal(NOW, "p1", identity.own_item("ada", "p1"), Action.POST, 2.0))
    assert draft.item.item_id == signal.item_id
    assert draft.item.author == identity.author("ada")
    assert "ada" not in draft.item.item_id + draft.item.author
    assert (draft.text, draft.media, draft.author, draft.item.private) == (
        "a poem. verse",
        (PNG,),
        "ada",
        False,
    )
    assert draft.item.version == (NOW, NOW, 9)
    assert not draft.item.listed


def test_a_search_is_private(reader):
    """It is a weaker signal, and its item is for nobody's list."""
    _, signal, draft = reader.post(record(Post(event_id="s", user_id="ada", text="maps", recommendable=False)))
    assert (signal.action, signal.weight, draft.item.private) == (Action.SEARCH, 1.0, True)


def test_an_upload_is_a_signal_on_an_item_of_its_authors_own(reader):
    """A reference is kept, so that it can be fetched again; inline data is not."""
    by_reference = MediaUpload(event_id="u", user_id="ada", kind="audio", uri="file:///a.wav", caption="rain")
    user, signal, draft = reader.upload(record(by_reference))
    assert (user, signal.action, draft.text) == ("ada", Action.UPLOAD, "rain")
    assert draft.item.media == (Reference("audio", "file:///a.wav"),)
    inline = MediaUpload(event_id="u", user_id="ada", kind="audio", data=b"RIFF", item_id="own")
    assert reader.upload(record(inline))[2].item.media == (Reference("audio", ""),)
    assert reader.upload(record(inline))[1].item_id == Identity("key").own_item("ada", "own")


@pytest.mark.parametrize("media", [{}, {"uri": "file:///a", "data": b"x"}])
def test_media_are_inline_or_by_reference(reader, media):
    """Neither, or both, is refused."""
    assert refused(reader.upload, MediaUpload(event_id="u", user_id="ada", kind="image", **media)) == "invalid"
    post = Post(event_id="p", user_id="ada", text="x", media=(Media(kind="image", **media),))
    assert refused(reader.post, post) == "invalid"
    assert refused(reader.item, Item(item_id="i", media=post.media)) == "invalid"


def test_an_empty_post_is_refused(reader):
    """Spaces are no text."""
    assert refused(reader.post, Post(event_id="p", user_id="ada", text=" \n ")) == "invalid"


@given(st.text(min_size=1, max_size=6), st.text(min_size=1, max_size=6), st.text("a/~", min_size=1, max_size=6))
def test_own_items_of_different_users_never_overlap(one, other, name):
    """Two users who call their posts the same make two items."""
    reader = Reader(Identity("key"), ProfileSettings())

    def item_of(user):
        try:
            return reader.post(record(Post(event_id=name, user_id=user, text="x")))[2].item.item_id
        except Unusable:  # a control character in the id
            return None

    assert (item_of(one) == item_of(other)) == (one == other or item_of(one) is None is item_of(other))


def test_the_catalogue_cannot_take_users_names(reader):
    """Ids of posts and uploads are reserved, for items and for withdrawals."""
    own = Identity("key").own_item("ada", "p1")
    assert refused(reader.item, Item(item_id=own, title="mine now")) == "reserved-id"
    assert refused(reader.item, None, key=own) == "key-mismatch"


def test_a_null_value_withdraws_the_item_that_its_key_names(reader):
    """It is a version like any other, newer than what came before it in the log, in the same millisecond too."""
    edited = reader.item(record(Item(item_id="film", title="A film"), offset=3)).item
    ahead = reader.item(record(Item(item_id="film", title="A film", at=NOW + 10_000), offset=4)).item
    withdrawn = reader.item(record(None, key="film", offset=5)).item
    again = reader.item(record(Item(item_id="film", title="A film"), offset=6)).item
    assert (withdrawn.item_id, withdrawn.withdrawn, withdrawn.listed) == ("film", True, False)
    assert edited.version < withdrawn.version < again.version
    assert ahead.version < withdrawn.version


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\nb", b"x" * 257])
def test_a_withdrawal_needs_an_id_that_an_item_could_have(reader, key):
    """What can name no item is refused, and never stored."""
    assert refused(reader.item, None, key=key) == "key-mismatch"


def test_everything_said_of_an_item_is_kept(reader):
    """Title, text and tags are embedded together; the rest is kept beside them."""
    draft = reader.item(
        record(
            Item(item_id="f", title="Up", text="A house flies.", tags=("air",), attributes={"y": "09"}, entity="m.1")
        )
    )
    assert draft.text == "Up. A house flies.. air"
    assert (draft.item.title, draft.item.attributes, draft.item.entity) == ("Up", {"y": "09"}, "m.1")
    assert draft.author is None
