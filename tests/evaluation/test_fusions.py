"""Ways of fusing as contestants: the modes that a worker ranks by, over a whole catalogue."""

import numpy as np
import pytest

from penchant.encoders.base import unit_rows
from penchant.evaluation.fusions import Fusions, line_of
from penchant.evaluation.protocol import Rules, evaluate
from penchant.profile.ranking.fused import MODES, Liked, mode_of
from penchant.profile.ranking.whitening import calibrate

SHARES = {"text": 0.5, "image": 0.3, "audio": 0.2, "graph": 0.4}


@pytest.fixture
def slices(crowd):
    """Contents that know the crowds' tastes; one item has none."""
    random = np.random.default_rng(0)
    made = {name: random.normal(size=(len(crowd.items), size)) for name, size in {"text": 8, "graph": 4}.items()}
    made["text"][:15, 0] += 3
    made["text"][15:30, 0] -= 3
    found = {name: unit_rows(vectors) for name, vectors in made.items()}
    for vectors in found.values():
        vectors[4] = 0
    return found


def test_each_mode_scores_what_was_liked_so_far_as_a_worker_does(crowd, slices, make_event):
    """Positive events on items with content, newest first."""
    calibration = calibrate(slices)
    one = Fusions(len(crowd.users), slices, calibration, SHARES)
    assert one.names == tuple(line_of(mode) for mode in MODES)
    for index in range(700):
        one.learn(make_event(crowd, index))
    event, unseen = make_event(crowd, 700), np.arange(3, 30)
    past = [
        index
        for index in range(699, -1, -1)
        if crowd.user[index] == event.user and crowd.positive[index] and crowd.item[index] != 4
    ]
    liked = Liked(rows=crowd.item[past].astype(np.int64), ages_ms=event.time - crowd.time[past])
    for mode, scores in zip(MODES, one.scores(event, unseen), strict=True):
        made = mode_of(mode, calibration, SHARES)
        known, targets = made.fused(slices), made.fused({name: vectors[unseen] for name, vectors in slices.items()})
        assert scores == pytest.approx(made.scores(liked, known, targets), abs=1e-5), mode


def test_modes_find_out_which_taste_is_the_users(crowd, slices):
    """Each that looks at what tells it: for M of projections, nothing is promised."""
    outcome = evaluate(crowd, [Fusions(len(crowd.users), slices, calibrate(slices), SHARES)], Rules(min_events=1))
    for name, negatives in zip(outcome.names, outcome.negatives, strict=True):
        assert negatives.mean() < 0.45 or name == "preset M", name
