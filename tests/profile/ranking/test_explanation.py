"""Explanation: what signals account for is, taken together, what their features are of the score."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.interest import Horizons
from penchant.profile.ranking.explanation import content_parts, transition_parts
from penchant.profile.ranking.features import (
    centred,
    content_features,
    content_names,
    past_of,
    standardised,
    view_shares,
    views_of,
)
from penchant.profile.signals import Action, Signal

HOUR = 3_600_000
HORIZONS = Horizons(short_ms=8 * HOUR, long_ms=50 * 24 * HOUR, short_share_at=3.0)
SLICES = {"text": 6, "image": 4}
MET, NEW = 12, 15

signals = st.builds(
    Signal,
    st.integers(0, 500 * HOUR),
    st.uuids().map(str),
    st.integers(0, MET + 2).map(str),  # some on items without content
    st.just(Action.LIKE),
    st.sampled_from([-2.0, 0.0, 0.5, 1.0, 4.0]),
)


def unit_rows(rng, count, dimension):
    """Random unit vectors, a third of them absent."""
    vectors = rng.normal(size=(count, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(count) < 1 / 3] = 0
    return vectors.astype(np.float32)


def seen_by(past, memory, candidates):
    """What signals count in each view, and the views by slice."""
    shares = np.stack(view_shares(past, HORIZONS))
    return shares, {name: views_of(shares, memory[name][past.rows], candidates[name]) for name in candidates}


@given(st.lists(signals, max_size=30), st.integers(0, 2**32 - 1))
def test_all_signals_account_for_all_of_content(past, seed):
    """Over all features and both slices: sums over signals are sums of weighted, standardised features."""
    rng = np.random.default_rng(seed)
    memory = {name: unit_rows(rng, MET, dimension) for name, dimension in SLICES.items()}
    candidates = {name: unit_rows(rng, NEW, dimension) for name, dimension in SLICES.items()}
    known = past_of(past, {str(row): row for row in range(MET)})
    shares, views = seen_by(known, memory, candidates)
    features = np.concatenate([view.features for view in views.values()])
    assert features == pytest.approx(content_features([known], memory, candidates, HORIZONS)[:, 0], abs=1e-6)
    weights = rng.normal(size=len(content_names(SLICES)))
    spread = centred(features)[1].astype(float)
    scales = np.divide(weights, spread, out=np.zeros_like(weights), where=spread > 0)
    chosen = np.array([3, 0, 7])
    parts = content_parts(shares, views, chosen, scales)
    assert parts.shape == (3, len(known.rows))
    expected = weights @ standardised(features)[:, chosen].astype(float)
    # Features are of single precision, which a small deviation magnifies.
    assert parts.sum(axis=1) == pytest.approx(expected, abs=1e-4 + 2e-6 * np.abs(scales).max(initial=0))


def test_a_signal_speaks_for_what_is_like_its_item_and_against_the_rest():
    """Of two liked items each accounts for the candidate that resembles it; a disliked one speaks against its like."""
    axes = np.eye(3, dtype=np.float32)
    past = past_of(
        [
            Signal(HOUR, "a", "0", Action.LIKE, 2.0),
            Signal(HOUR, "b", "1", Action.LIKE, 2.0),
            Signal(HOUR, "c", "2", Action.HIDE, -3.0),
        ],
        {"0": 0, "1": 1, "2": 2},
    )
    scales = np.array([1.0, 0, 0])
    parts = content_parts(*seen_by(past, {"text": axes}, {"text": axes}), np.arange(3), scales)
    hidden, second, first = parts.T  # newest first, by event id
    assert first.argmax() == 0
    assert second.argmax() == 1
    assert hidden.argmin() == 2
    assert min(first[0], second[1]) > 0 > hidden[2]


def test_recent_items_account_for_transitions():
    """Terms less their mean over the candidates, times the scale."""
    terms = np.array([[1.0, 0, 0, 3], [0, 4, 0, 0]])
    parts = transition_parts(terms, np.array([3, 1]), 0.5)
    assert parts.tolist() == [[1.0, -0.5], [-0.5, 1.5]]
