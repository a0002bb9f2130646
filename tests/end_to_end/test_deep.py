"""Deep fusion, from likes on the topics to lists that are ranked by what was learned from them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.deep.mode import deep_mode
from penchant.parts import worker_space
from penchant.profile.ranking.fused import Liked
from penchant.profile.ranking.whitening import Calibration
from penchant.streams.codec import encode
from penchant.streams.events import Click, Item
from penchant.streams.records import Output
from penchant.streams.topics import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

ITEMS = [f"{kind}-{number}" for kind in ("western", "musical") for number in range(10)]
USERS = [f"user-{number}" for number in range(12)]
START_MS = 1_700_000_000_000


def item(stage, name):
    """An item's record."""
    event = Item(item_id=name, title=f"{name.split('-')[0]} number {name.split('-')[1]}")
    return Output(topic=stage.topic(Topic.ITEMS), key=name.encode(), value=encode(event))


def like(stage, user, name, step):
    """A like's record."""
    event = Click(event_id=f"{user}-{name}", user_id=user, item_id=name, action="like", at=START_MS + step * 60_000)
    return Output(topic=stage.topic(Topic.CLICKS), key=user.encode(), value=encode(event))


def likes(stage):
    """Each user likes six items of one kind."""
    random = np.random.default_rng(0)
    for number, user in enumerate(USERS):
        kind = ITEMS[:10] if number % 2 else ITEMS[10:]
        for step, name in enumerate(random.permutation(kind)[:6].tolist()):
            yield like(stage, user, name, step)


def test_a_model_of_the_topics_ranks_lists(kafka, make_stage, tmp_path):
    """Trained by the vectors of a store that a worker has; after a restart scores are the model's, to the last item."""
    with make_stage(kafka, recommend={"count": 20, "relevance": 1.0}) as stage:
        stage.send(item(stage, name) for name in ITEMS)
        out = tmp_path / "deep.safetensors"
        with stage.worker() as worker:
            stage.await_settled(worker)
            stage.send(likes(stage))
            stage.await_settled(worker)
            settings = tmp_path / "penchant.toml"
            settings.write_text(f"[worker]\nhttp_port = {worker.port}\n")
            told = CliRunner().invoke(
                app,
                [
                    *("--config", str(settings), "--data-dir", str(stage.settings.data_dir)),
                    *("--namespace", stage.settings.namespace),
                    *("--bootstrap-servers", stage.settings.kafka.bootstrap_servers),
                    *("deep", "train", "topics", "--out", str(out), "--json"),
                ],
            )
            assert told.exit_code == 0, told.output
            assert worker.stop() == 0
        found = json.loads(told.stdout)
        assert found["events"] == 72
        assert found["slices"] == {"text": 384}  # no item has anything else
        assert all(one.parts.keys() != {"content"} for one in stage.lists()["user-0"].items)
        deep = stage.with_settings(fusion={"mode": "deep", "deep_model": str(out)})
        with deep.worker() as worker:
            deep.send([like(deep, "user-0", "western-0", 7)])
            deep.await_settled(worker)
            assert worker.stop() == 0
        listing = deep.lists()["user-0"]
        listed = listing.items
        held = deep.snapshot(ITEMS)
        past = held.profiles["user-0"].state.strong  # newest first; all of them are likes
        assert {one.item_id for one in listed} == set(ITEMS) - {signal.item_id for signal in past}
        space = worker_space(deep.settings)
        mode = deep_mode(out, space)
        contents = Calibration().split(space, np.stack([held.vectors[name] for name in ITEMS]))
        fused = mode.fused(contents)
        liked = Liked(
            rows=np.array([ITEMS.index(signal.item_id) for signal in past]),
            ages_ms=np.array([listing.timings.recorded - signal.time for signal in past]),
        )
        expected = dict(zip(ITEMS, mode.scores(liked, fused, fused).tolist(), strict=True))
        for one in listed:
            assert one.parts == {"content": one.score}
            assert one.score == pytest.approx(expected[one.item_id], abs=1e-4)
            assert one.because == ()
        scores = [one.score for one in listed]
        assert scores == sorted(scores, reverse=True)
