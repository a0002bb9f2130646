"""The client delivers what it accepts, says what it could not, and refuses what no worker would take."""

import asyncio
import random
import socket
import time
from datetime import UTC, datetime

import pytest

from penchant.client import (
    AsyncPublisher,
    AsyncSubscriber,
    Click,
    DeliveryFailed,
    InvalidEvent,
    Item,
    Media,
    MediaKind,
    MediaUpload,
    Post,
    Publisher,
    Recommendations,
    Subscriber,
)
from penchant.errors import ConfigurationError, Unavailable
from penchant.settings import load_settings
from penchant.streams.codec import decode, encode
from penchant.streams.connection import open_producer, open_transactional_producer, partition_of
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic

WAIT_S = 20.0


def everything(settings, topic):
    """The records that a topic holds."""
    with TopicReader(settings, topic, from_beginning=True) as reader:
        return list(reader.to_end())


def a_list(user, version=1):
    """A list for a user."""
    return Recommendations(user_id=user, profile_version=version, as_of=1_750_000_000_000)


def publish_lists(settings, *lists):
    """Publishes lists as a worker without transactions does."""
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for one in lists:
        producer.produce(settings.prefixed(Topic.RECOMMENDATIONS), encode(one), one.user_id)
    assert producer.flush(WAIT_S) == 0


@pytest.fixture
def nobody():
    """Settings that name a port where nothing listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        yield load_settings(kafka={"bootstrap_servers": f"127.0.0.1:{port}"})


def test_every_verb_reaches_its_topic_under_its_key(settings):
    """What is published is on the topic of its kind, keyed by user or item, as the contract says."""
    picture = Media(kind=MediaKind.IMAGE, data=b"png")
    with Publisher(settings) as publisher:
        click = publisher.click("ada", "film-1", "rate", value=4.5, at=datetime(2025, 6, 15, tzinfo=UTC))
        post = publisher.post("ada", "a poem", media=[picture], tags=["verse"])
        search = publisher.search("ada", "old maps")
        upload = publisher.upload("ada", "audio", b"RIFF", caption="rain")
        publisher.item("film-1", title="One", attributes={"year": "1995"}, entity="m.01")
        publisher.item(Item(item_id="film-2", text="Two"))
        publisher.withdraw("film-3")
    (clicked,) = everything(settings, Topic.CLICKS)
    assert clicked.key == b"ada"
    found = decode(Click, clicked.value)
    assert (found.event_id, found.value, found.at) == (click, 4.5, datetime(2025, 6, 15, tzinfo=UTC))
    posted = {
        decode(Post, record.value).event_id: decode(Post, record.value) for record in everything(settings, Topic.POSTS)
    }
    assert posted[post].media == (picture,)
    assert posted[post].recommendable
    assert not posted[search].recommendable
    (uploaded,) = everything(settings, Topic.MEDIA_UPLOADS)
    assert decode(MediaUpload, uploaded.value).event_id == upload
    items = {record.key: record.value for record in everything(settings, Topic.ITEMS)}
    assert decode(Item, items[b"film-1"]).attributes == {"year": "1995"}
    assert decode(Item, items[b"film-1"]).entity == "m.01"
    assert decode(Item, items[b"film-2"]).text == "Two"
    assert items[b"film-3"] is None


def test_keys_lie_where_the_java_client_puts_them(settings):
    """A user's records share a partition number with those of producers in any language."""
    users = [f"user-{n}" for n in range(40)]
    with Publisher(settings) as publisher:
        for user in users:
            publisher.click(user, "i")
    found = {record.key: record.partition for record in everything(settings, Topic.CLICKS)}
    assert found == {user.encode(): partition_of(user.encode(), settings.kafka.partitions) for user in users}


@pytest.mark.parametrize(
    "verb",
    [
        lambda publisher: publisher.click("", "i"),
        lambda publisher: publisher.click("u\n", "i"),
        lambda publisher: publisher.click("u", "\ud800"),
        lambda publisher: publisher.click("u", "i", "applaud"),
        lambda publisher: publisher.click("u", "i", "post"),
        lambda publisher: publisher.click("u", "i", "rate", value=float("nan")),
        lambda publisher: publisher.click("u", "i", dwell_ms=2**70),
        lambda publisher: publisher.click("u", "i", at=1_750_000_000),
        lambda publisher: publisher.click("u", "i", at=round(1_000 * time.time()) + 10**11),
        lambda publisher: publisher.click("u", "i", at=datetime(2025, 6, 15)),  # noqa: DTZ001  that is the mistake
        lambda publisher: publisher.click(7, "i"),
        lambda publisher: publisher.click("u", object()),
        lambda publisher: publisher.click("u", "i", "rate"),
        lambda publisher: publisher.post("u", " \n"),
        lambda publisher: publisher.item("~u/i"),
        lambda publisher: publisher.post("u", "x" * 20_001),
        lambda publisher: publisher.post("u", "x", media=[Media(kind=MediaKind.IMAGE)]),
        lambda publisher: publisher.upload("u", "image"),
        lambda publisher: publisher.upload("u", "video", b"x"),
        lambda publisher: publisher.upload("u", "image", b"x", uri="https://example.org/x.png"),
        lambda publisher: publisher.upload("u", "image", b"x" * (8 * 2**20 + 1)),
        lambda publisher: publisher.item("i", tags=["t"] * 65),
        lambda publisher: publisher.withdraw("x" * 257),
    ],
)
def test_what_no_worker_would_take_is_refused_at_once(nobody, verb):
    """Every bound of the contract is checked before anything is sent, in words that quote no value."""
    with pytest.raises(InvalidEvent) as refusal:
        verb(Publisher(nobody))
    assert "xxx" not in str(refusal.value)


def test_many_events_fit_through_a_small_queue(settings):
    """A producer faster than the broker waits for room; nothing is lost, nothing is raised."""
    narrow = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"options": {"queue.buffering.max.messages": 100}})}
    )
    with Publisher(narrow) as publisher:
        for n in range(3_000):
            publisher.click("u", f"i{n}", event_id=f"e{n}")
    found = [decode(Click, record.value).event_id for record in everything(settings, Topic.CLICKS)]
    assert found == [f"e{n}" for n in range(3_000)]  # one user, one partition, one order


def test_a_record_beyond_the_topics_bound_is_raised_with_counts(settings):
    """What the broker will not take is raised at the end of the block; the others have arrived."""

    def publish():
        with Publisher(settings) as publisher:
            publisher.item("small", text="x")
            publisher.topic = lambda _: settings.prefixed(Topic.CLICKS)  # whose records may have 1 MiB, not 12
            publisher.upload("u", "image", random.Random(1).randbytes(2 * 10**6))
            publisher.click("u", "i")

    with pytest.raises(DeliveryFailed) as failure:
        publish()
    assert (failure.value.failed, failure.value.sent) == (1, 3)
    assert "1 of 3" in str(failure.value)
    assert len(everything(settings, Topic.CLICKS)) == 1


def test_a_flush_reports_each_failure_once(settings):
    """After a reported failure the publisher goes on, and the same failure is not raised again."""
    with Publisher(settings) as publisher:
        topic, publisher.topic = publisher.topic, lambda _: settings.prefixed(Topic.CLICKS)
        publisher.upload("u", "image", random.Random(1).randbytes(2 * 10**6))
        publisher.topic = topic
        with pytest.raises(DeliveryFailed):
            publisher.flush()
        publisher.click("u", "i")
    assert len(everything(settings, Topic.CLICKS)) == 1


def test_an_exception_in_the_block_comes_through(settings):
    """The caller's own exception is the one that the caller sees."""

    def publish():
        with Publisher(settings) as publisher:
            publisher.click("u", "i")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish()
    assert len(everything(settings, Topic.CLICKS)) == 1


def test_no_broker_is_a_clear_error(nobody, monkeypatch):
    """Where nothing answers, entering the block says so, and that waiting may help."""
    monkeypatch.setattr("penchant.streams.client.CONNECT_TIMEOUT_S", 0.5)
    with pytest.raises(Unavailable, match="does not answer"), Publisher(nobody):
        pass


def test_missing_topics_are_a_clear_error(settings):
    """Where topics are missing, both ends say so and how to create them."""
    empty = settings.model_copy(update={"namespace": "nothing-here"})
    with pytest.raises(ConfigurationError, match="penchant topics create"), Publisher(empty):
        pass
    with pytest.raises(ConfigurationError, match="penchant topics create"), Subscriber(empty):
        pass


def test_a_publisher_outside_its_block_says_so(nobody):
    """Forgetting the `with` is answered in words."""
    with pytest.raises(RuntimeError, match="with"):
        Publisher(nobody).click("u", "i")


def test_settings_and_their_overrides_exclude_each_other(nobody):
    """Two answers to which broker is meant are refused."""
    with pytest.raises(TypeError):
        Publisher(nobody, namespace="other")
    assert Publisher(namespace="other").topic(Topic.CLICKS) == "other.clicks"


async def test_an_awaited_event_is_delivered(settings):
    """When a call has been awaited, the event is on its topic; many may be awaited at once."""
    async with AsyncPublisher(settings) as publisher:
        name = await publisher.click("u", "i")
        assert [decode(Click, record.value).event_id for record in everything(settings, Topic.CLICKS)] == [name]
        names = await asyncio.gather(*(publisher.click("u", f"i{n}") for n in range(500)))
    assert len(set(names)) == 500
    assert len(everything(settings, Topic.CLICKS)) == 501


async def test_awaiting_raises_what_hindered_the_delivery(settings):
    """A failed delivery is raised where the event is awaited, and concerns no other."""
    async with AsyncPublisher(settings) as publisher:
        publisher.topic = lambda _: settings.prefixed(Topic.CLICKS)
        large = publisher.upload("u", "image", random.Random(1).randbytes(2 * 10**6))
        outcomes = await asyncio.gather(large, publisher.click("u", "i"), return_exceptions=True)
    assert "too large" in str(outcomes[0])
    assert isinstance(outcomes[1], str)


async def test_a_small_queue_makes_asynchronous_callers_wait(settings):
    """A thousand tasks and room for a hundred records: all are delivered."""
    narrow = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"options": {"queue.buffering.max.messages": 100}})}
    )
    async with AsyncPublisher(narrow) as publisher:
        await asyncio.gather(*(publisher.click("u", f"i{n}") for n in range(1_000)))
    assert len(everything(settings, Topic.CLICKS)) == 1_000


async def test_the_asynchronous_publisher_refuses_what_the_other_does(nobody):
    """Bounds are checked by one code, at the call."""
    with pytest.raises(InvalidEvent):
        AsyncPublisher(nobody).click("", "i")


def test_a_subscriber_sees_what_is_published_after_it_connected(settings):
    """From the moment of entering no list is missed, and none from before is shown."""
    publish_lists(settings, a_list("ada"))
    with Subscriber(settings, timeout_s=WAIT_S) as lists:
        publish_lists(settings, a_list("ada", 2), a_list("bob", 7))
        found = {(one.user_id, one.profile_version) for one in (next(lists), next(lists))}
    assert found == {("ada", 2), ("bob", 7)}


def test_from_the_beginning_means_the_state_and_what_follows(settings):
    """What the topic holds comes first, in the order of each user's lists; `caught_up` says when that is done."""
    publish_lists(settings, *(a_list(user, version) for version in (1, 2) for user in ("ada", "bob")))
    with Subscriber(settings, from_beginning=True, timeout_s=WAIT_S) as lists:
        state = {one.user_id: one.profile_version for one in (next(lists) for _ in range(4))}
        assert state == {"ada": 2, "bob": 2}
        publish_lists(settings, a_list("ada", 3))
        assert next(lists).profile_version == 3
        lists.timeout_s = 1.0
        assert list(lists) == []
        assert lists.caught_up


def test_only_the_users_asked_for_are_given(settings):
    """Other users' lists are passed over."""
    publish_lists(settings, a_list("ada"), a_list("bob"), a_list("eve"))
    with Subscriber(settings, users=["bob", "eve"], from_beginning=True, timeout_s=2.0) as lists:
        assert {one.user_id for one in lists} == {"bob", "eve"}


def test_lists_of_aborted_transactions_are_not_given(settings):
    """Only what a worker has committed is read."""
    producer = open_transactional_producer(settings, "test")
    producer.init_transactions(WAIT_S)
    topic = settings.prefixed(Topic.RECOMMENDATIONS)
    for version, end in ((1, producer.abort_transaction), (2, producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(topic, encode(a_list("ada", version)), "ada")
        producer.flush()
        end(WAIT_S)
    with Subscriber(settings, from_beginning=True, timeout_s=2.0) as lists:
        assert [one.profile_version for one in lists] == [2]


def test_a_group_goes_on_where_it_left_off(settings):
    """A member that comes back sees no list twice that it was done with, and misses none."""
    publish_lists(settings, *(a_list("ada", version) for version in (1, 2, 3)))
    with Subscriber(settings, group="mail", from_beginning=True, timeout_s=WAIT_S) as lists:
        assert [next(lists).profile_version for _ in range(2)] == [1, 2]
    with Subscriber(settings, group="mail", timeout_s=WAIT_S) as lists:
        # The second had been given, but the next was never asked for: it counts as not done.
        assert [next(lists).profile_version for _ in range(2)] == [2, 3]


def test_what_is_no_list_is_passed_over(settings):
    """Nulls and foreign bytes on the topic end no subscription."""
    producer = open_producer(settings, delivery_timeout_ms=10_000)
    for value in (None, b"\xc1", encode(a_list("ada"))):
        producer.produce(settings.prefixed(Topic.RECOMMENDATIONS), value, "ada")
    producer.flush(WAIT_S)
    with Subscriber(settings, from_beginning=True, timeout_s=2.0) as lists:
        assert [one.user_id for one in lists] == ["ada"]


def test_stop_ends_the_iteration(settings):
    """A subscriber that is told to stop ends as a loop ends."""
    with Subscriber(settings) as lists:
        lists.stop()
        assert list(lists) == []


async def test_the_asynchronous_subscriber_loses_nothing_to_a_cancelled_wait(settings):
    """A caller may give up waiting; the list that comes is then the next caller's."""
    async with AsyncSubscriber(settings, timeout_s=WAIT_S) as lists:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(lists), 0.05)
        await asyncio.to_thread(publish_lists, settings, *(a_list("ada", n) for n in range(1, 6)))
        assert [(await anext(lists)).profile_version for _ in range(5)] == [1, 2, 3, 4, 5]
        lists.stop()
        assert [one async for one in lists] == []
