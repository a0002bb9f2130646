"""Tests of `penchant.profile.modes`."""

import numpy as np
import pytest

from penchant.profile.fusion import Slice, Space
from penchant.profile.modes import attention, average, concat, projected, unit_rows


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


def test_projections_keep_what_varies_most(slices):
    """A common dimension, unit rows, absent slices absent; what lies in few components comes through whole."""
    rng = np.random.default_rng(1)
    flat = np.zeros((30, 8), np.float32)
    flat[:, 2:5] = rng.standard_normal((30, 3))
    centred = flat - flat.mean(axis=0)
    found = projected({**slices, "flat": flat}, 3)
    assert {vectors.shape for vectors in found.values()} == {(30, 3)}
    assert not found["image"][28:].any()
    assert np.linalg.norm(found["text"][:29], axis=1) == pytest.approx(1, abs=1e-5)
    # Three components hold all of it: the angles between centred vectors are those between their projections.
    assert found["flat"] @ found["flat"].T == pytest.approx(unit_rows(centred) @ unit_rows(centred).T, abs=1e-5)


def test_an_average_is_of_what_is_there(slices):
    """One slice alone is itself; nothing is nothing."""
    common = projected(slices, 4)
    mean = average(common)
    assert mean[28] == pytest.approx(common["text"][28], abs=1e-6)
    assert mean[0] == pytest.approx(unit_rows((common["text"][:1] + common["image"][:1]) / 2)[0], abs=1e-6)
    assert not mean[29].any()


def test_attention_follows_evidence_among_what_a_candidate_has():
    """The slice that told more weighs more; weights sum to one over what is there, to nothing where nothing is."""
    weights = attention(np.array([0.4, 0.1]), np.array([[True, True], [False, True], [False, False]]))
    assert weights[0, 0] > weights[0, 1] > 0
    assert weights.sum(axis=1) == pytest.approx([1, 1, 0])
    assert weights[0, 0] / weights[0, 1] == pytest.approx(np.exp(3))
