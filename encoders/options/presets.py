"""Encoders by one word: what encodes each modality where the settings name nothing else."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from penchant.encoders.options.audio import MfccOptions, TransformersAudioOptions
from penchant.encoders.options.base import InJoint, JointOptions, Options
from penchant.encoders.options.image import ColourShapeOptions, TimmOptions
from penchant.encoders.options.joint import ClipOptions
from penchant.encoders.options.text import MiniLMOptions, TransformerTextOptions

__all__ = ["PRESETS", "Preset", "PresetName"]

PresetName = Literal["lite", "base", "joint"]


class Preset(Struct, frozen=True, kw_only=True):
    """What encodes each modality, and several of them together."""

    text: Options | InJoint
    image: Options | InJoint
    audio: Options | InJoint
    joint: JointOptions | None = None


# An audio spectrogram transformer that knows the 527 sounds of AudioSet.
SPECTROGRAMS = TransformersAudioOptions(
    model="MIT/ast-finetuned-audioset-10-10-0.4593", revision="f826b80d28226b62986cc218e5cec390b1096902"
)

PRESETS: Mapping[PresetName, Preset] = {
    # Weights from a package or none at all: nothing is downloaded.
    "lite": Preset(text=MiniLMOptions(), image=ColourShapeOptions(), audio=MfccOptions()),
    # A model a modality, each of some hundred million parameters: 1.1 GB from the hub.
    "base": Preset(
        text=TransformerTextOptions(model="BAAI/bge-base-en-v1.5", revision="a5beb1e3e68b9ab74eb54cfd186867f64f240e1a"),
        image=TimmOptions(
            model="timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", revision="063c6c38a5d8510b2e57df480445e94b231dad2c"
        ),
        audio=SPECTROGRAMS,
    ),
    # Texts and pictures in one space, so that one finds the other: 2 GB from the hub.
    "joint": Preset(
        text=InJoint(),
        image=InJoint(),
        audio=SPECTROGRAMS,
        joint=ClipOptions(model="openai/clip-vit-large-patch14", revision="32bd64288804d66eefd0ccbe215aa642df71cc41"),
    ),
}
