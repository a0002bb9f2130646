"""What is left to say of a store where retention has removed records of its log."""

import asyncio

import msgspec
import pytest
from confluent_kafka import TopicPartition

from penchant.errors import ConfigurationError
from penchant.streams.topics import Topic
from penchant.verify import verify
from penchant.verify.expected import is_weak
from tests.verify.rig import clicks, files, kinds, only, opened, positions_in, spoil, with_strong


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
    """Where the log begins after the snapshot ends, there is no verdict; nor where the snapshot is the newer.

    Last of all: what it removes is gone for the others.
    """
    with pytest.raises(ConfigurationError, match="newer than the store"):
        verify(
            played.copied(tmp_path / "older", played.snapshot),
            baseline=str(torn.data_dir / "store"),
        )
    ends = played.stage.ends([Topic.CLICKS])
    delete(played.stage, {source: end - 1 for source, end in ends.items()})
    with pytest.raises(ConfigurationError, match="There is a gap"):
        verify(torn, baseline=str(played.snapshot))
