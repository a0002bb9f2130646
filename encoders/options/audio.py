"""Options of what encodes sounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, Options

__all__ = ["AudioOptions", "MfccOptions"]


class MfccOptions(Options):
    """Statistics of mel-frequency cepstral coefficients."""

    encoder: ClassVar[str] = "penchant.encoders.audio:MfccStatistics"
    kind: Literal["mfcc"] = "mfcc"


AudioOptions = Annotated[MfccOptions | InJoint, Field(discriminator="kind")]
