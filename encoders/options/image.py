"""Options of what encodes pictures."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, ModelOptions, Options, PinnedOptions
from penchant.section import Finite, Positive

__all__ = [
    "ColourHistogramOptions",
    "ColourShapeOptions",
    "ImageOptions",
    "OrientedGradientsOptions",
    "SiftWordsOptions",
    "TimmOptions",
]


class ColourShapeOptions(Options):
    """What colours a picture has, and which way its edges run."""

    encoder: ClassVar[str] = "penchant.encoders.image:ColourShape"
    kind: Literal["colour-shape"] = "colour-shape"


class ColourHistogramOptions(Options):
    """What colours a picture has."""

    encoder: ClassVar[str] = "penchant.encoders.image:ColourHistogram"
    kind: Literal["histogram"] = "histogram"


class OrientedGradientsOptions(Options):
    """Which way a picture's edges run, place by place."""

    encoder: ClassVar[str] = "penchant.encoders.image:OrientedGradients"
    kind: Literal["hog"] = "hog"


class SiftWordsOptions(PinnedOptions):
    """Which of a vocabulary of local patterns (SIFT) a picture has."""

    encoder: ClassVar[str] = "penchant.encoders.sift:SiftWords"
    kind: Literal["sift"] = "sift"
    vocabulary: Path = Field(description="file that `penchant encoders vocabulary` wrote")


class TimmOptions(ModelOptions):
    """Any model of timm, by the features that it pools for its classifier."""

    encoder: ClassVar[str] = "penchant.encoders.timm_image:TimmFeatures"
    kind: Literal["timm"] = "timm"
    architecture: str = Field(
        default="", pattern=r"^[\w.]*$", description="timm's name of the model, where no config.json says it"
    )
    arguments: dict[str, str | bool | int | float] = Field(
        default={}, description="what timm makes the model with, such as pad_type"
    )
    input_size: int | None = Field(default=None, ge=1, le=4_096, description="side of what it takes; absent: its own")
    mean: tuple[Finite, Finite, Finite] | None = Field(
        default=None, description="taken off the channels, of 0 to 1; absent: the model's own"
    )
    std: tuple[Positive, Positive, Positive] | None = Field(default=None, description="by which they are then divided")
    interpolation: Literal["bilinear", "bicubic"] | None = Field(default=None, description="absent: the model's own")
    crop_pct: float | None = Field(
        default=None, gt=0, le=1, description="of the resized side that the crop keeps; absent: the model's own"
    )


ImageOptions = Annotated[
    ColourShapeOptions | ColourHistogramOptions | OrientedGradientsOptions | SiftWordsOptions | TimmOptions | InJoint,
    Field(discriminator="kind"),
]
