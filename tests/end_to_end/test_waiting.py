"""Signals and items find each other whichever comes first, and what becomes of an item reaches whom it concerns."""

import time
from typing import Any, NamedTuple

import numpy as np
import pytest

from penchant.profile.identity import Identity
from penchant.streams.codec import encode
from penchant.streams.events import Click, Item, MediaKind, MediaUpload, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

HOUR_MS = 3_600_000
HALF_LIFE_MS = 50 * 24 * HOUR_MS
CACHE_S = 0.2
# Short rests, so that the tests need no long ones.
SECTIONS = {
    "worker": {"http_port": 0, "sweep_interval_s": 0.5},
    "profile": {"item_cache_s": CACHE_S},
    "recommend": {"interval_s": 0.1},
}
NOW = int(time.time() * 1_000)
SUBJECTS = "trains", "tea", "volcanoes", "chess", "whales", "jazz", "bread", "glaciers", "bees", "castles", "satellites"
CATALOGUE = {f"on-{subject}": f"An introduction to {subject}, past and present" for subject in SUBJECTS}
LATE = {f"late-{subject}": f"A guide to {subject} for travellers" for subject in ("caves", "rivers", "markets")}
EDITED, AS_BEFORE = "on-tea", "on-tea-as-before"
NEW_TEXT = "How rockets are steered"


class Sender:
    """Makes records for a stage, an hour apart: what is made later happened later."""

    def __init__(self, stage) -> None:
        self.stage = stage
        self.identity = Identity(stage.settings.id_key.get_secret_value())
        self.clicks: dict[str, list[tuple[int, str]]] = {}  # time and item, by user
        self.moment = NOW - 1_000 * HOUR_MS

    def later(self) -> int:
        """The next moment."""
        self.moment += HOUR_MS
        return self.moment

    def click(self, user: str, item: str) -> Output:
        """A click, which weighs one."""
        moment = self.later()
        self.clicks.setdefault(user, []).append((moment, item))
        event = Click(event_id=f"{user}-{moment}", user_id=user, item_id=item, at=moment)
        return self.output(Topic.CLICKS, user, event)

    def item(self, item: str, text: str) -> Output:
        """An item's version of now."""
        return self.output(Topic.ITEMS, item, Item(item_id=item, text=text, at=self.later()))

    def output(self, topic: Topic, key: str, event: Any) -> Output:
        """A record; without an event one that withdraws."""
        value = None if event is None else encode(event)
        return Output(topic=self.stage.topic(topic), key=key.encode(), value=value)

    def long_view(self, user: str, vectors: dict[str, np.ndarray | None]) -> np.ndarray:
        """What the clicks of a user come to, with the items' vectors as they are; shape (d,)."""
        clicks = self.clicks[user]
        weights = np.array([0.5 ** ((max(clicks)[0] - moment) / HALF_LIFE_MS) for moment, _ in clicks])
        return weights @ np.array([vectors[item] for _, item in clicks], np.float64) / weights.sum()


class Story(NamedTuple):
    """What one worker was seen doing, and what it left behind."""

    sender: Sender
    snapshot: Any
    waiting: dict[str, list[str]]  # before their items came, by user
    withdrawn: str
    listed_before: list[str]
    listed_after: list[str]
    published_after: list[str]


@pytest.fixture(scope="module")
def story(kafka, make_stage):
    """One worker, to whom everything happens in an inconvenient order."""
    stage = make_stage(kafka, **SECTIONS)
    sender = Sender(stage)
    garbage = sender.identity.own_item("artist", "garbage")
    with stage.worker() as worker:
        worker.await_ready()

        def listed(user):
            return [one["item_id"] for one in worker.get(f"/recommendations/{user}").json()["items"]]

        def settle(*records):
            places = stage.send(records)
            stage.await_settled(worker)
            return places

        first = {item: sender.item(item, text) for item, text in CATALOGUE.items()}
        settle(*first.values(), sender.item(AS_BEFORE, CATALOGUE[EDITED]))
        settle(
            *(sender.click("early", item) for item in [*LATE, "on-chess"]),
            sender.click("fan", garbage),
            sender.click("fan", "on-jazz"),
            sender.click("editor", EDITED),
            sender.click("editor", "on-bees"),
            sender.click("reader", "on-whales"),
        )
        waiting = {user: worker.profile(user)["waiting_for"] for user in ("early", "fan", "editor")}

        # What was waited for comes: three items, and an upload that is no picture.
        upload = MediaUpload(event_id="garbage", user_id="artist", kind=MediaKind.IMAGE, data=b"no picture", at=NOW)
        settle(
            *(sender.item(item, text) for item, text in LATE.items()),
            sender.output(Topic.MEDIA_UPLOADS, "artist", upload),
        )
        for user in ("early", "fan", "artist"):
            worker.await_that(lambda user=user: worker.profile(user)["waiting_for"] == [], f"{user} waits no longer")

        # An item is edited, and its user does something else, when it is no longer remembered as it was.
        settle(sender.item(EDITED, NEW_TEXT))
        time.sleep(2 * CACHE_S)
        settle(sender.click("editor", "on-glaciers"))

        # The item that the reader would be shown first is withdrawn, and its older record is sent again.
        listed_before = listed("reader")
        withdrawn = next(item for item in listed_before if item in first)
        settle(sender.output(Topic.ITEMS, withdrawn, None))
        settle(first[withdrawn])
        settle(sender.click("reader", "on-castles" if withdrawn != "on-castles" else "on-trains"))
        listed_after = listed("reader")
        stage.await_settled(worker)
        assert worker.stop() == 0
    published = stage.lists()["reader"]
    snapshot = stage.snapshot([*CATALOGUE, *LATE, AS_BEFORE, garbage])
    return Story(
        sender=sender,
        snapshot=snapshot,
        waiting=waiting,
        withdrawn=withdrawn,
        listed_before=listed_before,
        listed_after=listed_after,
        published_after=[one.item_id for one in published.items],
    )


def test_clicks_on_items_still_to_come_count_when_they_have(story):
    """A profile waits for the items that are not there, and for no others; then it is as if they had been."""
    assert story.waiting["early"] == sorted(LATE)
    assert story.waiting["editor"] == []
    profile = story.snapshot.profiles["early"]
    assert not profile.awaits
    np.testing.assert_allclose(profile.long, story.sender.long_view("early", story.snapshot.vectors), atol=1e-6)


def test_an_edited_item_reaches_its_users_when_they_are_next_touched(story):
    """The views speak of the item as it is now, not as it was when it was clicked."""
    vectors = story.snapshot.vectors
    assert np.dot(vectors[EDITED], vectors[AS_BEFORE]) < 0.9
    profile = story.snapshot.profiles["editor"]
    np.testing.assert_allclose(profile.long, story.sender.long_view("editor", vectors), atol=1e-6)


def test_a_withdrawn_item_is_not_recommended_and_does_not_come_back(story):
    """It leaves the lists, also when an older record of it is sent again; what it says of its users stays."""
    assert story.withdrawn in story.listed_before
    assert story.withdrawn not in story.listed_after
    assert story.withdrawn not in story.published_after
    assert story.listed_after
    assert story.published_after
    item = story.snapshot.items[story.withdrawn]
    assert (item.withdrawn, item.listed) == (True, False)
    assert story.snapshot.vectors[story.withdrawn] is not None


def test_nobody_waits_for_a_void_item(story):
    """An upload of which nothing can be used is there without content: neither its author nor its fans wait for it."""
    garbage = story.sender.identity.own_item("artist", "garbage")
    assert story.waiting["fan"] == [garbage]
    item = story.snapshot.items[garbage]
    assert (item.modalities, item.listed, story.snapshot.vectors[garbage]) == ((), False, None)
    fan, artist = (story.snapshot.profiles[user] for user in ("fan", "artist"))
    assert not fan.awaits
    assert not artist.awaits
    assert [signal.item_id for signal in artist.state.strong] == [garbage]
    assert {signal.item_id for signal in fan.state.weak} == {garbage, "on-jazz"}
    np.testing.assert_allclose(fan.long, story.snapshot.vectors["on-jazz"], atol=1e-6)


def test_a_profile_that_is_ahead_of_the_content_lane_gets_its_vectors(kafka, make_stage):
    """Posts that the interest lane has long read count as soon as a content lane runs at all."""
    stage = make_stage(kafka, **SECTIONS)
    sender = Sender(stage)
    posts = {
        "author": Post(event_id="p", user_id="author", text="Sailing round the cape in winter", at=NOW),
        "seeker": Post(event_id="q", user_id="seeker", text="used violins", at=NOW, recommendable=False),
    }
    own = {user: sender.identity.own_item(user, post.event_id) for user, post in posts.items()}
    stage.send(sender.output(Topic.POSTS, user, post) for user, post in posts.items())
    with stage.worker("interest") as worker:
        stage.await_settled(worker.await_ready(), "interest")
        for user in posts:
            shown = worker.profile(user)
            assert (shown["waiting_for"], shown["modalities"]) == ([own[user]], {})
        assert worker.stop() == 0
    with stage.worker() as worker:
        for user in posts:
            worker.await_that(
                lambda user=user: worker.ready() and worker.profile(user)["waiting_for"] == [], f"{user} has vectors"
            )
        stage.await_settled(worker)
        assert worker.stop() == 0
    snapshot = stage.snapshot(own.values())
    for user, item in own.items():
        profile = snapshot.profiles[user]
        assert not profile.awaits
        for view in (profile.short, profile.long, profile.interest):
            np.testing.assert_allclose(view, snapshot.vectors[item], atol=1e-6)
