"""Tests of `penchant.profile.modes`."""

import numpy as np
import pytest

from penchant.profile.fusion import Slice, Space
from penchant.profile.modes import KEPT, attention, average, concat, even, moving, projected, told, unit_rows


@pytest.fixture
def slices():
    """Unit vectors of thirty items; the last has nothing, and the one before no image."""
    rng = np.random.default_rng(0)
    found = {name: unit_rows(rng.standard_normal((30, d))) for name, d in {"text": 8, "image": 5}.items()}
    found["image"][28:] = 0
    found["text"][29] = 0
    return found


def test_weighted_fusion_is_that_of_the_space(slices):
    """Shares renormalised over what an item has, as items are stored."""
    shares = {"text": 0.5, "image": 0.3}
    space = Space((Slice("text", 8, 0.5, "a"), Slice("image", 5, 0.3, "b")))
    fused = concat(slices, shares)
    for item in range(29):
        stored = space.fuse({name: vectors[item] for name, vectors in slices.items()})
        assert fused[item] == pytest.approx(stored, abs=1e-6)
    assert not fused[29].any()


def test_a_cosine_of_concatenated_slices_is_the_mean_of_theirs(slices):
    """Where both items have all slices."""
    fused = concat(slices)
    means = np.mean([vectors[:28] @ vectors[:28].T for vectors in slices.values()], axis=0)
    assert fused[:28] @ fused[:28].T == pytest.approx(means, abs=1e-6)


def test_projections_keep_the_loudest_components_of_each(slices):
    """As many as the narrowest slice has, by rank; unit rows, and absent slices absent."""
    loudest = {"text": np.array([6, 1, 0, 2, 3, 4, 5, 7]), "image": np.arange(5)}
    found = projected(slices, loudest)
    assert {vectors.shape for vectors in found.values()} == {(30, 5)}
    assert not found["image"][28:].any()
    assert found["text"][:29] == pytest.approx(unit_rows(slices["text"][:29, [6, 1, 0, 2, 3]]))
    assert found["image"] == pytest.approx(slices["image"], abs=1e-6)


def test_an_average_is_of_what_is_there(slices):
    """One slice alone is itself; nothing is nothing; shares count where there is a choice."""
    common = projected(slices, {"text": np.arange(4), "image": np.arange(4)})
    mean = average(common)
    assert mean[28] == pytest.approx(common["text"][28], abs=1e-6)
    assert mean[0] == pytest.approx(unit_rows((common["text"][:1] + common["image"][:1]) / 2)[0], abs=1e-6)
    assert not mean[29].any()
    by_shares = average(common, {"text": 0.75, "image": 0.25})
    assert by_shares[0] == pytest.approx(unit_rows(3 * common["text"][:1] + common["image"][:1])[0], abs=1e-6)
    assert by_shares[28] == pytest.approx(common["text"][28], abs=1e-6)


def test_a_moving_average_is_that_of_one_step_after_the_other(slices):
    """U <- 0.6 U + 0.4 x, from the oldest on, is the sum by shares, newest first."""
    user = np.zeros(8)
    for item in range(20):
        user = 0.6 * user + 0.4 * slices["text"][item]
    assert moving(20) @ slices["text"][:20][::-1] == pytest.approx(user, abs=1e-6)
    assert moving(0).shape == (0,)
    assert even(4) == pytest.approx(0.25)


def test_what_a_slice_has_told_is_how_well_it_foresaw_each_like(slices):
    """One step after the other: the cosine of each with what came before it, of which a fifth counts."""
    user, evidence = np.zeros(5), 0.0
    for item in (3, 28, 4, 3, 9):  # 28 has no image
        evidence = 0.8 * evidence + 0.2 * float(slices["image"][item] @ unit_rows(user[None])[0])
        user = KEPT * user + (1 - KEPT) * slices["image"][item]
    assert told(slices["image"][[9, 3, 4, 28, 3]]) == pytest.approx(evidence, abs=1e-6)
    assert told(slices["image"][[3]]) == told(slices["image"][:0]) == 0


def test_attention_follows_evidence_among_what_a_candidate_has():
    """The slice that told more weighs more; weights sum to one over what is there, to nothing where nothing is."""
    weights = attention(np.array([0.4, 0.1]), np.array([[True, True], [False, True], [False, False]]))
    assert weights[0, 0] > weights[0, 1] > 0
    assert weights.sum(axis=1) == pytest.approx([1, 1, 0])
    assert weights[0, 0] / weights[0, 1] == pytest.approx(np.exp(3))
