"""penchant as it serves: the parts of a worker play a stream, and what they list is what is judged."""

import numpy as np
import pytest

from penchant.evaluation.protocol import Rules, choose_probes, evaluate
from penchant.evaluation.served import AS_ASKED, AS_PUBLISHED, Served
from penchant.profile.ranking.whitening import Calibration
from penchant.settings import load_settings

RULES = Rules(probes=0, min_events=1, half="first")


@pytest.fixture
def make(at_end):
    """Makes one for a stream, whose items' contents know nothing."""

    def build(stream, rules=RULES, **settings):
        vectors = np.random.default_rng(0).normal(size=(len(stream.items), 8)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        made = Served(
            stream, {"text": vectors}, Calibration(), load_settings(**settings), choose_probes(stream, rules).index
        )
        at_end.callback(made.close)
        return made

    return build


def test_it_learns_from_the_stream(crowd, make):
    """Of two crowds' tastes lists follow the user's: what is liked stands on them far more often than by chance."""
    outcome = evaluate(crowd, [make(crowd)], RULES)
    assert outcome.names == (AS_PUBLISHED, AS_ASKED)
    late = slice(len(outcome.candidates) // 2, None)
    hits = (outcome.ranks[:, late] <= 5).mean(axis=1)
    by_chance = (5 / outcome.candidates[late]).mean()
    assert (hits > 1.4 * by_chance).all()


def test_a_list_holds_nothing_met_and_is_as_long_as_it_can_be(crowd, make, make_event):
    """Ten items, each with a place of its own; none that the user has met."""
    served = make(crowd)
    seen = set()
    for index in range(300):
        event = make_event(crowd, index)
        if event.user == 0:
            unseen = np.array([code for code in range(len(crowd.items)) if code not in seen])
            scores = served.scores(event, unseen)
            asked = np.sort(scores[1])[::-1]
            assert asked[:10].tolist() == list(range(min(10, len(unseen)), 0, -1)) + [0] * (10 - min(10, len(unseen)))
            seen.add(event.item)
        served.learn(event)
    assert len(seen) > 5


def test_what_is_published_is_made_before_and_what_is_asked_for_now(make_stream, make):
    """What others like meanwhile is not on the list as published, and is on the one that is asked for."""
    rows = [(0, "ada", "a", True), (1, "ada", "b", True)]
    rows += [(2 + n / 100, f"user-{n}", "hit", True) for n in range(60)]
    rows += [(200, "ada", "hit", True)]
    stream = make_stream([*rows, *((300, f"user-{n}", "b", True) for n in range(70))], more=120)
    outcome = evaluate(stream, [make(stream)], RULES)
    published, asked = outcome.ranks[:, -1]
    assert published > 10 >= asked
