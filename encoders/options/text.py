"""Options of what encodes texts."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, Options

__all__ = ["MiniLMOptions", "TextOptions"]


class MiniLMOptions(Options):
    """all-MiniLM-L6-v2, from a package that carries its weights."""

    encoder: ClassVar[str] = "penchant.encoders.text:MiniLM"
    kind: Literal["minilm"] = "minilm"


TextOptions = Annotated[MiniLMOptions | InJoint, Field(discriminator="kind")]
