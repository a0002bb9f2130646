"""Tests of `penchant.graph.incidence`."""

import numpy as np
import pytest

from penchant.graph.incidence import incidence_vectors

KINDS = [("comedy", "nineties"), ("drama", "nineties"), ("horror", "eighties")]


@pytest.fixture
def attributes():
    """Sixty items of three kinds, each with an attribute of its own, and one with none."""
    return [
        *(frozenset({*KINDS[number % 3], f"director {number % 12}"}) for number in range(60)),
        frozenset[str](),
    ]


def test_items_that_share_what_is_telling_are_near(attributes):
    """The same attributes give the same vector, a shared genre is nearer than a shared decade, nothing is nothing."""
    vectors = incidence_vectors(attributes, 8)
    assert vectors.shape == (61, 8)
    assert not vectors[60].any()
    assert np.linalg.norm(vectors[:60], axis=1) == pytest.approx(1, abs=1e-5)
    cosines = vectors @ vectors.T
    assert cosines[0, 12] == pytest.approx(1, abs=1e-5)
    assert cosines[0, 3] > cosines[0, 1] > cosines[0, 2]


def test_vectors_are_the_same_each_time(attributes):
    """Whatever the order in which attributes are met."""
    again = [frozenset(sorted(one, reverse=True)) for one in attributes]
    assert incidence_vectors(again, 8) == pytest.approx(incidence_vectors(attributes, 8), abs=1e-5)
