"""Exploration: what is drawn follows what has been seen, and nothing else."""

from collections import Counter

import numpy as np
import pytest

from penchant.profile.ranking.exploration import USUAL_LIKES, USUAL_LISTINGS, Arms


@pytest.fixture
def arms():
    """What came of listing items: nothing yet."""
    return Arms(1_000)


def first(arms, names, draws):
    """How often each of some items came out first."""
    return Counter(next(arms.drawn(names, seed=f"{number}")) for number in range(draws))


def test_a_draw_is_repeated_by_its_seed(arms):
    """Whatever order the items are named in; another seed draws anew, and every item is drawn once."""
    names = [f"i{number}" for number in range(20)]
    drawn = list(arms.drawn(names, seed="1 ada"))
    assert sorted(drawn) == sorted(names)
    assert list(arms.drawn(reversed(names), seed="1 ada")) == drawn
    assert list(arms.drawn(names, seed="2 ada")) != drawn
    assert list(arms.drawn([], seed="1 ada")) == []


def test_what_nobody_knows_is_tried_evenly(arms):
    """No item is preferred for its name or its place."""
    counts = first(arms, ["a", "b", "c", "d"], 2_000)
    assert all(400 < counts[name] < 600 for name in "abcd")


def test_trials_find_what_is_liked(arms):
    """Of ten items one is liked in every fifth listing, and the others in every fiftieth: most trials go there."""
    generator = np.random.default_rng(1)
    names = [f"i{number}" for number in range(10)]
    tried = []
    for trial in range(3_000):
        chosen = next(arms.drawn(names, seed=f"{trial}"))
        tried.append(chosen)
        arms.listed([chosen])
        if generator.random() < (0.2 if chosen == "i7" else 0.02):
            arms.liked([chosen])
    assert Counter(tried[2_000:])["i7"] > 900
    assert set(tried[:300]) == set(names)


def test_the_prior_has_the_mean_of_what_was_listed(arms):
    """Where lists are liked a lot, an item that is liked as often is no better than one that nobody knows."""
    arms.listed(["others"] * 10_000)
    arms.liked(["others"] * 5_000)
    arms.listed(["poor"] * 100)
    arms.liked(["poor"] * 10)
    assert first(arms, ["poor", "unknown"], 500)["unknown"] > 400


def test_a_like_of_what_was_not_listed_says_nothing(arms):
    """Nor does a second one of one listing; what was listed is counted."""
    arms.liked(["a"])
    arms.listed(["a"])
    arms.liked(["a", "a"])
    assert arms.listings("a") == 1
    assert arms.listings("b") == 0
    assert arms._likes == USUAL_LIKES + 1
    assert arms._listings == USUAL_LISTINGS + 1


def test_no_more_is_remembered_than_there_is_room_for():
    """What was listed longest ago is forgotten; asking does not keep it."""
    arms = Arms(2)
    arms.listed(["a", "b"])
    assert arms.listings("a") == 1
    arms.listed(["b", "c"])
    assert [arms.listings(name) for name in "abc"] == [0, 2, 1]
