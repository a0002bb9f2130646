"""`penchant weights`: what is in force beside what was learned, and learning begun anew."""

import json
import time

from msgspec import structs

from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Learned, Weights
from penchant.streams.events import Reset
from penchant.streams.topics import Topic
from penchant.streams.weights import told
from tests.cli.rig import ok, produce, values


def test_weights_are_shown_and_reset(here, settings):
    """Every feature with where it started; then with what was learned, beside the pins; and a request to begin anew."""
    before = json.loads(ok(here("weights", "--json")))
    assert (before["examples"], before["as_of"], before["learning"]) == (0, None, True)
    names = [one["feature"] for one in before["features"]]
    assert {"text_long", "transitions", "age"} <= set(names)
    assert "nothing was learned yet" in ok(here("weights"))
    prior = prior_weights(names)
    learned = Learned.nothing(Weights.of({"age": 0.75}, {"age": -0.25}, names)).among(prior)
    topic = settings.prefixed(Topic.WEIGHTS)
    taught = structs.replace(learned, examples=12_345)
    now = round(time.time() * 1_000)
    produce(settings, [told(taught, as_of=now - 7_200_000, topic_id="", next_offset=1, topic=topic)])
    after = {one["feature"]: one for one in json.loads(ok(here("weights", "--json")))["features"]}
    base, returning = (dict(zip(names, one.tolist(), strict=True)) for one in (prior.base, prior.returning))
    assert after["age"]["base"] == {"prior": base["age"], "learned": 0.75, "in_force": 0.75, "pinned": False}
    of_returning = {"prior": returning["age"], "learned": -0.25, "in_force": -0.25, "pinned": False}
    assert after["age"]["returning"] == of_returning
    table = ok(here("weights"))
    assert "learned from 12,345 examples, the newest 2 h ago" in table
    assert "+0.750" in table
    assert "begins anew" in ok(here("weights", "reset"))
    assert values(settings, Topic.EXAMPLES, Reset) == [Reset()]


def test_a_pin_is_shown_beside_what_was_learned(here, monkeypatch):
    """It is what counts, whatever was learned; and where nothing learned is in force, that is said."""
    monkeypatch.setenv("PENCHANT_RECOMMEND__WEIGHTS", '{"age": -2}')
    monkeypatch.setenv("PENCHANT_RECOMMEND__LEARN", "false")
    [age] = [one for one in json.loads(ok(here("weights", "--json")))["features"] if one["feature"] == "age"]
    assert (age["base"]["learned"], age["base"]["in_force"], age["base"]["pinned"]) == (None, -2.0, True)
    assert "not in force here" in ok(here("weights"))
