"""What a verification finds of a store and its log: exact where it is, whatever is under way, and no flaw unseen.

A worker fills a store from a real log and is verified on the way. Each test then spoils a copy of what it left behind,
or takes it back to a snapshot, and the verification must say just that.
"""

import asyncio
import contextlib
import json
import os
import random
import threading
import time

import msgspec
import numpy as np
import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner

from penchant.cli import app
from penchant.errors import ConfigurationError, PenchantError
from penchant.parts import build_parts
from penchant.profile.affinity import Transition
from penchant.profile.identity import Identity
from penchant.profile.positions import Positions
from penchant.profile.store.edge_shard import copy_shards
from penchant.streams import interest
from penchant.streams.codec import Unusable, decode, encode
from penchant.streams.events import Click, Item, Post
from penchant.streams.interpret import Reader
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from penchant.verify import Kind, take_snapshot, verify
from penchant.verify.expected import is_weak
from penchant.verify.held import facts_of

STRONG, WEAK = 12, 8
USERS, ITEMS, CLICKS, POSTS = 12, 20, 2_000, 24
HOUR_MS = 3_600_000


def items(stage):
    """A catalogue."""
    for number in range(ITEMS):
        item = Item(item_id=f"i{number}", title=f"thing number {number} of kind {number % 5}")
        yield Output(topic=stage.topic(Topic.ITEMS), key=item.item_id.encode(), value=encode(item))


def deeds(stage, count, chance, *, first=0):
    """Clicks of all kinds, out of order; some twice, some with an id used before, some on items that do not exist."""
    topic = stage.topic(Topic.CLICKS)
    now = time.time_ns() // 1_000_000
    for number in range(first, first + count):
        action = chance.choice(["view", "click", "skip", "like", "rate", "dislike", "purchase"])
        click = Click(
            event_id=f"e{chance.choice([number, number, number, chance.randint(first, number)])}",
            user_id=f"u{chance.randrange(USERS)}",
            item_id=f"i{chance.randrange(ITEMS + 2)}",
            action=action,
            value=chance.randint(1, 10) / 2 if action == "rate" else None,
            dwell_ms=chance.randrange(60_000) if action == "view" else None,
            at=now - chance.randrange(HOUR_MS),
        )
        for _ in range(chance.choice([1, 1, 1, 2])):
            yield Output(topic=topic, key=click.user_id.encode(), value=encode(click))
        if not number % 100:
            yield Output(topic=topic, key=b"u1", value=b"no click")


def posts(stage):
    """Posts, some of them searches."""
    for number in range(POSTS):
        user = f"u{number % USERS}"
        post = Post(event_id=f"p{number}", user_id=user, text=f"about {number}", recommendable=bool(number % 2))
        yield Output(topic=stage.topic(Topic.POSTS), key=user.encode(), value=encode(post))


def clicks(stage):
    """The clicks that the log has."""
    found = []
    for record in stage.read(Topic.CLICKS):
        with contextlib.suppress(Unusable):
            found.append(decode(Click, record.value, record.headers))
    return found


def beside(worker):
    """The settings of a command beside a running worker."""
    port = worker.settings.worker.model_copy(update={"http_port": worker.port})
    return worker.settings.model_copy(update={"worker": port})


class Played:
    """What a worker has left behind.

    Attributes:
        live: reports made while it worked and more was sent.
        settled: the report when it had read everything, and still ran.
        snapshot: a copy of its store, taken while it worked.
    """

    def __init__(self, stage, folder):
        self.stage = stage
        self.snapshot = folder / "store"
        chance = random.Random(5)
        moment = time.time_ns() // 1_000_000 - HOUR_MS
        stage.send(items(stage), timestamps=iter(lambda: moment, None))
        stage.send(posts(stage))
        stage.send(deeds(stage, CLICKS, chance))
        with stage.worker() as worker:
            worker.await_ready()
            settings = beside(worker)
            stage.await_settled(worker)
            sending = threading.Thread(target=self.trickle, args=(chance,))
            sending.start()
            take_snapshot(settings, self.snapshot)
            self.live = [verify(settings), verify(settings)]
            sending.join()
            stage.await_settled(worker)
            self.settled = verify(settings)
            assert worker.stop() == 0

    def trickle(self, chance):
        """Sends more, little by little."""
        for part in range(30):
            self.stage.send(deeds(self.stage, 100, chance, first=CLICKS + 100 * part))
            time.sleep(0.1)

    def copied(self, folder, source=None):
        """Settings for a copy of the store, or of the snapshot, that a test may spoil."""
        data = folder / "data"
        copy_shards(source or self.stage.settings.data_dir / "store", data / "store")
        return self.stage.settings.model_copy(update={"data_dir": data})


@pytest.fixture(scope="module")
def played(kafka, make_stage, tmp_path_factory):
    """A worker's life, verified on the way."""
    with make_stage(kafka, profile={"strong_limit": STRONG, "weak_limit": WEAK}) as stage:
        yield Played(stage, tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copy(played, tmp_path):
    """Settings for a copy of the store that this test may spoil."""
    return played.copied(tmp_path)


def files(folder):
    """The files of a folder: when each was last written, and how long it is."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path: (stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


@contextlib.asynccontextmanager
async def opened(settings):
    """The parts of a worker on a store, while the block lasts."""
    parts = build_parts(settings)
    await parts.open()
    try:
        yield parts
    finally:
        await parts.store.close()


def positions_in(parts, settings):
    """The positions that the profiles cover."""
    return Positions(parts.store, parts.profiles.layout.name, settings.prefixed(interest.GROUP))


def spoil(settings, user, change):
    """Writes a profile as `change` makes it of the one that stands; gives that one."""

    async def write():
        async with opened(settings) as parts:
            profile = (await parts.profiles.load([user]))[user]
            assert await parts.profiles.write([change(profile)])
            return profile

    return asyncio.run(write())


def with_strong(change):
    """Alters the strong signals of a profile, and leaves its vectors."""
    replace = msgspec.structs.replace
    return lambda profile: replace(profile, state=replace(profile.state, strong=tuple(change(profile.state.strong))))


def only(report):
    """The findings of the only user with whom something is wrong."""
    assert not report.exact
    (one,) = report.findings
    return one


def kinds(report):
    """Signals that are wrong, by kind."""
    return {kind.value: getattr(report, kind.value) for kind in Kind if getattr(report, kind.value)}


def run(settings, *words):
    """Runs a command in this process; of the environment it knows only the limits that the worker was told."""
    kafka = ["--bootstrap-servers", settings.kafka.bootstrap_servers]
    flags = ["--namespace", settings.namespace, "--data-dir", str(settings.data_dir), *kafka]
    told = {"PENCHANT_PROFILE__STRONG_LIMIT": str(STRONG), "PENCHANT_PROFILE__WEAK_LIMIT": str(WEAK)}
    environment = dict.fromkeys(name for name in os.environ if name.startswith("PENCHANT_")) | told
    return CliRunner().invoke(app, [*flags, *map(str, words)], env=environment)


def test_exact_while_a_worker_works(played):
    """Beside a running worker, with events coming in all the while, there is no false alarm."""
    for report in [*played.live, played.settled]:
        assert report.exact, report.findings
        assert report.users == USERS
        assert report.signals == USERS * (STRONG + WEAK)
        assert report.unusable
    assert played.live[0].records < played.settled.records
    assert played.settled.largest_deviation < 1e-6
    assert played.settled.stale == 0
    assert played.settled.in_flight == 0
    assert played.settled.rows.rows == ITEMS + 2
    assert played.settled.rows.in_flight == 0
    assert played.settled.rows.before_log == 0


def test_exact_when_the_worker_has_stopped(played, copy):
    """The store at rest is verified from a copy: itself is not touched, and nothing is left behind."""
    before = files(copy.data_dir)
    report = verify(copy)
    assert report.exact
    assert report.signals == played.settled.signals
    after = files(copy.data_dir)
    assert after.keys() - before.keys() == {copy.data_dir / "store" / "lock"}
    assert {path: after[path] for path in before} == before


def test_a_dropped_signal_is_lost(copy):
    """Its user and its event are named, with what the log says of it."""
    stood = spoil(copy, "u3", with_strong(lambda strong: [*strong[:4], *strong[5:]]))
    report = verify(copy)
    assert kinds(report) == {"lost": 1}
    (finding,) = only(report).signals
    assert only(report).user == "u3"
    assert finding.expected == facts_of(stood.state.strong)[4]
    assert finding.stored is None


def test_a_signal_under_another_id_is_doubled(copy):
    """The same deed once more, pushing out the oldest."""
    spoil(
        copy,
        "u3",
        with_strong(lambda strong: [msgspec.structs.replace(strong[0], event_id="again"), *strong[:-1]]),
    )
    report = verify(copy)
    assert kinds(report) == {"doubled": 1, "lost": 1}
    assert [one.event_id for one in only(report).signals if one.kind is Kind.DOUBLED] == ["again"]


def test_a_signal_twice_under_its_own_id_is_doubled(copy):
    """Even what no merging could make."""
    spoil(copy, "u3", with_strong(lambda strong: [strong[0], *strong]))
    report = verify(copy)
    assert kinds(report) == {"doubled": 1}


def test_a_misweighted_signal_is_altered(copy):
    """What the log says and what the store holds are told side by side."""
    spoil(
        copy,
        "u3",
        with_strong(lambda strong: [msgspec.structs.replace(strong[0], weight=strong[0].weight + 1), *strong[1:]]),
    )
    report = verify(copy)
    assert kinds(report) == {"altered": 1}
    (finding,) = only(report).signals
    assert finding.stored.weight == pytest.approx(finding.expected.weight + 1)
    assert report.deviating == 1  # the vectors are not those of the altered set


def test_a_vector_that_is_off_is_found(copy):
    """By a thousandth in one component; the signals are as they must be."""

    def off(profile):
        long = profile.long.copy()
        long[7] += 1e-3
        return msgspec.structs.replace(profile, long=long)

    spoil(copy, "u5", off)
    report = verify(copy)
    assert (report.deviating, kinds(report), report.exact) == (1, {}, False)
    assert only(report).user == "u5"
    assert report.largest_deviation == pytest.approx(1e-3, rel=1e-2)


def test_a_profile_forgotten_to_wait_is_found(copy):
    """An item that is missing and that nobody waits for would never count."""
    report = verify(copy)
    assert report.waiting
    spoil(copy, "u5", lambda profile: msgspec.structs.replace(profile, awaits=frozenset()))
    found = verify(copy)
    assert only(found).forgotten
    assert found.waiting == report.waiting - 1


def test_a_row_that_is_off_is_found(copy):
    """An item that counts once too often is named, with what the log says; looking at one user looks at no row."""

    async def edit():
        async with opened(copy) as parts:
            row = (await parts.rows.get(["i3"]))["i3"]
            told = Transition(item_id="i3", at=row.as_of, previous=(), origin=("elsewhere", 0), offset=0)
            await parts.rows.apply({"i3": [told]})
            return row.count

    count = asyncio.run(edit())
    report = verify(copy)
    assert not report.exact
    [found] = report.rows.findings
    assert (found.item_id, found.expected, found.stored) == ("i3", count, count + 1)
    assert verify(copy, users=["u1"]).rows is None
    shown = run(copy, "verify")
    assert shown.exit_code == 1
    assert "wrong rows" in shown.stdout
    [one] = json.loads(run(copy, "verify", "--json").stdout)["rows"]["findings"]
    assert one["item_id"] == "i3"


def test_an_item_edited_since_is_not_wrong(copy):
    """A profile takes an edit up when it is next written: until then it is stale, and said so."""

    async def edit():
        async with opened(copy) as parts:
            (item,) = (await parts.items.get(["i3"])).values()
            vector = np.zeros(parts.space.dimension, np.float32)
            vector[0] = 1
            now = time.time_ns() // 1_000_000
            await parts.items.put([(msgspec.structs.replace(item, version=(now, now, 0)), vector)])

    asyncio.run(edit())
    report = verify(copy)
    assert report.stale
    assert report.exact
    assert all(one.stale for one in report.findings)


def test_records_behind_the_positions_may_be_there_or_not(played, copy):
    """After a crash between the profiles and their position, what is there is right; and so it is when all of it is."""
    stage = played.stage
    outputs = list(deeds(stage, 100, random.Random(8), first=50_000))
    stage.send(outputs)
    report = verify(copy)
    assert report.exact
    assert report.in_flight == len(outputs)
    reader = Reader(Identity(copy.id_key.get_secret_value()), copy.profile)
    sent = {(one.value, one.key) for one in outputs}
    signals = []
    for record in stage.read(Topic.CLICKS):
        if (record.value, record.key) in sent:
            with contextlib.suppress(Unusable):
                signals.append(reader.click(record))

    async def apply(some):
        changed = 0
        async with opened(copy) as parts:
            for user, signal in some:
                profile = (await parts.profiles.load([user]))[user]
                state = profile.state.adding([signal], parts.limits)
                changed += state.signals != profile.state.signals
                await parts.profiles.write([msgspec.structs.replace(profile, state=state)])
        return changed

    for part in (signals[::2], signals[1::2]):
        assert asyncio.run(apply(part))
        report = verify(copy)
        assert kinds(report) == {}
        assert report.in_flight == len(outputs)


def cover_all(settings, stage):
    """Lets the store say that it covers the whole log."""

    async def save():
        async with opened(settings) as parts:
            positions, ends = positions_in(parts, settings), stage.ends([Topic.CLICKS])
            stored = await positions.load(ends)
            await positions.save(
                {source: msgspec.structs.replace(stored[source], next_offset=end) for source, end in ends.items()}
            )

    asyncio.run(save())


def test_a_lost_user_is_found(played, copy):
    """Someone of whom the store knows nothing, though it says that it covers their events."""
    stage = played.stage
    click = Click(event_id="only", user_id="nobody", item_id="i1")
    stage.send([Output(topic=stage.topic(Topic.CLICKS), key=b"nobody", value=encode(click))])
    assert verify(copy).exact
    cover_all(copy, stage)
    report = verify(copy)
    assert report.lost_users == 1
    one = next(one for one in report.findings if one.user == "nobody")
    assert [(finding.kind, finding.event_id) for finding in one.signals] == [(Kind.LOST, "only")]
    assert verify(copy, users=["nobody"]).lost == 1
    assert verify(copy, users=["u2"]).users == 1
    assert verify(copy, sample=5).users == 5


def test_what_cannot_be_compared_is_refused(copy, tmp_path):
    """A user nobody knows, a snapshot or a store that is not there, one without profiles: words, and no verdict."""
    with pytest.raises(PenchantError, match="knows these users"):
        verify(copy, users=["stranger"])
    with pytest.raises(ConfigurationError, match="no snapshot's folder"):
        verify(copy, baseline=str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="There is no store"):
        verify(copy.model_copy(update={"data_dir": tmp_path / "elsewhere"}))
    assert not (tmp_path / "elsewhere").exists()
    (copy.data_dir / "store" / f"{copy.namespace}.profiles").rename(tmp_path / "profiles")
    with pytest.raises(ConfigurationError, match="There is no collection"):
        verify(copy)


def test_the_commands(copy, tmp_path):
    """Exit code 0 and 1, one JSON value, a table for a person, and a snapshot that is not written over."""
    exact = run(copy, "verify", "--json", "--user", "u1")
    assert exact.exit_code == 0, exact.output
    found = json.loads(exact.stdout)
    assert (found["exact"], found["users"], found["findings"]) == (True, 1, [])
    assert run(copy, "snapshot", tmp_path / "made").exit_code == 0
    again = run(copy, "snapshot", tmp_path / "made")
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    assert run(copy, "verify", "--user", "u1", "--from", tmp_path / "made").exit_code == 0
    spoil(copy, "u1", with_strong(lambda strong: strong[1:]))
    wrong = run(copy, "verify", "--json")
    assert wrong.exit_code == 1
    (one,) = json.loads(wrong.stdout)["findings"]
    assert one["user"] == "u1"
    assert one["signals"][0]["expected"]["action"]
    shown = run(copy, "verify")
    assert shown.exit_code == 1
    assert "not exact" in shown.stdout
    assert "u1" in shown.stdout
    assert run(copy, "verify", "--user", "u1", "--sample", 2).exit_code == 2


def test_a_snapshot_restored_catches_up(played, tmp_path):
    """A worker on a snapshot taken under a running worker applies what came since, and the result is exact."""
    settings = played.copied(tmp_path, played.snapshot)
    before = verify(settings)
    assert before.exact
    assert before.in_flight
    stage = played.stage.with_settings()
    stage.settings = settings
    with stage.worker("interest") as worker:
        worker.await_ready()
        worker.await_that(lambda: not verify(beside(worker)).in_flight, "the store covers the log", pause_s=0.5)
        assert worker.stop() == 0
    report = verify(settings)
    assert report.exact
    assert report.users == len({click.user_id for click in clicks(stage)})


# What is left to say where retention has removed records. Last of all, for it cannot be undone.


@pytest.fixture(scope="module")
def torn(played, tmp_path_factory):
    """Settings for a copy of the store; the log begins where the snapshot ends."""
    settings = played.copied(tmp_path_factory.mktemp("torn"))
    delete(played.stage, covered(played, tmp_path_factory.mktemp("covered")))
    return settings


def covered(played, folder):
    """The positions of the snapshot in the topic of clicks."""
    settings = played.copied(folder, played.snapshot)

    async def load():
        async with opened(settings) as parts:
            found = await positions_in(parts, settings).load(played.stage.ends([Topic.CLICKS]))
            return {source: position.next_offset for source, position in found.items()}

    return asyncio.run(load())


def delete(stage, offsets):
    """Removes the records before some offsets."""
    asked = stage.admin.delete_records([TopicPartition(*source, offset) for source, offset in offsets.items()])
    for done in asked.values():
        done.result(30)


def alter(settings, stage, *, logged):
    """Alters a strong signal of a click that the log has, or has no longer; gives the event's id."""
    known = {(click.user_id, click.event_id) for click in clicks(stage) if not is_weak(click.action)}

    async def choose():
        async with opened(settings) as parts:
            return [
                (profile.user, signal.event_id)
                async for profile in parts.profiles.all()
                for signal in profile.state.strong
                if signal.action not in {"post", "search"}
            ]

    user, event_id = next(one for one in asyncio.run(choose()) if (one in known) == logged)
    replace = msgspec.structs.replace
    spoil(
        settings,
        user,
        with_strong(
            lambda strong: [replace(one, weight=one.weight + (one.event_id == event_id)) for one in strong],
        ),
    )
    return event_id


def test_what_the_log_no_longer_has_is_taken_as_it_is(torn, played, tmp_path):
    """Older signals are counted and believed; newer ones are checked as ever."""
    report = verify(torn)
    assert report.exact
    assert report.before_log
    assert report.before_log < report.signals
    settings = played.copied(tmp_path)
    alter(settings, played.stage, logged=False)
    assert kinds(verify(settings)) == {}
    event_id = alter(settings, played.stage, logged=True)
    report = verify(settings)
    assert kinds(report) == {"altered": 1}
    assert event_id in {finding.event_id for one in report.findings for finding in one.signals}


def test_a_snapshot_stands_in_for_what_is_gone(torn, played, tmp_path):
    """From a snapshot on everything is checked again: a signal altered before the log begins is found."""
    before = files(played.snapshot)
    report = verify(torn, baseline=str(played.snapshot))
    assert report.exact
    assert report.before_log == 0
    settings = played.copied(tmp_path)
    event_id = alter(settings, played.stage, logged=False)
    report = verify(settings, baseline=str(played.snapshot))
    assert kinds(report) == {"altered": 1}
    (finding,) = only(report).signals
    assert finding.event_id == event_id
    assert files(played.snapshot) == before


def test_a_gap_between_snapshot_and_log_is_said(torn, played, tmp_path):
    """Where the log begins after the snapshot ends, there is no verdict; nor where the snapshot is the newer."""
    with pytest.raises(ConfigurationError, match="newer than the store"):
        verify(
            played.copied(tmp_path / "older", played.snapshot),
            baseline=str(torn.data_dir / "store"),
        )
    ends = played.stage.ends([Topic.CLICKS])
    delete(played.stage, {source: end - 1 for source, end in ends.items()})
    with pytest.raises(ConfigurationError, match="There is a gap"):
        verify(torn, baseline=str(played.snapshot))
