"""Tests of `penchant.profile.ranking.whitening`."""

import numpy as np
import pytest

from penchant.profile.fusion import Slice, Space
from penchant.profile.ranking.whitening import LEAST_ITEMS, Calibration, calibrate, whitening_of

RNG = np.random.default_rng(0)


def cone(count, dimension=8):
    """Unit vectors that have much in common, and vary more in some directions than in others."""
    vectors = RNG.standard_normal((count, dimension)) * np.linspace(0.05, 0.5, dimension) + 1
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_cone_opens():
    """What was alike on the whole is not any more: the mean cosine of a catalogue goes from near one to near zero."""
    vectors = cone(2_000)
    whitened = whitening_of(vectors).apply(vectors)
    assert np.linalg.norm(vectors.mean(0)) > 0.9
    assert np.linalg.norm(whitened.mean(0)) < 0.1
    assert np.allclose(np.linalg.norm(whitened, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_components_are_divided_by_a_power_of_their_deviation(power):
    """Power 0 centres and turns, power 1 makes all components equally loud, a half lies between."""
    vectors = cone(5_000)
    whitening = whitening_of(vectors, power=power)
    moved = (vectors - whitening.mean) @ whitening.map
    deviations = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(vectors.T.astype(float), bias=True)), 0))
    audible = deviations[deviations > 1e-3 * deviations.max()]
    assert np.allclose(moved.std(0), audible ** (1 - power), rtol=1e-2)


def test_the_loudest_components_are_known_by_their_map():
    """By what they are divided by, whatever the power; a slice without a whitening has them in order."""
    vectors = cone(5_000)
    calibration = calibrate({"text": vectors})
    deviations = ((vectors - vectors.mean(0)) @ unit_columns(calibration.slices["text"].map)).std(0)
    order = calibration.loudest("text", len(deviations))
    assert (np.diff(deviations[order]) < 0).all()
    assert calibration.loudest("graph", 3).tolist() == [0, 1, 2]


def test_components_lean_to_the_positive():
    """So that two calibrations by one catalogue agree, and projections of slices are added by one rule."""
    vectors = cone(2_000)
    whitening = whitening_of(vectors)
    assert (((vectors - whitening.mean) @ whitening.map.astype(float)) ** 3).sum(0).min() > 0


def unit_columns(matrix):
    """Columns of length one."""
    return matrix / np.linalg.norm(matrix, axis=0)


def test_what_is_absent_stays_absent():
    """An item without a slice has zeros before and after."""
    vectors = cone(500)
    vectors[3] = 0
    assert not calibrate({"text": vectors}).slices["text"].apply(vectors)[3].any()


def test_a_small_catalogue_calibrates_nothing():
    """Few items say little about those to come: their slice stays as it is, and others do not."""
    small, large = cone(8 * LEAST_ITEMS - 1), cone(8 * LEAST_ITEMS)
    assert set(calibrate({"image": small, "text": large}).slices) == {"text"}


def test_content_is_taken_apart_as_it_was_fused():
    """Uncalibrated, the parts are the unit vectors that an item was fused from; an absent slice is zero."""
    space = Space((Slice("text", 8, 0.5, "a"), Slice("image", 4, 0.3, "b")))
    text, image = cone(2), cone(1, 4)
    content = np.stack([space.fuse({"text": text[0], "image": image[0]}), space.fuse({"text": text[1]})])
    parts = Calibration().split(space, content)
    assert np.allclose(parts["text"], text, atol=1e-6)
    assert np.allclose(parts["image"][0], image[0], atol=1e-6)
    assert not parts["image"][1].any()


def test_another_calibration_has_another_fingerprint():
    """And the same has the same."""
    one, other = cone(500), cone(500)
    assert calibrate({"text": one}).fingerprint == calibrate({"text": one}).fingerprint
    assert calibrate({"text": one}).fingerprint != calibrate({"text": other}).fingerprint
    assert calibrate({"text": one}).fingerprint != calibrate({"image": one}).fingerprint
