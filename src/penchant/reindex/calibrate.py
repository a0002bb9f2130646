"""Centring and whitening anew: by the catalogue as it is now, with nothing encoded again."""

import asyncio

from penchant.parts import build_parts
from penchant.profile.ranking.calibrations import Recalibration
from penchant.settings import Settings
from penchant.streams.http import CalibrationRequest
from penchant.verify.snapshot import STORE, asked, at_rest_or_asked

__all__ = ["calibrate"]


def calibrate(settings: Settings) -> Recalibration:
    """Makes a calibration of the catalogue, and puts it in force; workers take it within seconds, without a restart.

    Args:
        settings: of the workers.

    Raises:
        PenchantError: the store is not there, or its catalogue is too small.
        Unavailable: the store does not answer, or the worker that has it.
    """
    folder = str((settings.data_dir / STORE).resolve())

    def ask() -> Recalibration:
        return asked(settings, "calibrate", CalibrationRequest(folder), Recalibration)

    return at_rest_or_asked(lambda: asyncio.run(directly(settings)), ask)


async def directly(settings: Settings) -> Recalibration:
    """In a store that can be opened."""
    parts = build_parts(settings)
    try:
        await parts.open(create=False)
        return await parts.calibrations.renew()
    finally:
        await parts.store.close()
