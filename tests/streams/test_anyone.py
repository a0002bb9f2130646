"""The list for whoever is not known yet: one worker's, of what trends and is new, published when it changes."""

import asyncio
import contextlib

import msgspec
import numpy as np
import pytest

from penchant.parts import build_parts
from penchant.profile.affinity import Transition
from penchant.profile.items import Item
from penchant.profile.store.base import StoreUnavailable
from penchant.settings import load_settings
from penchant.streams.anyone import Anyone, list_for_anyone
from penchant.streams.client import InvalidEvent, Publisher
from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.events import ANYONE, Click, ItemReady, MediaUpload, Post, Recommendations
from penchant.streams.events import Item as ItemEvent
from penchant.streams.records import Output
from penchant.streams.topics import Topic

NOW = 1_750_000_000_000
HOUR_MS = 3_600_000
WAIT_S = 10


@pytest.fixture
async def parts(tmp_path):
    """A worker's parts, with twelve items of which two were liked."""
    made = build_parts(load_settings(data_dir=tmp_path))
    await made.open()
    await put(made, *(f"i{number}" for number in range(12)))
    await like(made, "i3", times=40)
    await like(made, "i4", times=20)
    yield made
    await made.store.close()


async def put(parts, *item_ids):
    """Listed items."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(len(item_ids), parts.space.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    await parts.items.put(
        [
            (Item(item_id=item_id, version=(1, 1, 0), listed=True), row)
            for item_id, row in zip(item_ids, vectors, strict=True)
        ]
    )


async def like(parts, item_id, *, times):
    """Likes of an item."""
    await parts.rows.apply(
        {
            item_id: [
                Transition(item_id=item_id, at=NOW, previous=(), origin=("clicks", 0), offset=number)
                for number in range(times)
            ]
        }
    )


async def test_it_is_what_trends_and_what_is_new(parts):
    """The most liked items first, then others, some of them to be tried; no part of any score is a user's."""
    made = await list_for_anyone(parts.profiles, parts.ranker, NOW)
    assert (made.user_id, made.profile_version, made.as_of) == (ANYONE, 0, 0)
    assert [item.item_id for item in made.items[:2]] == ["i3", "i4"]
    assert len(made.items) == 10
    assert [item.explored for item in made.items] == [False] * 9 + [True]
    for item in made.items:
        assert item.score == sum(item.parts.values())
        assert not item.because
        assert item.parts.keys() <= {"popularity", "popularity_30d", "popularity_365d", "age"}


async def test_time_alone_changes_it_once_an_hour(parts):
    """Within an hour the same list, its trials included."""
    begin = NOW - NOW % HOUR_MS
    first, same = [await list_for_anyone(parts.profiles, parts.ranker, begin + passed) for passed in (0, HOUR_MS - 1)]
    assert same.items == first.items


class Playing:
    """The publisher of the list, at work."""

    def __init__(self, parts):
        self.sent = []
        self.mine = True
        self.failing = False
        self.looked = asyncio.Event()
        self.anyone = Anyone(
            parts.profiles, parts.ranker, self.send, self.my_turn, topic="recommendations", interval_s=0.001
        )

    def my_turn(self):
        """Whether it is this worker's turn; asked at each look."""
        self.looked.set()
        return self.mine

    async def send(self, outputs):
        """Takes records, or fails."""
        if self.failing:
            raise StoreUnavailable("the broker is away")
        self.sent += outputs

    @contextlib.asynccontextmanager
    async def working(self):
        """At work within the block."""
        task = asyncio.create_task(self.anyone.run())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def look(self, times=3):
        """Waits until it has looked again."""
        for _ in range(times):
            self.looked.clear()
            await asyncio.wait_for(self.looked.wait(), WAIT_S)


async def test_it_is_published_when_its_items_change(parts):
    """Under its own key, decoded like any list; once while nothing changes."""
    playing = Playing(parts)
    async with playing.working():
        await playing.look()
        [output] = playing.sent
        assert (output.topic, output.key) == ("recommendations", b"~anyone")
        made = decode(Recommendations, output.value, output.headers)
        assert made.user_id == ANYONE
        assert [item.item_id for item in made.items[:2]] == ["i3", "i4"]
        await like(parts, "i9", times=200)
        parts.ranker._finder._until = 0  # what trends is remembered for some seconds
        await playing.look()
    assert len(playing.sent) == 2
    assert decode(Recommendations, playing.sent[1].value).items[0].item_id == "i9"


async def test_only_whose_turn_it_is_publishes(parts):
    """And whoever's turn comes again publishes anew, for another's list may have come in between."""
    playing = Playing(parts)
    playing.mine = False
    async with playing.working():
        await playing.look()
        assert not playing.sent
        for turns in (1, 2):
            playing.mine = True
            await playing.look()
            assert len(playing.sent) == turns
            playing.mine = False
            await playing.look()


async def test_what_could_not_be_sent_is_sent_later(parts):
    """A broker that is away stops nobody."""
    playing = Playing(parts)
    playing.failing = True
    async with playing.working():
        await playing.look()
        playing.failing = False
        await playing.look()
    assert len(playing.sent) == 1


async def test_where_there_is_nothing_nothing_is_said(tmp_path):
    """No list before there are items."""
    parts = build_parts(load_settings(data_dir=tmp_path))
    await parts.open()
    playing = Playing(parts)
    async with playing.working():
        await playing.look()
        assert not playing.sent
        await put(parts, "i0")
        parts.ranker._finder._until = 0
        await playing.look()
    assert len(playing.sent) == 1
    await parts.store.close()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Click, {"event_id": "e", "item_id": "i"}),
        (Post, {"event_id": "e", "text": "t"}),
        (MediaUpload, {"event_id": "e", "kind": "image", "uri": "file:///x"}),
        (ItemReady, {"item_id": "i"}),
    ],
)
def test_no_user_has_its_name(kind, fields):
    """A record under it cannot be used; names that only begin or end like it are like any other."""
    with pytest.raises(Unusable):
        decode(kind, msgspec.json.encode({**fields, "user_id": ANYONE}), {})
    for name in ("~anyone2", "~anyon", "x~anyone", "~", "~Anyone", "~anyone/a"):
        assert decode(kind, msgspec.json.encode({**fields, "user_id": name}), {}).user_id == name


def test_a_client_does_not_send_in_its_name():
    """The contract is checked before anything is sent."""
    with pytest.raises(InvalidEvent):
        Publisher(load_settings()).click(ANYONE, "i1")


@pytest.mark.kafka
def test_a_worker_publishes_it_beside_the_lists_of_users(kafka, make_stage):
    """It is there before anybody has done anything, follows what is new, and is nobody's profile."""
    with make_stage(kafka, worker={"sweep_interval_s": 0.2}) as stage:

        def listed():
            found = [
                decode(Recommendations, record.value, record.headers)
                for record in stage.read(Topic.RECOMMENDATIONS)
                if record.key == ANYONE.encode()
            ]
            return {item.item_id for item in found[-1].items} if found else set()

        def send(*names):
            items = {name: encode(ItemEvent(item_id=name, text=f"{name} in spring")) for name in names}
            stage.send(
                Output(topic=stage.topic(Topic.ITEMS), key=name.encode(), value=item) for name, item in items.items()
            )

        with stage.worker() as worker:
            send("tea", "trains")
            worker.await_that(lambda: listed() == {"tea", "trains"}, "the list for anyone")
            send("bees")
            worker.await_that(lambda: listed() == {"tea", "trains", "bees"}, "the new item on it")
            shown = worker.get("/recommendations/nobody-yet").json()
            assert shown["user_id"] == ANYONE
            assert {item["item_id"] for item in shown["items"]} == {"tea", "trains", "bees"}
        assert stage.lists() == {}
        assert not stage.snapshot().profiles
