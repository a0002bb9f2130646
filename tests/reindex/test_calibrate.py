"""A new calibration: by whoever has the store, at rest or beside its worker, which ranks by it without a restart."""

import asyncio
import json

import httpx
import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.errors import ConfigurationError
from penchant.parts import build_parts
from penchant.profile.ranking.calibrations import TooFewItems
from penchant.profile.store.base import NoCollection
from penchant.reindex import calibrate
from penchant.settings import load_settings
from penchant.streams.codec import encode
from penchant.streams.events import Item
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.stage import environment

SUBJECTS = ("trains", "tea", "volcanoes", "chess", "whales", "jazz", "bread")
MANY = 80
SECTIONS = {
    "encoders": {"text": {"kind": "hashing", "dimension": 32}},
    "recommend": {"calibrate_at": 70},
    "worker": {"sweep_interval_s": 0.2},
}


def films(stage, count, *, first=0):
    """Sends films."""
    topic = stage.topic(Topic.ITEMS)
    stage.send(
        Output(topic=topic, key=name.encode(), value=encode(Item(item_id=name, title=title)))
        for number in range(first, first + count)
        for name, title in [(f"film-{number}", f"{SUBJECTS[number % 7]} and {SUBJECTS[number % 5]} {number}")]
    )


def in_force(settings):
    """The fingerprint of the calibration in a store that nobody has open."""

    async def read():
        parts = build_parts(settings)
        await parts.open(create=False)
        try:
            return (await parts.calibrations.known()).fingerprint
        finally:
            await parts.store.close()

    return asyncio.run(read())


@pytest.mark.kafka
def test_beside_a_worker_and_at_rest(kafka, make_stage, monkeypatch):
    """The worker makes it of the catalogue as it is, and ranks by it at once; at rest the command does."""
    with make_stage(kafka, **SECTIONS) as stage:
        films(stage, MANY)
        with stage.worker() as worker:
            stage.await_settled(worker, "content")
            worker.await_that(lambda: "centred and whitened" in worker.log, "the first calibration")
            films(stage, MANY, first=MANY)
            stage.await_settled(worker, "content")
            for name, value in environment(stage.settings).items():
                monkeypatch.setenv(name, value)
            monkeypatch.setenv("PENCHANT_WORKER__HTTP_PORT", str(worker.port))
            done = CliRunner().invoke(app, ["calibrate", "--json"])
            assert done.exit_code == 0, done.output
            made = json.loads(done.stdout)
            assert made["items"] == 2 * MANY
            assert made["before"] != made["now"]
            worker.await_that(lambda: made["now"] in worker.log, "the worker ranks by it")
            assert worker.stop() == 0
        assert in_force(stage.settings) == made["now"]
        again = calibrate(stage.settings)
        assert (again.before, again.items) == (made["now"], 2 * MANY)
        assert CliRunner().invoke(app, ["calibrate"]).exit_code == 0


@pytest.mark.kafka
def test_a_worker_of_another_store_is_not_asked_in_vain(kafka, make_stage, tmp_path):
    """A port that leads to another store's worker: nothing is done there."""
    with make_stage(kafka, **SECTIONS) as stage, stage.worker("interest") as worker:
        worker.await_ready()
        request = {"store": str(tmp_path / "store")}
        answer = httpx.post(f"http://127.0.0.1:{worker.port}/calibrate", json=request, trust_env=False)
        assert (answer.status_code, "is not" in answer.json()["error"]) == (409, True)


def test_where_there_is_nothing_to_calibrate_by(tmp_path):
    """No store, or one without a catalogue: said, and nothing is made."""
    settings = load_settings(data_dir=tmp_path)
    with pytest.raises(NoCollection):
        calibrate(settings)
    assert not (tmp_path / "store").exists()

    async def opened():
        parts = build_parts(settings)
        await parts.open()
        await parts.store.close()

    asyncio.run(opened())
    with pytest.raises(TooFewItems, match="0 listed items"):
        calibrate(settings)
    assert not issubclass(TooFewItems, ConfigurationError)
