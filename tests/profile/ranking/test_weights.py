"""Tests of `penchant.profile.ranking.weights`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.ranking.weights import ABSENCE_HALF_MS, CAUTION, Learned, Learner, Weights, gate, proposals

NAMES = ("telling", "noise", "flat")


def prior(**base):
    """Weights that start as named."""
    return Weights.of(base, {}, NAMES)


def examples(rng, count, *, telling, candidates=20):
    """Requests whose liked candidate was drawn by exp(telling * first feature)."""
    for _ in range(count):
        features = rng.standard_normal((len(NAMES), candidates)).astype(np.float32)
        features[2] = 0
        shares = np.exp(telling * features[0])
        liked = rng.choice(candidates, p=shares / shares.sum())
        order = np.concatenate(([liked], np.delete(np.arange(candidates), liked)))
        yield features[:, order]


def test_what_tells_is_learned_and_noise_is_not():
    """The weight by which choices were made is found again; a feature that never varies keeps its own."""
    learner, rng = Learner(prior(flat=0.5)), np.random.default_rng(0)
    for features in examples(rng, 4_000, telling=0.8):
        learner.learn(features, absence_ms=0)
    assert learner.weights.base == pytest.approx([0.8, 0, 0.5], abs=0.1)
    assert not learner.weights.returning.any()
    assert learner.examples == 4_000


def test_absence_has_weights_of_its_own():
    """Where those who return want the opposite, the second set of weights says so."""
    learner, rng = Learner(prior()), np.random.default_rng(1)
    long = 1_000 * ABSENCE_HALF_MS
    for here, back in zip(examples(rng, 4_000, telling=0.8), examples(rng, 4_000, telling=-0.8), strict=True):
        learner.learn(here, absence_ms=0)
        learner.learn(back, absence_ms=long)
    assert learner.weights.at(0)[0] == pytest.approx(0.8, abs=0.2)
    assert learner.weights.at(long)[0] == pytest.approx(-0.8, abs=0.2)


def test_a_step_goes_up_the_likelihood():
    """The direction of the first step is that of the gradient of the log-likelihood, by finite differences."""
    rng = np.random.default_rng(2)
    features, chances = rng.standard_normal((3, 7)).astype(np.float32), rng.standard_normal(7)
    base = np.array([0.3, -0.2, 0.1])

    def likelihood(weights):
        scores = weights @ features.astype(float) - chances
        return scores[0] - np.log(np.exp(scores).sum())

    tiny = 1e-6
    slopes = [(likelihood(base + tiny * axis) - likelihood(base - tiny * axis)) / (2 * tiny) for axis in np.eye(3)]
    learner = Learner(prior(telling=0.3, noise=-0.2, flat=0.1))
    learner.learn(features, 0.0, chances)
    assert learner._squares[0] - CAUTION == pytest.approx(np.square(slopes), rel=1e-4)
    assert np.sign(learner.weights.base - base).tolist() == np.sign(slopes).tolist()


def test_the_sample_may_prefer_some_candidates():
    """With the chances taken off, negatives drawn by the feature itself teach the same weight as uniform ones."""
    rng = np.random.default_rng(3)
    learner = Learner(prior())
    for features in examples(rng, 6_000, telling=0.8, candidates=200):
        chances = np.exp(1.5 * features[0, 1:].astype(float))
        chances /= chances.sum()
        drawn = 1 + rng.choice(199, size=40, p=chances)
        logs = np.log(np.concatenate(([1 / 199], chances))[[0, *drawn]])
        learner.learn(features[:, [0, *drawn]], 0.0, logs)
    assert learner.weights.base[0] == pytest.approx(0.8, abs=0.2)


def test_negatives_are_drawn_of_all_and_of_the_popular():
    """Chances sum to one; every item has at least half an even chance, and the popular have more."""
    chances = proposals(np.array([0.0, 0.0, 5.0, 95.0]))
    assert chances.sum() == pytest.approx(1)
    assert (chances >= 0.125).all()
    assert chances[3] > chances[2] > chances[1] == chances[0]


def test_a_first_example_turns_nothing_upside_down():
    """It moves a weight by as much as it says of it: the weights by absence hardly, after a pause of a minute."""
    learner = Learner(prior(telling=0.3))
    [features] = examples(np.random.default_rng(8), 1, telling=0.8)
    learner.learn(features, absence_ms=60_000)
    moved = learner.weights.base - prior(telling=0.3).base
    assert 0 < np.abs(moved).max() < 0.02
    assert 0 < np.abs(learner.weights.returning).max() < 0.01 * np.abs(moved).max()


def test_what_is_not_to_be_learned_stays():
    """A configuration without a feature never comes to use it."""
    learner = Learner(prior(), learned=np.array([False, True, True]), returning=False)
    for features in examples(np.random.default_rng(4), 100, telling=0.8):
        learner.learn(features, absence_ms=ABSENCE_HALF_MS)
    assert learner.weights.base[0] == 0
    assert learner.weights.base[1] != 0
    assert not learner.weights.returning.any()
    held = np.array([[False, True, True], [True, True, False]])
    learner = Learner(prior(telling=0.1), learned=held)
    for features in examples(np.random.default_rng(4), 100, telling=0.8):
        learner.learn(features, absence_ms=ABSENCE_HALF_MS)
    assert learner.weights.base[0] == 0.1
    assert learner.weights.returning[0] > 0.1


def test_a_learner_goes_on_where_another_stopped():
    """Bit for bit: what was learned is all that it takes."""
    some = list(examples(np.random.default_rng(5), 60, telling=0.8))
    whole = Learner(prior(flat=0.5))
    parts = Learner(prior(flat=0.5))
    for number, features in enumerate(some):
        if number % 20 == 0:
            parts = Learner(parts.learned)
        assert whole.learn(features, 1e6 * number) == parts.learn(features, 1e6 * number)
    assert parts.examples == 60
    assert (parts.weights.base == whole.weights.base).all()
    assert (parts.weights.returning == whole.weights.returning).all()


def test_a_feature_that_is_new_starts_at_its_prior():
    """And one that is gone is left out; the others go on, each with its own squares."""
    learner = Learner(prior(telling=0.3))
    for features in examples(np.random.default_rng(6), 50, telling=0.8):
        learner.learn(features, absence_ms=ABSENCE_HALF_MS)
    before = learner.learned
    other = Weights.of({"new": 0.7, "telling": 9.0}, {"new": -0.2}, ["new", "telling"])
    after = before.among(other)
    assert after.weights.names == ("new", "telling")
    assert after.weights.base.tolist() == [0.7, before.weights.base[0]]
    assert after.weights.returning.tolist() == [-0.2, before.weights.returning[0]]
    assert after.squares[:, 0].tolist() == [CAUTION, CAUTION]
    assert after.squares[:, 1].tolist() == before.squares[:, 0].tolist()
    assert after.examples == 50
    assert Learned.nothing(other).among(prior()).weights.base.tolist() == [9.0, 0, 0]


def test_the_surprise_is_what_learning_makes_small():
    """-ln of the share of what was liked: a guess among all before the first example, less later."""
    learner = Learner(prior())
    surprises = [learner.learn(one, 0.0) for one in examples(np.random.default_rng(7), 1_000, telling=2.0)]
    assert surprises[0] == pytest.approx(np.log(20))
    assert np.mean(surprises[-200:]) < np.mean(surprises[:20]) - 0.5


@given(st.floats(0, 1e13), st.floats(0, 1e13))
def test_the_gate_opens_with_absence(one, other):
    """From 0 towards 1, a half after eight hours, never back."""
    assert 0 <= gate(one) < 1
    assert (gate(one) <= gate(other)) == (one <= other) or gate(one) == pytest.approx(gate(other))
    assert gate(ABSENCE_HALF_MS) == 0.5
