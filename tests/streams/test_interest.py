"""The interest lane's handler: signals into profiles, lists out of them, and bad records out of the way."""

import msgspec
import numpy as np
import pytest
from prometheus_client import REGISTRY

from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Slice, Space
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Item, Items
from penchant.profile.profiles import Profiles
from penchant.profile.ranking import recommend
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.weights import Weights
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.rows import Rows
from penchant.profile.state import Limits
from penchant.profile.store.base import StoreUnavailable
from penchant.profile.store.edge import EdgeStore
from penchant.profile.updater import ProfileUpdater
from penchant.settings import load_settings
from penchant.streams import interest
from penchant.streams.codec import decode
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.events import Click, ItemReady, Post, Recommendations, Transition
from penchant.streams.examples import lesson_in
from penchant.streams.interest import InterestHandler
from penchant.streams.interpret import Reader
from penchant.streams.lane import Batch
from penchant.streams.ledger import Due, Touch
from penchant.streams.records import Record

NOW = 1_750_000_000_000
SPACE = Space((Slice("text", 3, 0.5, "t"), Slice("image", 2, 0.5, "i")))
IDENTITY = Identity("key")
FEATURES = (*content_names(["text", "image"]), *BEHAVIOUR)
WEIGHTS = Weights.of({"text_long": 0.3, "image_long": 0.2, "image_short": 0.1}, {}, content_names(["text", "image"]))


@pytest.fixture
async def lane(tmp_path):
    """Handler, items and profiles on an embedded store with six items."""
    settings = load_settings()
    store = EdgeStore(tmp_path / "store")
    limits = Limits(strong=20, weak=20, seen_bits=1_024)
    horizons = Horizons(short_ms=1e7, long_ms=1e9, short_share_at=3.0)
    items = Items(store, "items", SPACE)
    profiles = Profiles(store, "profiles", SPACE, IDENTITY, limits)
    rows = Rows(store, "affinity")
    await store.open([items.layout, profiles.layout, rows.layout])
    vectors = ItemVectors(items, capacity=100, ttl_s=1_000)
    ranker = Ranker(
        items,
        rows,
        vectors,
        IDENTITY,
        horizons=horizons,
        weights=WEIGHTS,
        calibration=Calibration(),
        count=3,
        candidates=10,
        relevance_share=0.8,
        reasons=2,
    )
    updater = ProfileUpdater(profiles, vectors, horizons, limits, capacity=100)
    await put(items, *(f"i{number}" for number in range(6)))
    yield InterestHandler(settings, Reader(IDENTITY, settings.profile), updater, vectors, ranker), items, profiles
    await store.close()


async def put(items, *item_ids):
    """Listed items with content of their own."""
    made = []
    for number, item_id in enumerate(item_ids):
        vector = np.random.default_rng(number).normal(size=SPACE.dimension).astype(np.float32)
        made.append((Item(item_id=item_id, version=(1, 1, 0), listed=True), vector / np.linalg.norm(vector)))
    await items.put(made)


def batch(topic, *events, first=0):
    """A batch of one topic, under the users' keys."""
    records = [
        Record(
            topic=topic,
            partition=1,
            offset=first + number,
            timestamp=NOW + first + number,
            key=None if isinstance(event, bytes) else event.user_id.encode(),
            value=event if isinstance(event, bytes) else msgspec.msgpack.encode(event),
        )
        for number, event in enumerate(events)
    ]
    return Batch(topic=topic, records=records, assignments={1: 1})


def click(event_id, user, item):
    """A click."""
    return Click(event_id=event_id, user_id=user, item_id=item)


async def lists(handler, handled):
    """The lists of everybody that a batch has touched."""
    outputs = await handler.refresh([Due(user=user, touch=touch) for user, touch in handled.touched.items()])
    return {output.key.decode(): decode(Recommendations, output.value) for output in outputs}


def transitions(handled):
    """The transitions that a batch makes."""
    return [decode(Transition, output.value) for _, output in handled.outputs if output.topic == "transitions"]


async def test_each_positive_event_makes_one_transition(lane):
    """With the items before it, keyed by its own, and the place of the record that was first to tell of it."""
    handler, _, _ = lane
    handled = await handler.handle(
        batch(
            "clicks",
            click("e1", "ada", "i1"),
            click("e2", "ada", "i2"),
            Click(event_id="e1", user_id="ada", item_id="i1", at=NOW + 5),
            Click(event_id="e3", user_id="ada", item_id="i5", action="hide"),
            click("e4", "ada", "i3"),
            first=5,
        )
    )
    made = transitions(handled)
    assert [(one.item_id, one.origin.offset) for one in made] == [("i1", 5), ("i2", 6), ("i3", 9)]
    assert [one.previous for one in made] == [(), (("i1", 1.0),), (("i2", 1.0), ("i1", 0.9))]
    assert (made[0].at, made[0].origin.topic, made[0].origin.partition) == (NOW + 5, "clicks", 1)
    assert [output.key for _, output in handled.outputs] == [b"i1", b"i2", b"i3"]


async def test_what_was_not_published_is_made_again_and_a_copy_is_not(lane):
    """A batch read again makes the same transitions, whatever came since; an event sent again makes none."""
    handler, _, _ = lane
    one = batch("clicks", click("e1", "ada", "i1"), click("e2", "ada", "i2"))
    made = transitions(await handler.handle(one))
    later = batch("clicks", click("e2", "ada", "i2"), *(click(f"m{n}", "ada", f"j{n}") for n in range(200)), first=2)
    assert [one.item_id for one in transitions(await handler.handle(later))] == [f"j{n}" for n in range(200)]
    await handler.release()
    assert transitions(await handler.handle(one)) == made
    assert len(transitions(await handler.handle(later))) == 200


async def test_what_users_write_is_told_to_nobody(lane):
    """Posts, searches and uploads make no transition, and no transition names them."""
    handler, _, _ = lane
    posts = batch(
        "posts",
        Post(event_id="p1", user_id="ada", text="a poem"),
        Post(event_id="p2", user_id="ada", text="a secret", recommendable=False),
    )
    assert transitions(await handler.handle(posts)) == []
    [made] = transitions(await handler.handle(batch("clicks", click("e1", "ada", "i1"), first=9)))
    assert made.previous == ()


async def test_what_authors_do_to_their_own_posts_is_told_to_nobody(lane):
    """A click on it makes no transition and is named by none; another user's click on it is a like of any item."""
    handler, _, _ = lane
    own = IDENTITY.own_item("ada", "p1")
    await handler.handle(batch("posts", Post(event_id="p1", user_id="ada", text="a poem")))
    clicks = batch(
        "clicks",
        click("e1", "ada", "i1"),
        click("e2", "ada", own),
        click("e3", "ada", "i2"),
        click("e4", "bob", own),
        click("e5", "bob", "i1"),
    )
    made = transitions(await handler.handle(clicks))
    assert [(one.item_id, [item_id for item_id, _ in one.previous]) for one in made] == [
        ("i1", []),
        ("i2", ["i1"]),
        (own, []),
        ("i1", [own]),
    ]
    assert transitions(await handler.handle(clicks)) == made


async def test_everybody_whom_a_batch_touches_is_due_with_their_newest_record(lane):
    """Also where nothing changes: a crash between store and commit repeats the batch, and the list is still owed."""
    handler, _, profiles = lane
    one = batch("clicks", click("e1", "ada", "i1"), click("e2", "bob", "i2"), click("e3", "ada", "i3"), first=7)
    for _ in range(2):
        handled = await handler.handle(one)
        assert [transition.item_id for transition in transitions(handled)] == ["i1", "i2", "i3"]
        assert {user: dict(touch.positions) for user, touch in handled.touched.items()} == {
            "ada": {("clicks", 1): 9},
            "bob": {("clicks", 1): 8},
        }
        assert handled.touched["ada"].recorded == NOW + 9
    stored = await profiles.load(["ada", "bob"])
    assert [signal.event_id for signal in stored["ada"].state.signals] == ["e3", "e1"]
    assert stored["ada"].version == 1


async def test_a_list_says_what_it_took_into_account(lane):
    """Version, inputs, parts and reasons; nothing that the user has met, and never one's own."""
    handler, _, _ = lane
    handled = await handler.handle(batch("clicks", click("e1", "ada", "i1")))
    made = (await lists(handler, handled))["ada"]
    assert (made.user_id, made.profile_version, made.as_of) == ("ada", 1, NOW)
    assert [(one.topic, one.partition, one.offset) for one in made.inputs] == [("clicks", 1, 0)]
    assert made.timings.recorded == NOW
    assert made.timings.stored <= made.timings.ranked
    assert len(made.items) == 3
    assert "i1" not in {item.item_id for item in made.items}
    for item in made.items:
        assert sum(item.parts.values()) == item.score
        assert sum(one.part for one in item.because) == pytest.approx(max(item.score, 0), abs=1e-5)


def examples(handled):
    """The examples that a batch makes, with the partitions of the records they are from."""
    return [
        (partition, lesson_in(told(output), FEATURES))
        for partition, output in handled.outputs
        if output.topic == "examples"
    ]


def told(output):
    """An output as its readers get it."""
    return Record(topic=output.topic, partition=0, offset=0, timestamp=0, key=output.key, value=output.value)


async def test_a_like_of_a_candidate_is_an_example_once(lane):
    """Of the list given before; not again where its batch is handled again, whatever is remembered by then."""
    handler, _, _ = lane
    first = await handler.handle(batch("clicks", click("e1", "ada", "i1")))
    assert examples(first) == []
    await lists(handler, first)
    second = batch("clicks", click("e2", "ada", "i2"), click("e3", "ada", "i3"), first=9)
    handled = await handler.handle(second)
    [(partition, seen)] = examples(handled)
    assert partition == 1
    assert seen.features.shape == (len(FEATURES), 5)
    assert seen.absence_ms == 0  # nine milliseconds
    assert seen.features.any()
    assert all(output.key is None for _, output in handled.outputs if output.topic == "examples")
    assert examples(await handler.handle(second)) == []
    await lists(handler, handled)
    assert examples(await handler.handle(second)) == []
    await handler.release()
    await lists(handler, await handler.handle(second))
    assert examples(await handler.handle(second)) == []


async def test_a_batch_that_failed_makes_its_example_when_it_is_handled_again(lane, monkeypatch):
    """The store was away when it was to be written: nothing was told, and nothing is lost."""
    handler, _, _ = lane
    await lists(handler, await handler.handle(batch("clicks", click("e1", "ada", "i1"))))
    second = batch("clicks", click("e2", "ada", "i2"), first=9)

    async def away(*_):
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patched:
        patched.setattr(handler._updater, "apply", away)
        with pytest.raises(StoreUnavailable):
            await handler.handle(second)
    assert len(examples(await handler.handle(second))) == 1


async def test_who_does_not_learn_tells_no_examples(lane):
    """`recommend.learn = false` keeps nothing and says nothing."""
    handler, _, _ = lane
    handler._learn = False
    await lists(handler, await handler.handle(batch("clicks", click("e1", "ada", "i1"))))
    assert examples(await handler.handle(batch("clicks", click("e2", "ada", "i2"), first=9))) == []


async def test_bad_records_are_dead_letters_of_one_lane_only(lane):
    """Clicks and announcements are this lane's to report; posts and uploads the content lane reports."""
    handler, _, profiles = lane
    handled = await handler.handle(batch("clicks", b"\x81", click("e1", "ada", "i1"), b""))
    reasons = [
        DeadLetter.read(
            Record(topic="", partition=0, offset=0, timestamp=0, key=None, value=out.value, headers=out.headers)
        ).reason
        for _, out in handled.outputs
        if out.topic == "dead-letters"
    ]
    assert reasons == ["malformed", "empty"]
    assert {partition for partition, _ in handled.outputs} == {1}
    assert set(handled.touched) == {"ada"}
    assert len((await handler.handle(batch("item-ready", b"\x81"))).outputs) == 1
    for topic in ("posts", "media-uploads"):
        silent = await handler.handle(batch(topic, b"\x81", b""))
        assert (silent.outputs, silent.touched) == ([], {})
    assert set(await profiles.load(["ada"])) == {"ada"}


@pytest.mark.parametrize("announced_first", [False, True])
async def test_a_post_counts_once_its_item_is_there_whichever_comes_first(lane, announced_first):
    """The item before the signal, or the signal before the item and then the announcement: the same in the end."""
    handler, items, profiles = lane
    own = IDENTITY.own_item("ada", "p1")
    post = batch("posts", Post(event_id="p1", user_id="ada", text="a poem"))
    if announced_first:
        await put(items, own)
        early = await handler.handle(batch("item-ready", ItemReady(user_id="ada", item_id=own)))
        assert await lists(handler, early) == {}  # nothing is known of her yet
        await handler.handle(post)
    else:
        await handler.handle(post)
        waiting = (await profiles.load(["ada"]))["ada"]
        assert waiting.awaits == {own}
        assert not waiting.interest.any()
        await put(items, own)
        handled = await handler.handle(batch("item-ready", ItemReady(user_id="ada", item_id=own)))
        assert (await lists(handler, handled))["ada"].items
    profile = (await profiles.load(["ada"]))["ada"]
    assert profile.awaits == frozenset()
    np.testing.assert_allclose(profile.interest, (await items.vectors([own]))[own], atol=1e-6)


async def test_an_announced_change_is_seen_at_once(lane):
    """An item that is announced is read again, though it was remembered."""
    handler, items, profiles = lane
    await handler.handle(batch("clicks", click("e1", "ada", "i1")))
    before = (await profiles.load(["ada"]))["ada"]
    vector = np.zeros(SPACE.dimension, np.float32)
    vector[0] = 1
    await items.put([(Item(item_id="i1", version=(2, 2, 0), listed=True), vector)])
    await handler.handle(batch("item-ready", ItemReady(user_id="ada", item_id="i1")))
    after = (await profiles.load(["ada"]))["ada"]
    assert after.version == before.version + 1
    np.testing.assert_allclose(after.interest, vector, atol=1e-6)


async def test_after_release_nothing_is_remembered(lane):
    """What another worker wrote meanwhile is in the next list."""
    handler, _, profiles = lane
    handled = await handler.handle(batch("clicks", click("e1", "ada", "i1")))
    [mine] = (await profiles.load(["ada"])).values()
    await profiles.write([msgspec.structs.replace(mine, version=41)])
    assert (await lists(handler, handled))["ada"].profile_version == 1
    await handler.release()
    assert (await lists(handler, handled))["ada"].profile_version == 42


async def test_lists_rest_for_events_that_wait(lane, monkeypatch):
    """Behind each turn of making lists, and behind the last one, it is asked whether any do."""
    monkeypatch.setattr(recommend, "TURN_S", -1)  # each list is a turn
    monkeypatch.setattr(interest, "REST_S", 0)
    handler, _, _ = lane
    asked = []
    handler.behind = lambda: not asked.append("whether any wait")
    handled = await handler.handle(batch("clicks", *(click(f"e{user}", user, "i1") for user in ("ada", "bob", "eve"))))
    assert len(await lists(handler, handled)) == 3
    assert len(asked) == 4


async def test_who_is_not_known_has_no_list(lane):
    """Nobody is told what nothing is known for."""
    handler, _, _ = lane
    touch = Touch(positions={("clicks", 1): 0}, recorded=NOW, stored=NOW)
    assert await handler.refresh([Due(user="stranger", touch=touch)]) == []


async def test_what_comes_of_listing_an_item_is_remembered(lane):
    """An item that stays on a user's list is listed once; one that is liked while it is there was liked."""
    handler, _, _ = lane
    arms = handler._ranker.arms
    handled = await handler.handle(batch("clicks", click("e1", "ada", "i1")))
    made = (await lists(handler, handled))["ada"]
    await lists(handler, handled)
    assert {arms.listings(item.item_id) for item in made.items} == {1}
    first = made.items[0].item_id
    before = arms._likes
    await handler.handle(batch("clicks", click("e2", "ada", first), click("e3", "ada", "elsewhere"), first=1))
    assert arms._likes == before + 1


async def test_likes_are_judged_by_the_list_given_before(lane):
    """A like of what the list names is a hit; sent again it is nothing, and after a release nothing is remembered."""
    handler, _, _ = lane

    def counted():
        names = ("penchant_likes_total", "penchant_likes_listed_total")
        return [REGISTRY.get_sample_value(name, {"after": "sitting"}) or 0.0 for name in names]

    made = (await lists(handler, await handler.handle(batch("clicks", click("e1", "ada", "i1")))))["ada"]
    likes, hits = counted()
    hit = batch("clicks", click("e2", "ada", made.items[0].item_id), first=1)
    await lists(handler, await handler.handle(hit))
    assert counted() == [likes + 1, hits + 1]
    await handler.handle(hit)
    assert counted() == [likes + 1, hits + 1]
    await handler.release()
    await handler.handle(batch("clicks", click("e3", "ada", "i5"), first=2))
    assert counted() == [likes + 1, hits + 1]
