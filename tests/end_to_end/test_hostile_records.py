"""Ten thousand records that cannot be used among ten thousand that can: each finds its place, and the worker lives."""

import time
from collections import Counter, defaultdict

import httpx
import pytest

from penchant.profile.identity import Identity
from penchant.streams.dead_letters import DeadLetter
from penchant.streams.topics import Topic
from tests.end_to_end.hostile_corpus import BAD_PARTS_OF, FAULTS, MARK, Scene

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]


def test_what_cannot_be_used_is_kept_and_what_can_be_counts(stage, measured):
    """Each bad record is one dead letter with its bytes, origin and reason; each good one counts; nothing is logged.

    Of a record with one bad medium both are true: it is a dead letter, and the rest of it counts.
    """
    stage = stage.with_settings(encoders={"threads": 1})  # on a busy machine several wait for each other
    now = int(time.time() * 1_000)
    scene = Scene(stage.topic, Identity(stage.settings.id_key.get_secret_value()), now)
    sent = scene.records()
    assert {one.fault for one in sent} == {"", *FAULTS, *BAD_PARTS_OF}

    with stage.worker() as worker:
        worker.await_ready()
        worker.await_that(lambda: "encoders are ready" in worker.log, "the encoders are ready")
        started = time.monotonic()
        places = stage.send((one.output for one in sent), timestamps=(now for _ in sent))
        stage.await_settled(worker)
        seconds = time.monotonic() - started
        # Some clicks came before their item; the sweep sees to them, and their users' lists follow.
        for user in scene.signals:
            worker.await_that(lambda user=user: not worker.profile(user)["waiting_for"], "nobody waits")
        stage.await_settled(worker)
        assert worker.get("/readyz").status_code == httpx.codes.OK
        assert worker.stop() == 0
        log = worker.log

    letters = defaultdict(list)
    for record in stage.read(Topic.DEAD_LETTERS):
        letter = DeadLetter.read(record)
        letters[letter.topic, letter.partition, letter.offset].append(letter)
    expected = {place: one for place, one in zip(places, sent, strict=True) if one.fault}
    assert not {expected[place].fault for place in expected.keys() - letters.keys()}, "not a dead letter"
    assert not letters.keys() - expected.keys(), "good, and a dead letter"
    for place, found in letters.items():
        one = expected[place]
        assert [
            (letter.key, letter.value, dict(letter.headers), letter.timestamp, letter.reason in one.reasons)
            for letter in found
        ] == [(one.output.key, one.output.value, one.output.headers, now, True)], (one.fault, found[0].reason)
        assert found[0].detail
        assert MARK not in found[0].detail

    snapshot = stage.snapshot([*scene.modalities, *scene.unmade])
    assert snapshot.profiles.keys() == scene.signals.keys()
    for user, profile in snapshot.profiles.items():
        for part, signals in zip((profile.state.strong, profile.state.weak), scene.expected(user), strict=True):
            assert [
                (signal.time, signal.event_id, signal.item_id, str(signal.action), signal.weight) for signal in part
            ] == signals
        assert not profile.awaits
    assert {item_id: item.modalities for item_id, item in snapshot.items.items()} == scene.modalities

    assert MARK not in log

    measured(f"hostile records: {len(sent)} in {seconds:.1f} s, {len(sent) / seconds:.0f} records/s")
    reasons = Counter(found[0].reason for found in letters.values())
    measured("dead letters: " + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common()))
