"""What a verification finds of a store and its log: exact where it is, whatever is under way, and no flaw unseen.

Each test spoils a copy of what a worker left behind, or takes it back to a snapshot, and the verification must say
just that.
"""

import asyncio
import contextlib
import json
import random
import time

import msgspec
import numpy as np
import pytest

from penchant.errors import ConfigurationError, PenchantError
from penchant.profile.affinity import Transition
from penchant.profile.identity import Identity
from penchant.streams.codec import Unusable, encode
from penchant.streams.events import Click
from penchant.streams.interpret import Reader
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from penchant.verify import Kind, verify
from penchant.verify.held import facts_of
from tests.verify.rig import (
    ITEMS,
    STRONG,
    USERS,
    WEAK,
    beside,
    clicks,
    deeds,
    files,
    kinds,
    only,
    opened,
    positions_in,
    run,
    spoil,
    with_strong,
)


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
