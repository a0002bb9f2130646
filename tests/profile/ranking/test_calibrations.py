"""Tests of `penchant.profile.ranking.calibrations` on the embedded store."""

import asyncio

import numpy as np
import pytest

from penchant.profile.ranking.calibrations import Calibrations, TooFewItems
from penchant.profile.ranking.whitening import LEAST_ITEMS, Calibration, calibrate

ENOUGH = 5 * LEAST_ITEMS * 4  # items, for slices of at most four components


@pytest.fixture
async def calibrations(edge, items):
    """As a worker has them."""
    made = Calibrations(edge, "calibration", items)
    await edge.open([made.layout])
    return made


async def test_a_catalogue_is_calibrated_once_when_it_has_grown(calibrations, catalogue, items, edge):
    """Not before; then by all listed items; and what comes later changes nothing, for whoever asks."""
    first = await catalogue(*(f"i{number}" for number in range(ENOUGH)))
    await catalogue("unlisted", listed=False)
    assert await calibrations.in_force(ENOUGH + 1) is None
    found = await calibrations.in_force(ENOUGH)
    expected = calibrate(Calibration().split(items.space, np.stack(list(first.values()))))
    assert set(found.slices) == {"text", "image"}
    for name, whitening in found.slices.items():
        assert whitening.mean == pytest.approx(expected.slices[name].mean, abs=1e-6)
        # Components have no sign of their own; what they make of distances is what counts.
        squares = (whitening.map @ whitening.map.T, expected.slices[name].map @ expected.slices[name].map.T)
        assert squares[0] == pytest.approx(squares[1], abs=1e-3)
    await catalogue(*(f"later{number}" for number in range(ENOUGH)), seed=1)
    again = await Calibrations(edge, "calibration", items).in_force(1)
    assert again.fingerprint == found.fingerprint


async def test_a_catalogue_too_small_for_its_slices_waits(calibrations, catalogue):
    """However few items are asked for, and where there are none at all: nothing is made that could not be mended."""
    assert await calibrations.in_force(0) is None
    await catalogue("i0", "i1", "i2")
    assert await calibrations.in_force(1) is None


async def test_workers_that_calibrate_at_once_agree(calibrations, catalogue, items, edge):
    """The first to write has its way, and the others take what it wrote."""
    await catalogue(*(f"i{number}" for number in range(ENOUGH)))
    others = [Calibrations(edge, "calibration", items) for _ in range(3)]
    found = await asyncio.gather(*(one.in_force(ENOUGH) for one in (calibrations, *others)))
    assert len({one.fingerprint for one in found}) == 1


async def test_a_calibration_is_made_anew_when_asked_for(calibrations, catalogue, items, edge):
    """Of the catalogue as it is then, in place of the one before; whoever looks sees that it is another."""
    await catalogue(*(f"i{number}" for number in range(ENOUGH)))
    assert await calibrations.token() is None
    first = await calibrations.in_force(1)
    token = await calibrations.token()
    await catalogue(*(f"later{number}" for number in range(ENOUGH)), seed=1)
    made = await calibrations.renew()
    assert (made.before, made.items, set(made.slices)) == (first.fingerprint, 2 * ENOUGH, {"text", "image"})
    found = await Calibrations(edge, "calibration", items).in_force(1)
    assert found.fingerprint == made.now != made.before
    assert await calibrations.token() != token


async def test_what_says_too_little_is_not_put_in_force(calibrations, catalogue):
    """A catalogue that has shrunk below what a slice needs leaves the calibration that there is."""
    await catalogue("i0", "i1", "i2")
    with pytest.raises(TooFewItems, match="3 listed items"):
        await calibrations.renew()
    assert await calibrations.known() is None
