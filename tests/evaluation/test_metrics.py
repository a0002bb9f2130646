"""The figures are those of their definitions."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, ndcg_score, precision_score, recall_score, roc_auc_score

from penchant.evaluation import metrics

RANKS = st.lists(st.integers(1, 40), min_size=1, max_size=30).map(np.array)


@settings(max_examples=20, deadline=None)
@given(ranks=RANKS, k=st.integers(1, 30))
def test_metrics_of_lists_are_the_textbook_ones(ranks, k):
    """Each equals the library's figure for a list of k out of forty with one relevant item at that rank."""
    candidates = np.full(len(ranks), 40)
    accuracy = metrics.accuracy(ranks, k, candidates)
    for place, rank in enumerate(ranks):
        relevant = np.arange(1, 41) == rank
        told = np.arange(1, 41) <= k
        scores = -np.arange(40.0)
        one = ranks[place : place + 1]
        assert metrics.ndcg(one, k)[0] == pytest.approx(ndcg_score([relevant], [scores], k=k))
        assert metrics.precision(one, k)[0] == pytest.approx(precision_score(relevant, told))
        assert metrics.recall(one, k)[0] == pytest.approx(recall_score(relevant, told))
        assert metrics.f1(one, k)[0] == pytest.approx(f1_score(relevant, told))
        assert metrics.reciprocal(one, k)[0] == (1 / rank if rank <= k else 0)
        assert accuracy[place] == pytest.approx(accuracy_score(relevant, told))


@settings(deadline=None)
@given(ranks=RANKS, k=st.integers(1, 30))
def test_longer_lists_miss_no_more(ranks, k):
    """HR, NDCG and MRR never fall with k, and lie between 0 and 1."""
    for measure in (metrics.hits, metrics.ndcg, metrics.reciprocal):
        shorter, longer = measure(ranks, k), measure(ranks, k + 1)
        assert (shorter <= longer).all()
        assert (longer <= 1).all()
        assert (shorter >= 0).all()


def test_the_area_is_the_chance_to_be_above_a_negative():
    """Of one probe the area equals the library's, ties included; of many it is the mean."""
    random = np.random.default_rng(1)
    own, others = random.integers(5, size=50), random.integers(4, size=(50, 20))
    above = np.array([((row > one).sum() + (row == one).sum() / 2) / 20 for one, row in zip(own, others, strict=True)])
    areas = [roc_auc_score([1] + [0] * 20, [one, *row]) for one, row in zip(own.tolist(), others.tolist(), strict=True)]
    assert metrics.area(above) == pytest.approx(np.mean(areas))


@settings(deadline=None)
@given(above=st.lists(st.integers(0, 100).map(lambda share: share / 100), min_size=1).map(np.array))
def test_the_curve_rises_to_one_and_spans_the_area(above):
    """The ROC curve never falls, ends at 1, and has the area under it, up to its steps."""
    false, true = metrics.roc(above, points=1_001)
    assert (np.diff(true) >= 0).all()
    assert true[-1] == 1
    assert np.trapezoid(true, false) == pytest.approx(metrics.area(above), abs=2e-3)


def test_information_gain_of_knowing_all_half_and_nothing():
    """A feature that tells everything gains the entropy, one that tells nothing gains nothing."""
    everything, nothing = np.array([[8, 0], [0, 8]]), np.array([[4, 4], [4, 4]])
    assert metrics.information_gain(everything) == (1.0, 1.0)
    assert metrics.information_gain(nothing) == (0.0, 0.0)
    half = np.array([[4, 0], [4, 8]])
    bits = 1 - 12 / 16 * -(1 / 3 * np.log2(1 / 3) + 2 / 3 * np.log2(2 / 3))
    assert metrics.information_gain(half) == pytest.approx((bits, bits))
    assert metrics.information_gain(np.array([[3, 0], [2, 0]])) == (0.0, 0.0)


def test_coverage_and_novelty_of_lists():
    """Coverage counts distinct items; novelty is log2 of users by those who liked it, and empty places say nothing."""
    tops = np.array([[0, 1], [1, -1]])
    assert metrics.coverage(tops, 4) == 0.5
    assert metrics.novelty(tops, np.array([8, 2, 0, 0]), 16) == pytest.approx((1 + 3 + 3) / 3)
    assert metrics.novelty(np.array([[3]]), np.array([8, 2, 0, 0]), 16) == pytest.approx(5)


def test_diversity_is_the_mean_distance_of_pairs():
    """It equals the plain double loop, and a list of one thing twice over is not diverse."""
    random = np.random.default_rng(4)
    vectors = random.normal(size=(12, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    tops = np.array([[0, 1, 2, 3], [4, 5, 6, -1], [7, -1, -1, -1]])
    expected = np.mean(
        [
            np.mean([1 - vectors[a] @ vectors[b] for a in row for b in row if a != b])
            for row in ([0, 1, 2, 3], [4, 5, 6])
        ]
    )
    assert metrics.diversity(tops, vectors) == pytest.approx(expected, abs=1e-6)
    assert metrics.diversity(np.array([[0, 1]]), np.ones((2, 1), np.float32)) == pytest.approx(0)
    assert metrics.diversity(np.array([[0, -1]]), vectors) == 0


def test_calibration_is_zero_for_a_list_like_the_past_and_grows_with_what_it_lacks():
    """Steck's divergence: none where the shares agree, log(100) where the list has nothing of what was liked."""
    categories = scipy.sparse.csr_array(np.array([[1, 0], [0, 1], [0.5, 0.5], [0, 0]]))
    liked = scipy.sparse.csr_array(np.array([[1.0, 1, 0, 0]]))
    drama = scipy.sparse.csr_array(np.array([[1.0, 0, 0, 0]]))
    assert metrics.calibration(np.array([[2, 2]]), liked, categories) == pytest.approx(0)
    assert metrics.calibration(np.array([[1, 1]]), drama, categories) == pytest.approx(np.log(100))
    assert metrics.calibration(np.array([[0, 0]]), liked, categories) == pytest.approx(
        0.5 * np.log(0.5 / (0.99 + 0.005)) + 0.5 * np.log(100)
    )
    assert metrics.calibration(np.array([[3, -1]]), drama, categories) == 0


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array), window=st.integers(1, 50))
def test_sliding_windows_are_means(values, window):
    """Each is the mean of its stretch; a window longer than the stream is the mean of all."""
    size = min(window, len(values))
    expected = [values[start : start + size].mean() for start in range(len(values) - size + 1)]
    assert metrics.sliding(values, window) == pytest.approx(expected, abs=1e-9)
