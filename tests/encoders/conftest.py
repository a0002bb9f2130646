"""The real encoders, made pictures and sounds, and where real data lies."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from PIL import Image

from penchant.encoders.audio import MfccStatistics
from penchant.encoders.base import Host
from penchant.encoders.image import ColourShape
from penchant.encoders.options.audio import MfccOptions
from penchant.encoders.options.image import ColourShapeOptions
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.text import MiniLM
from penchant.settings import EncoderSettings

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def settings() -> EncoderSettings:
    """The defaults."""
    return EncoderSettings()


@pytest.fixture(scope="session")
def minilm() -> MiniLM:
    """The text encoder, loaded once."""
    return MiniLM(MiniLMOptions(), Host())


@pytest.fixture(scope="session")
def colour_shape() -> ColourShape:
    """The image encoder."""
    return ColourShape(ColourShapeOptions(), Host())


@pytest.fixture(scope="session")
def mfcc_statistics() -> MfccStatistics:
    """The audio encoder."""
    return MfccStatistics(MfccOptions(), Host())


@pytest.fixture(scope="session")
def picture() -> Callable[..., bytes]:
    """Builds an encoded picture: a bright disc on a dark slope of colour."""

    def build(
        file_format: str = "PNG", *, mode: str = "RGB", hue: int = 200, size: tuple[int, int] = (60, 40), **options
    ) -> bytes:
        width, height = size
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([x * 255 // width, y * 120 // height, np.full_like(x, hue)], axis=-1).astype(np.uint8)
        pixels[(x - width // 3) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2] = (250, 240, 90)
        encoded = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(encoded, file_format, **options)
        return encoded.getvalue()

    return build


@pytest.fixture(scope="session")
def sound() -> Callable[..., bytes]:
    """Builds an encoded sound: samples, or two seconds of a tone with noise."""

    def build(
        file_format: str = "WAV",
        subtype: str | None = None,
        *,
        samples: NDArray[np.floating] | None = None,
        rate: int = 22_050,
        tone_hz: float = 440.0,
    ) -> bytes:
        if samples is None:
            time = np.arange(2 * rate) / rate
            noise = np.random.default_rng(7).normal(0, 0.02, len(time))
            samples = 0.3 * np.sin(2 * np.pi * tone_hz * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 2 + noise
        encoded = io.BytesIO()
        soundfile.write(encoded, samples, rate, format=file_format, subtype=subtype)
        return encoded.getvalue()

    return build


@pytest.fixture(scope="session")
def real_data() -> Callable[[str, str], list[Path]]:
    """Files of a real data set, sorted; skips where it is not there."""

    def files(name: str, pattern: str) -> list[Path]:
        found = sorted((SHARED / name).glob(pattern))
        if not found:
            pytest.skip(f"real data set {name} is not beside the project")
        return found

    return files
