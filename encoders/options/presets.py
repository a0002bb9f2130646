"""Encoders by one word: what encodes each modality where the settings name nothing else."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from penchant.encoders.options.audio import MfccOptions
from penchant.encoders.options.base import InJoint, JointOptions, Options
from penchant.encoders.options.image import ColourShapeOptions
from penchant.encoders.options.text import MiniLMOptions

__all__ = ["PRESETS", "Preset", "PresetName"]

PresetName = Literal["lite"]


class Preset(Struct, frozen=True, kw_only=True):
    """What encodes each modality, and several of them together."""

    text: Options | InJoint
    image: Options | InJoint
    audio: Options | InJoint
    joint: JointOptions | None = None


PRESETS: Mapping[PresetName, Preset] = {
    # Weights from a package or none at all: nothing is downloaded.
    "lite": Preset(text=MiniLMOptions(), image=ColourShapeOptions(), audio=MfccOptions()),
}
