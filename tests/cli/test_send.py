"""`penchant send`: an event as it was typed is on its topic, or is refused with the reason."""

import json

from penchant.streams.events import Click, Item, MediaUpload, Post
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic
from tests.cli.rig import ok, values


def test_send_reaches_the_topics(here, settings, tmp_path):
    """Each kind of event arrives as it was typed, and its id is printed."""
    (tmp_path / "cat.png").write_bytes(b"\x89PNG")
    rating = ("send", "click", "ada", "film-1", "--action", "rate", "--value", 4.5, "--at", "2026-01-31T12:00:00Z")
    event_id = json.loads(ok(here(*rating, "--json")))["event_id"]
    (click,) = values(settings, Topic.CLICKS, Click)
    assert (click.event_id, click.action, click.value) == (event_id, "rate", 4.5)
    assert click.at.isoformat() == "2026-01-31T12:00:00+00:00"
    ok(here("send", "post", "ada", "old maps", "--private", "--tag", "map", "--image", "cat.png"))
    (post,) = values(settings, Topic.POSTS, Post)
    assert (post.text, post.recommendable, post.tags, post.media[0].data) == ("old maps", False, ("map",), b"\x89PNG")
    ok(here("send", "upload", "ada", "image", "https://example.org/cat.png", "--caption", "a cat"))
    (upload,) = values(settings, Topic.MEDIA_UPLOADS, MediaUpload)
    assert (upload.uri, upload.data, upload.caption) == ("https://example.org/cat.png", None, "a cat")
    assert ok(here("send", "item", "film-1", "--title", "One", "--attribute", "year=1927")).strip() == "film-1"
    (item,) = values(settings, Topic.ITEMS, Item)
    assert item == Item(item_id="film-1", title="One", attributes={"year": "1927"})
    ok(here("send", "item", "film-1", "--withdraw"))
    with TopicReader(settings, Topic.ITEMS, from_beginning=True) as reader:
        assert [record.value for record in reader.to_end()][-1] is None


def test_an_event_out_of_bounds_is_not_sent(here, settings):
    """What no worker would take ends the command, and nothing is on the topic."""
    result = here("send", "click", "ada", "film-1", "--at", 1_700_000_000)
    assert result.exit_code == 1
    assert "seconds" in result.stderr
    assert values(settings, Topic.CLICKS, Click) == []
