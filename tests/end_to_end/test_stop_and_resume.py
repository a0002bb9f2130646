"""Workers that are stopped, doubled, misled or cut off: nothing is lost, and what cannot go on says why."""

import signal
import time

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from penchant import broker as broker_module
from penchant.broker import LocalBroker
from penchant.streams import interest
from penchant.streams.codec import encode
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.events import Click, Media, Post
from penchant.streams.records import Output
from penchant.streams.topics import Topic, create_topics, describe_topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

USERS = 100
MANY, FEW, POSTS = 250_000, 2_000, 600  # many are more than a worker handles together, twice over
NEWEST = 192
REFUSED = 2
AUTHORIZER = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""


def clicks(stage, count, *, first=0, users=USERS):
    """Likes by users in turn, each of an item and with an id of its own; no such item exists, which does not matter."""
    topic = stage.topic(Topic.CLICKS)
    for number in range(first, first + count):
        user = f"u{number % users}"
        click = Click(event_id=f"e{number}", user_id=user, item_id=f"i{number}", action="like")
        yield Output(topic=topic, key=user.encode(), value=encode(click))


def newest(count, *, first=0, users=USERS, limit=NEWEST):
    """What each user's signals must be: the newest of those that `clicks` makes, by event id."""
    events = {f"u{user}": [] for user in range(min(users, count))}
    for number in range(first, first + count):
        events[f"u{number % users}"].append(f"e{number}")
    return {user: set(names[-limit:]) for user, names in events.items()}


def events_of(snapshot):
    """The event ids of each user's signals."""
    return {user: {signal.event_id for signal in one.state.signals} for user, one in snapshot.profiles.items()}


def check(stage, expected):
    """All profiles hold what they must, and each user has the list of the last version. No worker may run."""
    snapshot = stage.snapshot()
    assert events_of(snapshot) == expected
    versions = {user: found.profile_version for user, found in stage.lists().items()}
    assert versions == {user: profile.version for user, profile in snapshot.profiles.items()}


def applied(worker):
    """Records of the interest lane that are in the store."""
    return worker.metric("penchant_records_total", lane="interest")


def test_sigterm_in_mid_stream_loses_nothing(stage, measured):
    """A worker told to stop ends with 0 within its deadline, and the next goes on where it stopped."""
    # Events of one user are a millisecond apart at least, lest ids decide which are the newest.
    stage.send(clicks(stage, MANY), timestamps=range(now() - MANY, now()))
    with stage.worker("interest") as worker:
        worker.await_that(lambda: applied(worker) > 0, "it is in mid-stream")
        asked = time.monotonic()
        assert worker.stop() == 0
        seconds = time.monotonic() - asked
        assert "not finished in time" not in worker.log
    left = stage.lag("interest")
    assert 0 < left < MANY
    measured(f"SIGTERM in mid-stream: {seconds:.1f} s to the exit, {MANY - left} of {MANY} records committed")
    with stage.worker("interest") as worker:
        stage.await_settled(worker, "interest")
        assert applied(worker) == left
        assert worker.stop() == 0
    check(stage, newest(MANY))


def test_a_second_worker_on_the_same_folder_is_refused(stage):
    """It ends at once and says why, and the first one works on."""
    with stage.worker("interest") as first:
        first.await_ready()
        with stage.worker("interest") as second:
            assert second.await_exit() == REFUSED
            assert "Another penchant worker uses the folder" in second.log
        stage.send(clicks(stage, FEW))
        stage.await_settled(first, "interest")
        assert first.stop() == 0
    check(stage, newest(FEW))


def test_a_topic_created_anew_is_refused(stage):
    """A worker whose store covers a former log does not take the new one for it: exit code 2, and words."""
    stage.send(clicks(stage, FEW))
    with stage.worker("interest") as worker:
        stage.await_settled(worker, "interest")
        assert worker.stop() == 0
    recreate(stage, Topic.CLICKS)
    stage.send(clicks(stage, FEW // 2, first=FEW))
    before = stage.snapshot()
    with stage.worker("interest") as worker:
        assert worker.await_exit() == REFUSED
        assert "created anew" in worker.log
        assert "fresh data_dir" in worker.log
        assert "Traceback" not in worker.log
    assert events_of(stage.snapshot()) == events_of(before) == newest(FEW)


def test_a_topic_created_anew_under_a_running_worker_stops_it(stage):
    """A log that is replaced while it is read is noticed: exit code 2, and nothing of the new one is applied."""
    stage.send(clicks(stage, FEW))
    with stage.worker("interest") as worker:
        stage.await_settled(worker, "interest")
        recreate(stage, Topic.CLICKS)
        stage.send(clicks(stage, FEW // 2, first=FEW))
        assert worker.await_exit() == REFUSED
        assert "Traceback" not in worker.log


def test_a_gap_that_retention_tore_is_reported(stage):
    """Records deleted before they were applied are counted, in the log and as a metric; the rest is applied."""
    stage.send(clicks(stage, FEW))
    with stage.worker("interest") as worker:
        stage.await_settled(worker, "interest")
        assert worker.stop() == 0
    covered = stage.ends([Topic.CLICKS])
    stage.send(clicks(stage, FEW, first=FEW))
    torn = {source: end - 10 for source, end in stage.ends([Topic.CLICKS]).items()}
    deleted = stage.admin.delete_records([TopicPartition(*source, offset) for source, offset in torn.items()])
    for done in deleted.values():
        done.result(30)
    gone = sum(offset - covered[source] for source, offset in torn.items())
    with stage.worker("interest") as worker:
        stage.await_settled(worker, "interest")
        assert worker.metric("penchant_records_lost_to_retention_total", lane="interest") == gone
        assert "records are gone that were not applied" in worker.log
        assert applied(worker) == FEW - gone
        assert worker.stop() == 0
    kept = {f"e{number}" for number in range(FEW)}
    found = events_of(stage.snapshot())
    after = set().union(*found.values()) - kept
    assert kept <= set().union(*found.values())
    assert len(after) == FEW - gone


def test_a_crash_while_embedding(stage):
    """A killed content lane embeds on: every post is an item, each bad picture one dead letter, and nobody waits."""
    topic = stage.topic(Topic.POSTS)
    outputs = []
    for number in range(POSTS):
        media = (Media(kind="image", data=b"no picture"),) if number % 10 == 0 else ()
        user = f"u{number % USERS}"
        post = Post(event_id=f"e{number}", user_id=user, text=f"a note about subject {number}", media=media)
        outputs.append(Output(topic=topic, key=user.encode(), value=encode(post)))
    places = stage.send(outputs)
    with stage.worker("content") as worker:
        worker.await_that(lambda: worker.metric("penchant_records_total", lane="content"), "it is in mid-stream")
        worker.kill()
    assert stage.lag("content") > 0
    with stage.worker() as worker:
        stage.await_settled(worker)
        assert worker.stop() == 0
    snapshot = stage.snapshot()
    assert events_of(snapshot) == newest(POSTS)
    assert not any(profile.awaits for profile in snapshot.profiles.values())
    items = {signal.item_id for profile in snapshot.profiles.values() for signal in profile.state.signals}
    assert all(item.listed for item in stage.snapshot(items).items.values())
    letters = sorted(
        (letter.topic, letter.partition, letter.offset)
        for letter in map(DeadLetter.read, stage.read(Topic.DEAD_LETTERS))
    )
    assert letters == sorted(places[::10])


@pytest.mark.parametrize(
    "kafka_settings", [{"transactions": False}, {"group_protocol": "consumer"}], ids=["at-least-once", "kip-848"]
)
def test_other_ways_to_talk_to_kafka(kafka, make_stage, kafka_settings):
    """Without transactions, and with the consumer protocol, a crash and an orderly stop lose nothing either."""
    with make_stage(kafka, kafka=kafka_settings) as stage:
        stage.send(clicks(stage, MANY), timestamps=range(now() - MANY, now()))
        with stage.worker("interest") as worker:
            worker.await_that(lambda: applied(worker) > 0, "it is in mid-stream")
            worker.kill()
        with stage.worker("interest") as worker:
            worker.await_that(lambda: applied(worker) > 0, "it goes on")
            # The consumer protocol holds a crashed member's name until its session is over.
            assert ("waiting to join" in worker.log) == (kafka_settings == {"group_protocol": "consumer"})
            assert worker.stop() == 0
        with stage.worker("interest") as worker:
            worker.await_ready()
            stage.await_settled(worker, "interest")
            assert worker.stop() == 0
        check(stage, newest(MANY))


def test_a_broker_that_goes_and_comes_back(kafka, make_stage, tmp_path):
    """A worker lives through a restart of its broker in mid-stream, and loses nothing."""
    with LocalBroker.start(tmp_path / "broker", port=0, engine="kafka") as broker, make_stage(broker) as stage:
        port = int(broker.bootstrap_servers.rpartition(":")[2])
        stage.send(clicks(stage, MANY), timestamps=range(now() - MANY, now()))
        with stage.worker("interest") as worker:
            worker.await_that(lambda: applied(worker) > 0, "it is in mid-stream")
            broker.stop()
            with LocalBroker.start(tmp_path / "broker", port=port, engine="kafka"):
                stage.send(clicks(stage, FEW, first=MANY))
                stage.await_settled(worker, "interest")
                assert worker.stop() == 0
                check(stage, newest(MANY + FEW))


def test_a_worker_without_permission_stops(make_stage, tmp_path, monkeypatch):
    """What the broker does not allow is not tried again and again: exit code 2, and the broker's words."""
    guarded = f"{broker_module.SERVER_PROPERTIES}{AUTHORIZER}"
    monkeypatch.setattr(broker_module, "SERVER_PROPERTIES", guarded)
    with LocalBroker.start(tmp_path / "broker", port=0, engine="kafka") as broker, make_stage(broker) as stage:
        group = stage.settings.prefixed(interest.GROUP)
        denied = AclBinding(
            ResourceType.GROUP, group, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", AclOperation.READ,
            AclPermissionType.DENY,
        )  # fmt: skip
        for made in stage.admin.create_acls([denied]).values():
            made.result(30)
        with stage.worker("interest") as worker:
            assert worker.await_exit() == REFUSED
            assert "GROUP_AUTHORIZATION_FAILED" in worker.log
            assert "what the broker allows" in worker.log


def test_a_worker_that_waits_for_its_broker_can_be_stopped(stage):
    """Asked to end before anybody has answered, it does: 0."""
    with stage.with_settings(kafka={"bootstrap_servers": "127.0.0.1:1"}).worker("interest") as worker:
        worker.await_that(lambda: "will try again" in worker.log, "it waits")
        assert worker.stop() == 0
        assert "Traceback" not in worker.log


def test_an_interrupt_stops_as_a_termination_does(stage):
    """Ctrl-C ends a worker in order: 0."""
    with stage.worker("interest") as worker:
        worker.await_ready()
        worker.process.send_signal(signal.SIGINT)
        assert worker.await_exit() == 0


def recreate(stage, topic):
    """Deletes a topic and creates it anew."""
    name = stage.topic(topic)
    old = describe_topics(stage.admin, [name])[name].id
    stage.admin.delete_topics([name])[name].result(30)
    while name in describe_topics(stage.admin, [name]):
        time.sleep(0.05)
    create_topics(stage.settings)
    assert describe_topics(stage.admin, [name])[name].id != old


def now():
    """The wall clock, epoch milliseconds."""
    return time.time_ns() // 1_000_000
