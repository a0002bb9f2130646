"""One contract for all baselines, and for each what its paper says."""

import math

import msgspec
import numpy as np
import pytest
import scipy.sparse

from penchant.evaluation.baselines.ease import by_items, by_users
from penchant.evaluation.baselines.item_cosine import DAMPING, FADE, ItemCosine
from penchant.evaluation.baselines.popularity import DAY_MS, Popularity
from penchant.evaluation.metrics import ndcg
from penchant.evaluation.protocol import Event, Rules, evaluate
from penchant.evaluation.roster import Material, baselines
from penchant.settings import load_settings

NAMES = [
    ("popularity", "popularity 365 d", "popularity 30 d"),
    ("last item",),
    ("EMA 0.3",),
    ("ISGD",),
    ("item-item cosine",),
    ("ALS every 2,000",),
    ("EASE every 5,000",),
]
# NDCG@10 on the last half of MovieLens small, and of it on return.
KNOWN = {
    "popularity 30 d": (0.022, 0.041),
    "item-item cosine": (0.049, 0.027),
    "EASE every 5,000": (0.052, 0.025),
}


@pytest.fixture(params=NAMES, ids=lambda names: names[0])
def make(request, crowd, monkeypatch, at_end):
    """Makes one of the baselines for `crowd`, refitted as often as so short a stream needs."""
    vectors = np.random.default_rng(0).normal(size=(len(crowd.items), 8)).astype(np.float32)
    vectors[:15, 0] += 3  # the contents know the crowds' tastes
    vectors[15:30, 0] -= 3
    monkeypatch.setattr("penchant.evaluation.baselines.ease.EVERY", 100)
    monkeypatch.setattr("penchant.evaluation.baselines.als.EVERY", 100)

    def build(seed=0):
        given = Material(stream=crowd, vectors=vectors, rules=Rules(seed=seed), settings=load_settings(), at_end=at_end)
        return next(one for one in (maker(given) for maker in baselines()) if matches(one.names, request.param))

    return build


def matches(names, wanted):
    """Whether names are the wanted ones, but for how often is refitted."""
    return [name.split(" every")[0] for name in names] == [name.split(" every")[0] for name in wanted]


def test_scores_are_finite_and_of_the_shape_asked_for(make, crowd, make_event):
    """Before the first event as after many, for all items as for one."""
    one = make()
    for index in range(300):
        event = make_event(crowd, index)
        if index in {0, 1, 7, 150, 299}:
            for unseen in (np.arange(len(crowd.items)), np.array([3])):
                scores = one.scores(event, unseen)
                assert scores.shape == (len(one.names), len(unseen))
                assert scores.dtype == np.float32
                assert np.isfinite(scores).all()
        one.learn(event)


def test_a_column_is_the_score_of_its_item_whatever_else_is_asked(make, crowd, make_event):
    """Leaving items out changes no score."""
    one = make()
    for index in range(250):
        one.learn(make_event(crowd, index))
    every, some = np.arange(len(crowd.items)), np.array([1, 4, 17, 29, 33])
    event = make_event(crowd, 250)
    assert np.array_equal(one.scores(event, every)[:, some], one.scores(event, some))


def test_asking_changes_nothing_and_learning_does(make, crowd, make_event):
    """A model that is asked twice says the same; one that has learned says something else."""
    one = make()
    every, event = np.arange(len(crowd.items)), make_event(crowd, 250)
    before = one.scores(event, every)
    assert np.array_equal(before, one.scores(event, every))
    for index in range(250):
        one.learn(make_event(crowd, index))
    assert not np.array_equal(before, one.scores(event, every))


def test_what_is_not_positive_teaches_nothing(make, crowd, make_event):
    """Rejections are none of a baseline's business, whatever they are of."""
    one, other = make(), make()
    every = np.arange(len(crowd.items))
    for index in range(250):
        event = make_event(crowd, index)
        one.learn(event)
        other.learn(event if event.positive else msgspec.structs.replace(event, item=33))
    event = make_event(crowd, 250)
    scores = one.scores(event, every)
    assert np.array_equal(scores, other.scores(event, every))
    assert scores.any()


def test_the_same_seed_gives_the_same_figures(make, crowd):
    """An evaluation can be repeated."""
    one, same = (evaluate(crowd, [make(seed=3)], Rules(probes=60)) for _ in range(2))
    assert np.array_equal(one.ranks, same.ranks)


def test_it_finds_the_tastes_of_two_crowds(make, crowd):
    """All but popularity tell the crowds apart: their items are above the middle clearly more often than by chance."""
    one = make()
    outcome = evaluate(crowd, [one], Rules(probes=0))
    above = outcome.negatives.mean()
    assert above < (0.5 if "popularity" in one.names else 0.4)


def test_popularity_halves_with_its_half_life():
    """An event one half-life ago counts half, as do all sums behind any number of moves of the landmark."""
    one = Popularity(2, {"30 d": 30.0, "all": math.inf})
    days = [0, 30, 60, 6_000, 6_030]
    for index, day in enumerate(days):
        one.learn(Event(index, 0, index % 2, day * DAY_MS, 1.0, positive=True))
    scores = one.scores(Event(9, 0, 0, 6_030 * DAY_MS, 1.0, positive=True), np.arange(2))
    expected = [sum(0.5 ** ((6_030 - day) / 30) for day in days[item::2]) for item in range(2)]
    assert scores[0] / scores[0].sum() == pytest.approx(np.array(expected) / sum(expected))
    assert scores[1].tolist() == [3, 2]


def test_cosine_is_that_of_the_columns(crowd, make_event):
    """Two passes over the interactions give what the table of all pairs would."""
    one = ItemCosine(len(crowd.users), len(crowd.items))
    matrix, liked = np.zeros((len(crowd.users), len(crowd.items))), []
    user = int(crowd.user[400])
    for index in range(400):
        event = make_event(crowd, index)
        one.learn(event)
        if event.positive:
            if event.user == user and not matrix[user, event.item]:
                liked.append(event.item)
            matrix[event.user, event.item] = 1
    norms = np.sqrt(matrix.sum(0) + DAMPING)
    cosine = matrix.T @ matrix / norms[:, None] / norms
    expected = sum(cosine[:, item] * FADE**age for age, item in enumerate(reversed(liked)))
    assert one.scores(make_event(crowd, 400), np.arange(len(crowd.items)))[0] == pytest.approx(expected, rel=1e-5)


def test_both_ways_to_ease_are_the_definition():
    """The inverse of the users' size and that of the items' size give the scores of Steck's closed form."""
    random = np.random.default_rng(2)
    matrix = (random.random((12, 20)) < 0.3).astype(float)
    matrix[:, 7] = 0  # an item that nobody liked
    sparse = scipy.sparse.csr_array(matrix)
    inverse = np.linalg.inv(matrix.T @ matrix + 5 * np.eye(20))
    weights = -inverse / inverse.diagonal()
    np.fill_diagonal(weights, 0)
    for user in range(12):
        likes = matrix[user].copy()
        likes[7] = 1  # since the fit
        for way in (by_items, by_users):
            scores = way(sparse, 5)(np.flatnonzero(likes).tolist())
            assert scores[likes == 0] == pytest.approx((likes @ weights)[likes == 0], abs=1e-9)


def test_real_figures(real_stream, measured, at_end):
    """On MovieLens small the baselines reach what they are known to reach there, so beating them means something."""
    given = Material(
        stream=real_stream,
        vectors=np.zeros((len(real_stream.items), 1), np.float32),
        rules=Rules(),
        settings=load_settings(),
        at_end=at_end,
    )
    field = [one for one in (make(given) for make in baselines()) if set(one.names) & KNOWN.keys()]
    outcome = evaluate(real_stream, field, Rules(probes=1_500))
    found, away = (
        dict(zip(outcome.names, ndcg(outcome.ranks[:, scope], 10).mean(1), strict=True))
        for scope in (outcome.probes.sampled, outcome.probes.absent)
    )
    for name in outcome.names:
        measured(f"NDCG@10 {name}: {found[name]:.4f}, on return {away[name]:.4f}")
    for name, (usual, returning) in KNOWN.items():
        assert found[name] == pytest.approx(usual, rel=0.25), name
        assert away[name] == pytest.approx(returning, rel=0.25), name
