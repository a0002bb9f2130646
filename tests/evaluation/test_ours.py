"""Tests of `penchant.evaluation.ours` and of the rows that it keeps in memory."""

import numpy as np
import pytest

from penchant.evaluation.behaviour import Behaviour
from penchant.evaluation.ours import Configuration, Ours
from penchant.evaluation.protocol import Event
from penchant.profile.affinity import ROW_LIMIT, Row, Transition, transition_scores
from penchant.profile.interest import Horizons
from penchant.profile.ranking.weights import Weights
from penchant.profile.state import Limits

NOW = 1_600_000_000_000
HOUR = 3_600_000


def transitions(rng, items, count):
    """Transitions between items, ever later; enough of them that rows are truncated."""
    for offset in range(count):
        chosen = rng.choice(len(items), 51, replace=False)
        previous = tuple((items[code], 0.9**k) for k, code in enumerate(chosen[1:]))
        yield Transition(
            item_id=items[chosen[0] % 5], at=NOW + offset * HOUR, previous=previous, origin=("t", 0), offset=offset
        )


def test_rows_in_memory_score_as_rows_in_the_store():
    """The index by predecessors gives what `transition_scores` gives of the rows themselves, truncation included."""
    items = [f"item {number}" for number in range(400)]
    behaviour, rows = Behaviour(items), {item: Row(item_id=item) for item in items}
    for transition in transitions(np.random.default_rng(0), items, 200):
        behaviour.learn(transition)
        rows[transition.item_id] = rows[transition.item_id].adding([transition])
    assert max(len(row.keys) for row in rows.values()) == ROW_LIMIT
    later = NOW + 1_000 * HOUR
    recent = (("item 300", 1.0), ("item 7", 0.9), ("item 1", 0.81))
    masses = {item: row.mass for item, row in rows.items()}
    expected = transition_scores([recent], list(rows.values()), masses, now_ms=later)[0]
    assert expected.any()
    assert behaviour.transitions(recent, later) == pytest.approx(expected)
    popularity = np.stack([row.popularity_at(later) for row in rows.values()])
    np.testing.assert_allclose(behaviour.popularity(later).T, popularity)
    assert not behaviour.transitions((), later).any()


def contestant(configurations, examples=1.0):
    """The contestant over twelve items of two kinds, without calibration."""
    kinds = np.repeat(np.eye(2, 4, dtype=np.float32), 6, axis=0)
    return Ours(
        3,
        [f"item {number}" for number in range(12)],
        {"text": kinds},
        configurations,
        horizons=Horizons(short_ms=8 * HOUR, long_ms=1_200 * HOUR, short_share_at=3.0),
        limits=Limits(strong=16, weak=16, seen_bits=512),
        examples=examples,
        negatives=8,
        seed=0,
    )


def configuration(name, *features, **options):
    """One whose features all start with the weight 1."""
    return Configuration(name=name, weights=Weights.of(dict.fromkeys(features, 1.0), {}, features), **options)


def event(index, user, item, *, positive=True):
    """A rating an hour after the one before."""
    return Event(index, user, item, NOW + index * HOUR, 2.0 if positive else -2.0, positive)


def test_configurations_rank_by_their_own_features_in_one_pass():
    """By content the like of what was liked leads, by popularity what others liked, by transitions what came after."""
    ours = contestant(
        [
            configuration("content", "text_long", learns=False),
            configuration("popularity", "popularity", learns=False),
            configuration("transitions", "transitions", learns=False),
        ]
    )
    played = [event(0, 0, 0), event(1, 0, 7), event(2, 1, 7), event(3, 2, 0)]
    for one in played:
        ours.learn(one)
    unseen = np.arange(1, 12)
    found = dict(zip(ours.names, ours.scores(event(4, 2, 7), unseen), strict=True))
    assert set(unseen[np.argsort(-found["content"])[:5]]) == {1, 2, 3, 4, 5}
    assert unseen[found["popularity"].argmax()] == 7
    assert unseen[found["transitions"].argmax()] == 7
    explained = ours.explain(event(4, 2, 7), np.array([1, 7]))
    assert explained.shape == (len(ours.features), 2)


def test_weights_are_learned_after_ranking_and_only_where_they_may():
    """A configuration that learns comes to prefer what leads to likes; one that does not stays; neither sees ahead."""
    fixed, learned = configuration("fixed", "text_long", learns=False), configuration("learned", "text_long")
    ours = contestant([fixed, learned])
    before = {name: weights.base.copy() for name, weights in ours.weights.items()}
    assert (ours.scores(event(0, 0, 1), np.arange(12)) == 0).all()
    rng = np.random.default_rng(0)
    for index in range(60):
        user = index % 3
        left = sorted(set(range(6 * (user % 2), 6 * (user % 2) + 6)) - ours._seen[user])
        if left:
            ours.learn(event(index, user, int(rng.choice(left))))
    after = ours.weights
    place = ours.features.index("text_long")
    assert (after["fixed"].base == before["fixed"]).all()
    assert after["learned"].base[place] > before["learned"][place]
    assert np.flatnonzero(after["learned"].base).tolist() == [place]
