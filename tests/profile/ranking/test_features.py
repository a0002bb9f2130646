"""Tests of `penchant.profile.ranking.features`: against the definitions, one user and one item at a time."""

import numpy as np
import pytest

from penchant.profile.interest import Horizons
from penchant.profile.ranking.features import (
    CONTENT,
    LAST,
    NEWEST,
    content_features,
    content_names,
    past_of,
    standardised,
)
from penchant.profile.signals import Action, Signal

HOUR = 3_600_000
HORIZONS = Horizons(short_ms=8 * HOUR, long_ms=50 * 24 * HOUR, short_share_at=3.0)
DIMENSIONS = {"text": 6, "image": 4}
ITEMS = 40


def unit(vectors):
    """Rows of length one."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def catalogue():
    """Unit vectors by slice; every fifth item has no image."""
    rng = np.random.default_rng(0)
    slices = {name: unit(rng.standard_normal((ITEMS, d))).astype(np.float32) for name, d in DIMENSIONS.items()}
    slices["image"][::5] = 0
    return slices


@pytest.fixture
def users():
    """Signals of users: none at all, one, few and many, liked and disliked."""
    rng = np.random.default_rng(1)
    return [
        [
            Signal(int(rng.integers(0, 2_000 * HOUR)), f"{user}-{number}", str(rng.integers(ITEMS)), action, weight)
            for number in range(count)
            for action, weight in [[(Action.LIKE, 2.0), (Action.DISLIKE, -2.0), (Action.VIEW, 0.5)][rng.integers(3)]]
        ]
        for user, count in enumerate([0, 1, 7, 90])
    ]


def expected(signals, vectors, target):
    """The three features of one slice of one item for one user, by their definitions."""
    signals = sorted(signals, key=lambda one: (one.time, one.event_id), reverse=True)
    newest = signals[0].time if signals else 0

    def towards(weights):
        mixed = sum((w * vectors[int(s.item_id)].astype(float) for w, s in weights), np.zeros(len(target)))
        length = np.linalg.norm(mixed)
        return float(mixed @ target) / length if length > 1e-12 else 0.0

    liked = [s for s in signals if s.weight >= 1]
    return [
        towards([(s.weight * 2 ** (-(newest - s.time) / HORIZONS.long_ms), s) for s in signals]),
        towards([(s.weight * 2 ** (-(newest - s.time) / HORIZONS.short_ms), s) for s in signals]),
        towards([((1 - NEWEST) ** place, s) for place, s in enumerate(liked[:LAST])]),
    ]


def test_features_are_what_they_are_called(catalogue, users):
    """For every user and item, by slice: both horizons, and the last ones."""
    rows = {str(item): item for item in range(ITEMS)}
    found = content_features([past_of(one, rows) for one in users], catalogue, catalogue, HORIZONS)
    assert found.shape == (len(content_names(catalogue)), len(users), ITEMS)
    for place, vectors in enumerate(catalogue.values()):
        block = found[place * len(CONTENT) : (place + 1) * len(CONTENT)]
        for user, signals in enumerate(users):
            for item in range(ITEMS):
                assert block[:, user, item] == pytest.approx(expected(signals, vectors, vectors[item]), abs=2e-5)


def test_a_user_is_ranked_the_same_alone_and_among_others(catalogue, users):
    """Batches change nothing, nor does the order of signals, nor the rows that hold the content."""
    rows = {str(item): item for item in range(ITEMS)}
    together = content_features([past_of(one, rows) for one in users], catalogue, catalogue, HORIZONS)
    turned = {name: vectors[::-1] for name, vectors in catalogue.items()}
    mirrored = {str(item): ITEMS - 1 - item for item in range(ITEMS)}
    for place, signals in enumerate(users):
        alone = content_features([past_of(reversed(signals), mirrored)], turned, catalogue, HORIZONS)
        assert alone[:, 0] == pytest.approx(together[:, place], abs=1e-5)


def test_items_without_content_do_not_count(catalogue, users):
    """A signal whose item has no vectors yet is as if it were not there."""
    some = {str(item): item for item in range(0, ITEMS, 2)}
    kept = [[one for one in signals if one.item_id in some] for signals in users]
    found, again = (
        content_features([past_of(one, some) for one in signals], catalogue, catalogue, HORIZONS)
        for signals in (users, kept)
    )
    assert (found == again).all()


def test_standardised_features_compare_candidates():
    """Mean zero, deviation one, nothing clipped; a feature that is the same for all says nothing."""
    features = np.array([[1, 2, 3, 1_000], [5, 5, 5, 5]], np.float32)
    found = standardised(features)
    assert found[0].mean() == pytest.approx(0, abs=1e-6)
    assert found[0].std() == pytest.approx(1, abs=1e-5)
    assert found[0].argsort().tolist() == [0, 1, 2, 3]
    assert len(set(found[0].tolist())) == 4
    assert not found[1].any()
