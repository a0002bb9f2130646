"""Options of what encodes pictures."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, Options

__all__ = ["ColourShapeOptions", "ImageOptions"]


class ColourShapeOptions(Options):
    """What colours a picture has, and which way its edges run."""

    encoder: ClassVar[str] = "penchant.encoders.image:ColourShape"
    kind: Literal["colour-shape"] = "colour-shape"


ImageOptions = Annotated[ColourShapeOptions | InJoint, Field(discriminator="kind")]
