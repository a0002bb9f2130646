"""What a worker measures of its lists while it works is what evaluation says of the same stream afterwards."""

import contextlib
import random
import time

import numpy as np
import pytest

from penchant.evaluation.features import text_vectors
from penchant.evaluation.protocol import Rules, evaluate
from penchant.evaluation.roster import Material, served
from penchant.evaluation.served import AS_PUBLISHED
from penchant.evaluation.topics import read_topics
from penchant.streams.codec import encode
from penchant.streams.events import Action, Click, Item
from penchant.streams.records import Output
from penchant.streams.topics import Topic

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

HOUR_MS = 3_600_000
SUBJECTS = "trains", "tea", "volcanoes", "chess", "whales", "jazz", "bread", "glaciers", "bees", "castles"
KINDS = "A history of {}", "A photographer's guide to {}", "{} for beginners", "Songs about {}"
CATALOGUE = {f"{subject}-{number}": kind.format(subject) for subject in SUBJECTS for number, kind in enumerate(KINDS)}
USERS = "ada", "bob", "cyd", "dee"
EVENTS = 120
MEASURES = "likes", "likes_listed", "likes_reciprocal_ranks"
# Every event makes a list, all items are candidates of every list, and none of a list's places is for trying things.
SECTIONS = {"recommend": {"interval_s": 0, "candidates": 100, "learn": False, "exploration": 0}}


@pytest.fixture(scope="module")
def played(kafka, make_stage):
    """A stage on which users liked and disliked things, some after hours away, and what its worker has measured."""
    with make_stage(kafka, **SECTIONS) as stage:
        stage.send(
            Output(topic=stage.topic(Topic.ITEMS), key=name.encode(), value=encode(Item(item_id=name, text=text)))
            for name, text in CATALOGUE.items()
        )
        with stage.worker() as worker:
            stage.await_settled(worker)
            for moment, click in clicks():
                due = [had + more for had, more in zip(progress(worker), (1, click.action is Action.LIKE), strict=True)]
                output = Output(topic=stage.topic(Topic.CLICKS), key=click.user_id.encode(), value=encode(click))
                stage.send([output], timestamps=[moment])
                worker.await_that(lambda: progress(worker) == due, "its list, and its row", pause_s=0.01)  # noqa: B023  called within this turn
            measured = {
                after: tuple(worker.metric(f"penchant_{name}_total", after=after) for name in MEASURES)
                for after in ("sitting", "absence")
            }
        yield stage, measured


def progress(worker):
    """Lists published, and transitions in the rows."""
    lanes = {"penchant_lists_total": "interest", "penchant_records_total": "affinity"}
    return [worker.metric(name, lane=lane) for name, lane in lanes.items()]


def clicks():
    """Records with their times: users of a taste, who like what they have not met and dislike some; in time order."""
    chance = random.Random(5)
    met = {user: set() for user in USERS}
    moment = int(time.time() * 1_000) - 5 * 24 * HOUR_MS
    for number in range(EVENTS):
        user = chance.choice(USERS)
        moment += chance.choice([40_000, 90_000, 20 * 60_000, 3 * HOUR_MS])
        fond_of = SUBJECTS[USERS.index(user) :: 3]
        item = chance.choice([name for name in CATALOGUE if name not in met[user] and name.split("-")[0] in fond_of]
                             or [name for name in CATALOGUE if name not in met[user]])  # fmt: skip
        met[user].add(item)
        action = Action.LIKE if chance.random() < 0.7 else Action.DISLIKE
        yield moment, Click(event_id=f"e{number}", user_id=user, item_id=item, action=action, at=moment)


def test_live_metrics_are_those_of_the_evaluation(played, measured):
    """Likes judged, hits and reciprocal ranks, in sittings and after an absence."""
    stage, live = played
    stream = read_topics(stage.settings)
    vectors = text_vectors(stream.texts, stage.settings.data_dir / "evaluation", stage.settings.encoders)
    offline = {"sitting": np.zeros(3), "absence": np.zeros(3)}
    for half in ("first", "last"):
        rules = Rules(probes=0, min_events=1, half=half)
        with contextlib.ExitStack() as at_end:
            given = Material(stream=stream, vectors=vectors, rules=rules, settings=stage.settings, at_end=at_end)
            outcome = evaluate(stream, [served(given)], rules)
        ranks = outcome.ranks[outcome.names.index(AS_PUBLISHED)].astype(float)
        shares = np.where(ranks <= 10, 1 / ranks, 0)
        for after, scope in (("sitting", ~outcome.probes.absent), ("absence", outcome.probes.absent)):
            offline[after] += scope.sum(), (shares[scope] > 0).sum(), shares[scope].sum()
    assert sum(likes for likes, *_ in live.values()) > EVENTS / 2
    for after, figures in live.items():
        likes, hits, reciprocal_ranks = figures
        assert likes > hits > reciprocal_ranks > 0
        assert figures == pytest.approx(tuple(offline[after].tolist()), abs=1e-9), after
    measured(
        "live metrics and evaluation agree: "
        + ", ".join(f"{after} {hits:g} hits of {likes:g} likes" for after, (likes, hits, _) in live.items())
    )
