"""Weights learned from the stream: they move towards what is liked, and a running worker's lists follow."""

import random
import time

import msgspec
import pytest

from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Learner
from penchant.streams.codec import encode
from penchant.streams.events import Click, ClickAction, Example, Item
from penchant.streams.examples import Seen, lesson_in
from penchant.streams.records import Output
from penchant.streams.topics import Topic
from penchant.streams.weights import WeightsView, last_learned, reset_request

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

DAY_MS = 24 * 3_600_000
NOW = int(time.time() * 1_000)
SUBJECTS = "trains", "tea", "volcanoes", "chess", "whales", "jazz", "bread", "glaciers", "bees", "castles"
KINDS = "A history of {}", "A photographer's guide to {}", "{} for beginners", "Songs about {}"
# By name: a text, and how many days old it is.
CATALOGUE = {
    f"{subject}-{number}": (kind.format(subject), (7 * place + 97 * number) % 400)
    for place, subject in enumerate(SUBJECTS)
    for number, kind in enumerate(KINDS)
}
USERS = [f"user-{number}" for number in range(30)]
ROUNDS = 3
# All items are candidates of every list, and none of a list's places is for trying things.
SECTIONS = {"recommend": {"interval_s": 0, "candidates": 100, "exploration": 0}}


def click(stage, user, item, action=ClickAction.VIEW):
    """A record of somebody's click."""
    event = Click(event_id=f"{user} {item}", user_id=user, item_id=item, action=action)
    return Output(topic=stage.topic(Topic.CLICKS), key=user.encode(), value=encode(event))


def item(stage, name, text, days):
    """A record of an item, as old as it is."""
    event = Item(item_id=name, text=text, at=NOW - days * DAY_MS)
    return Output(topic=stage.topic(Topic.ITEMS), key=name.encode(), value=encode(event))


def age_listed(worker):
    """The mean age of what a running worker would recommend to somebody who has met one item, days."""
    items = [one["item_id"] for one in worker.get("/recommendations/asker").json()["items"]]
    return sum(CATALOGUE[name][1] for name in items) / len(items)


def age_weight(worker):
    """What the age of an item counts in a running worker."""
    view = msgspec.json.decode(worker.get("/weights").content, type=WeightsView)
    [age] = [one for one in view.features if one.feature == "age"]
    return age.base.in_force


@pytest.fixture(scope="module")
def taught(kafka, make_stage):
    """Users who like old things, whatever they are about; a worker that was told, and then asked to forget it."""
    with make_stage(kafka, **SECTIONS) as stage:
        stage.send(item(stage, name, text, days) for name, (text, days) in CATALOGUE.items())
        with stage.worker() as worker:
            stage.await_settled(worker)
            stage.send(click(stage, user, "tea-0") for user in (*USERS, "asker"))
            stage.await_settled(worker)
            before = age_weight(worker), age_listed(worker)
            chance = random.Random(1)
            met = {user: {"tea-0"} for user in USERS}
            for _ in range(ROUNDS):
                likes = []
                for user in USERS:
                    old = [name for name in CATALOGUE if name not in met[user] and CATALOGUE[name][1] > 200]
                    liked = chance.choice(old)
                    met[user].add(liked)
                    likes.append(click(stage, user, liked, ClickAction.LIKE))
                stage.send(likes)
                stage.await_settled(worker)
            learned = last_learned(stage.settings)
            worker.await_that(
                lambda: worker.metric("penchant_weights_as_of_seconds") == learned.as_of / 1_000, "weights"
            )
            after = age_weight(worker), age_listed(worker)
            stage.send([reset_request(stage.settings)])
            stage.await_settled(worker)
            worker.await_that(lambda: worker.metric("penchant_weights_as_of_seconds") == 0, "weights")
            anew = age_weight(worker)
            assert worker.stop() == 0
        yield stage, before, after, anew, learned


def test_weights_move_towards_what_is_liked_and_lists_follow(taught, measured):
    """Of a worker that runs on: what is old counts for more, and who is asked for gets older things."""
    _, (weight, listed), (weight_after, listed_after), _, _ = taught
    measured(
        f"weight of age {weight:.2f} -> {weight_after:.2f}, mean age listed {listed:.0f} -> {listed_after:.0f} days"
    )
    assert weight_after > weight + 0.1
    assert listed_after > listed + 50


def test_every_first_like_after_a_list_is_an_example(taught):
    """One for each user and round, each among the candidates of the list before, and nobody is named."""
    stage, *_ = taught
    records = stage.read(Topic.EXAMPLES)
    assert len(records) == ROUNDS * len(USERS) + 1
    assert {record.key for record in records} == {None}
    everything = b"".join(record.value for record in records)
    assert not any(name.encode() in everything for name in (*USERS, *CATALOGUE))


def test_what_was_learned_is_one_pass_over_the_topic(taught):
    """Bit for bit, by a learner that reads the examples for itself."""
    stage, _, _, _, learned = taught
    learner = Learner(prior_weights(learned.names))
    for record in stage.read(Topic.EXAMPLES):
        lesson = lesson_in(record, learned.names)
        if isinstance(lesson, Seen):
            learner.learn(lesson.features, lesson.absence_ms)
    assert learned.examples == learner.examples == ROUNDS * len(USERS)
    assert learned.base == tuple(learner.weights.base.tolist())
    assert learned.returning == tuple(learner.weights.returning.tolist())


def test_a_reset_takes_all_workers_back_to_where_they_started(taught):
    """The weights that ranking starts from are in force again, and nothing counts as learned."""
    stage, (weight, _), _, anew, _ = taught
    assert anew == weight
    assert last_learned(stage.settings).examples == 0


def test_pins_hold_in_a_worker_that_follows(taught):
    """Of all that was learned since, the rest is in force."""
    stage, *_ = taught
    pinned = stage.with_settings(recommend={"weights": {"popularity": -0.5}})
    names = last_learned(stage.settings).names
    example = Example(names=names, candidates=2, features=bytes(8 * len(names)), absence_ms=0)
    pinned.send([Output(topic=stage.topic(Topic.EXAMPLES), key=None, value=encode(example))])
    with pinned.worker() as worker:
        pinned.await_settled(worker)
        worker.await_that(lambda: worker.metric("penchant_weights_as_of_seconds") > 0, "weights")
        view = msgspec.json.decode(worker.get("/weights").content, type=WeightsView)
    [popularity] = [one for one in view.features if one.feature == "popularity"]
    assert (popularity.base.pinned, popularity.base.in_force) == (True, -0.5)
    assert view.examples == 1
