"""The knowledge graph, from facts on a topic to the part that it has in a recommendation."""

import json
from functools import partial
from uuid import uuid4

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from penchant.cli import app
from penchant.parts import build_parts
from penchant.profile.fusion import GRAPH
from penchant.streams.codec import encode
from penchant.streams.events import Click, Item, Triple
from penchant.streams.knowledge import triple_key
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from tests.stage import Stage

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

FILMS = {f"{kind}-{number}": kind for kind in ("western", "musical") for number in range(8)}
LATE = "western-late"
FRESH = {"item_cache_s": 0.01}
EVERYTHING = {"count": 20}  # so that whatever has content is on a list


def facts():
    """Films have a genre, and people who work on films of one genre."""
    for film, kind in FILMS.items():
        yield Triple(head=film, relation="genre", tail=kind)
        number = int(film.rpartition("-")[2])
        for step in (0, 1, 3):
            yield Triple(head=film, relation="with", tail=f"{kind}-player-{(number + step) % 8}")


def triple(stage, fact):
    """A fact's record."""
    return Output(topic=stage.topic(Topic.TRIPLES), key=triple_key(fact), value=encode(fact))


def item(stage, film):
    """A film's record: its title tells nothing of its genre."""
    event = Item(item_id=f"item-{film}", title=f"no. {sum(film.encode())}", entity=film)
    return Output(topic=stage.topic(Topic.ITEMS), key=event.item_id.encode(), value=encode(event))


def like(stage, number):
    """Ada likes a western."""
    event = Click(event_id=f"e{number}", user_id="ada", item_id=f"item-western-{number}", action="like")
    return Output(topic=stage.topic(Topic.CLICKS), key=b"ada", value=encode(event))


def penchant(stage, *arguments):
    """Runs a command on the stage's namespace; gives the JSON that it prints."""
    known = ["--namespace", stage.settings.namespace, "--bootstrap-servers", stage.settings.kafka.bootstrap_servers]
    result = CliRunner().invoke(app, [*known, "graph", *map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def facts_kept(worker):
    """How many records of facts a worker has kept."""
    return worker.metric("penchant_records_total", lane="knowledge")


def test_facts_become_a_part_of_recommendations(kafka, make_stage, tmp_path):
    """Trained on the topic and published beside a running worker: items have their place, lists a part for the graph.

    An item that comes later with facts alone is placed by its neighbours; a second training replaces the first.
    """
    with make_stage(kafka, profile=FRESH, worker={"sweep_interval_s": 0.2}, recommend=EVERYTHING) as stage:
        stage.send(triple(stage, fact) for fact in facts())
        stage.send(item(stage, film) for film in FILMS)
        trained = penchant(stage, "train", "topic", "--output", tmp_path / "one", "--dimension", 8, "--epochs", 6)
        assert trained["facts"]["train"] > 40
        assert 0 < trained["test"]["mrr"] <= 1
        penchant(stage, "train", "topic", "--output", tmp_path / "two", "--dimension", 16, "--seed", 1)
        with stage.worker() as worker:
            worker.await_ready()
            worker.await_that(lambda: facts_kept(worker) >= len(list(facts())), "all facts are kept")
            first = penchant(stage, "publish", tmp_path / "one")
            assert first["taken_back"] == 0
            stage.send([triple(stage, Triple(head=LATE, relation="genre", tail="western")), item(stage, LATE)])
            stage.send([like(stage, 0)])
            stage.await_settled(worker)
            in_place = partial(all_placed, stage, worker, tmp_path)
            worker.await_that(lambda: in_place(first["model"]), "all are placed", pause_s=0.5)
            stage.send([like(stage, 1)])
            stage.await_settled(worker)
            listed = stage.lists()["ada"].items
            assert any(name.startswith(f"{GRAPH}_") and part for one in listed for name, part in one.parts.items())
            second = penchant(stage, "publish", tmp_path / "two")
            assert second["model"] != first["model"]
            worker.await_that(lambda: in_place(second["model"]), "all are placed anew", pause_s=0.5)
            found = held(stage, worker, tmp_path)
            assert worker.stop() == 0
        space = build_parts(stage.settings).space
        slices = {name: space.split(vector)[GRAPH] for name, vector in found.vectors.items()}
        assert agreement(slices, "western", "western") > agreement(slices, "western", "musical") + 0.2


def held(stage, worker, folder):
    """What the store of a running worker holds of the films, from a copy."""
    place = folder / f"copy-{uuid4().hex}"
    place.mkdir()
    address = f"http://127.0.0.1:{worker.port}/snapshot"
    answer = httpx.post(address, json={"folder": str(place / "store")}, timeout=30, trust_env=False)
    assert answer.status_code == httpx.codes.OK, answer.text
    copy = Stage(stage.settings.model_copy(update={"data_dir": place}), place)
    return copy.snapshot([f"item-{film}" for film in (*FILMS, LATE)])


def all_placed(stage, worker, folder, model):
    """Whether every film has its place by a model, the late one by its neighbours."""
    items = held(stage, worker, folder).items
    marks = {name: one.placed for name, one in items.items() if one.placed is not None and one.placed.model}
    assert len({mark.model for mark in marks.values()}) <= 1, "places of two models"
    own = {f"item-{film}" for film in FILMS}
    return marks.keys() == {*own, f"item-{LATE}"} and all(
        (mark.model, mark.mean) == (model, name not in own) for name, mark in marks.items()
    )


def agreement(slices, kind, other):
    """The mean cosine of films of one genre with those of another, each film with itself left out."""
    rows = [vector for name, vector in slices.items() if kind in name]
    others = [vector for name, vector in slices.items() if other in name]
    return float(np.mean([left @ right for left in rows for right in others if left is not right]))
