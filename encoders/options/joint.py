"""Options of what encodes several modalities into one slice."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import JointOptions

__all__ = ["ClapOptions", "ClipOptions", "JointKinds", "VisionLanguageOptions"]


class ClipOptions(JointOptions):
    """CLIP or SigLIP, by transformers: texts and pictures."""

    encoder: ClassVar[str] = "penchant.encoders.joint:Towers"
    modalities: ClassVar[tuple[str, ...]] = ("text", "image")
    families: ClassVar[frozenset[str]] = frozenset({"clip", "siglip", "siglip2"})
    kind: Literal["clip"] = "clip"


class ClapOptions(JointOptions):
    """CLAP, by transformers: texts and sounds."""

    encoder: ClassVar[str] = "penchant.encoders.joint:Towers"
    modalities: ClassVar[tuple[str, ...]] = ("text", "audio")
    families: ClassVar[frozenset[str]] = frozenset({"clap"})
    kind: Literal["clap"] = "clap"


class VisionLanguageOptions(JointOptions):
    """A language model that sees (Qwen-VL, LLaVA, Idefics3), by transformers: text and pictures in one forward pass."""

    encoder: ClassVar[str] = "penchant.encoders.vision_language:VisionLanguage"
    modalities: ClassVar[tuple[str, ...]] = ("text", "image")
    # Those of which a tiny model is compared with transformers in the tests.
    families: ClassVar[frozenset[str]] = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava", "idefics3"})
    kind: Literal["vision-language"] = "vision-language"
    instruction: str = Field(
        default="", max_length=4_096, description="the system's turn before a content, as the model was trained with"
    )
    query_instruction: str | None = Field(
        default=None, max_length=4_096, description="likewise before a search; unset: the same"
    )
    max_tokens: int = Field(default=512, ge=4, le=32_768, description="read of a text; pictures come on top")
    max_pictures: int = Field(default=4, ge=1, le=32, description="of one content; what is more is refused")
    picture_side: int = Field(
        default=768, ge=28, le=4_096, description="longest side that pictures are shrunk to, which bounds their tokens"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="that the model computes in; half precision is for GPUs"
    )


JointKinds = Annotated[ClipOptions | ClapOptions | VisionLanguageOptions, Field(discriminator="kind")]
