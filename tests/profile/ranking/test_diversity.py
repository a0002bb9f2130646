"""Diversity orders candidates and does nothing else to them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penchant.profile.ranking.diversity import mmr

SHARES = st.floats(0, 1)


def candidates(number, seed):
    """Random relevances and unit vectors."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(number, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return generator.uniform(-1, 1, number).astype(np.float32), vectors.astype(np.float32)


@given(st.integers(0, 20), st.integers(0, 25), SHARES, st.integers(0, 2**32 - 1))
def test_a_list_repeats_nobody_and_leaves_no_place_empty(number, count, share, seed):
    """As many different candidates as there are places, or all of them."""
    relevance, vectors = candidates(number, seed)
    chosen = mmr(relevance, vectors, count=count, relevance_share=share)
    assert len(chosen) == len(set(chosen)) == min(number, count)
    assert set(chosen) <= set(range(number))


@given(st.integers(1, 12), SHARES, st.integers(0, 2**32 - 1))
def test_each_place_goes_to_the_largest_marginal_relevance(number, share, seed):
    """Place by place as the formula says, computed one pair at a time."""
    relevance, vectors = candidates(number, seed)
    chosen = mmr(relevance, vectors, count=number, relevance_share=share)
    for place, candidate in enumerate(chosen):

        def marginal(other, before=chosen[:place]):
            similarity = max(0.0, *(float(vectors[other] @ vectors[one]) for one in before), 0.0)
            return share * float(relevance[other]) - (1 - share) * similarity

        assert marginal(candidate) >= max(map(marginal, chosen[place:])) - 1e-5


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_with_all_weight_on_relevance_the_order_is_that_of_relevance(number, seed):
    """A share of one asks for no diversity."""
    relevance, vectors = candidates(number, seed)
    assert mmr(relevance, vectors, count=number, relevance_share=1) == list(np.argsort(-relevance, kind="stable"))


def test_a_duplicate_waits_for_what_is_different():
    """Of two that are alike the second comes after a less relevant one that is not."""
    relevance = np.array([0.9, 0.89, 0.5], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    assert mmr(relevance, vectors, count=3, relevance_share=0.5) == [0, 2, 1]
