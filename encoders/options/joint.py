"""Options of what encodes several modalities into one slice."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import JointOptions

__all__ = ["ClapOptions", "ClipOptions", "JointKinds"]


class ClipOptions(JointOptions):
    """CLIP or SigLIP, by transformers: texts and pictures."""

    encoder: ClassVar[str] = "penchant.encoders.joint:Clip"
    modalities: ClassVar[tuple[str, ...]] = ("text", "image")
    kind: Literal["clip"] = "clip"


class ClapOptions(JointOptions):
    """CLAP, by transformers: texts and sounds."""

    encoder: ClassVar[str] = "penchant.encoders.joint:Clap"
    modalities: ClassVar[tuple[str, ...]] = ("text", "audio")
    kind: Literal["clap"] = "clap"


JointKinds = Annotated[ClipOptions | ClapOptions, Field(discriminator="kind")]
