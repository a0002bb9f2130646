"""Options of what encodes texts."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, ModelOptions, Options, PinnedOptions

__all__ = [
    "DType",
    "HashedWordsOptions",
    "MiniLMOptions",
    "Pooling",
    "TextOptions",
    "TfIdfOptions",
    "TransformerTextOptions",
    "WordVectorsOptions",
]

Pooling = Literal["mean", "cls", "last"]
DType = Literal["float32", "bfloat16", "float16", "int8"]
HashedDimension = Annotated[int, Field(ge=16, le=8_192)]


class MiniLMOptions(Options):
    """all-MiniLM-L6-v2, from a package that carries its weights."""

    encoder: ClassVar[str] = "penchant.encoders.text:MiniLM"
    kind: Literal["minilm"] = "minilm"
    dtype: Literal["float32", "int8"] = Field(
        default="float32", description="that the model computes in; int8 is for CPUs: faster and less exact"
    )


class TransformerTextOptions(ModelOptions):
    """Any encoder or decoder of texts that transformers knows."""

    encoder: ClassVar[str] = "penchant.encoders.transformer_text:TransformerText"
    kind: Literal["transformers"] = "transformers"
    pooling: Pooling | None = Field(
        default=None, description="hidden states that become the vector; unset: as the model's folder says"
    )
    max_tokens: int | None = Field(
        default=None, ge=4, le=32_768, description="of one text; unset: as the model's folder says, at most 512"
    )
    passage_prefix: str | None = Field(
        default=None, max_length=4_096, description="put before a text; unset: as the model's folder says, or none"
    )
    query_prefix: str | None = Field(
        default=None, max_length=4_096, description="put before a search, such as an instruction; unset: likewise"
    )
    dimension: int | None = Field(
        default=None, ge=1, le=65_536, description="components kept, for models trained so; unset: all"
    )
    dtype: DType = Field(
        default="float32",
        description="that the model computes in; half precision is for GPUs, int8 for CPUs: faster and less exact",
    )


class HashedWordsOptions(Options):
    """Words, each at a place that its hash chooses; nothing is fitted."""

    encoder: ClassVar[str] = "penchant.encoders.bag_of_words:HashedWords"
    kind: Literal["hashing"] = "hashing"
    dimension: HashedDimension = Field(default=512, description="components that words share")


class TfIdfOptions(PinnedOptions):
    """Words, each at a place that its hash chooses, the rarer the heavier."""

    encoder: ClassVar[str] = "penchant.encoders.bag_of_words:TfIdf"
    kind: Literal["tfidf"] = "tfidf"
    frequencies: Path = Field(description="file that `penchant encoders frequencies` made of a collection of texts")
    dimension: HashedDimension = Field(default=512, description="components that words share")


class WordVectorsOptions(PinnedOptions):
    """The mean of the vectors of a text's words."""

    encoder: ClassVar[str] = "penchant.encoders.word_vectors:WordVectors"
    kind: Literal["word-vectors"] = "word-vectors"
    vectors: Path = Field(description="file of words and their vectors: GloVe's, or word2vec's text format")
    max_words: int = Field(
        default=200_000, ge=1, le=5_000_000, description="read of the file: its first, most frequent"
    )
    frequencies: Path | None = Field(
        default=None,
        description="file that `penchant encoders frequencies` made: weighs words, the rarer the heavier; unset: alike",
    )


TextOptions = Annotated[
    MiniLMOptions | TransformerTextOptions | HashedWordsOptions | TfIdfOptions | WordVectorsOptions | InJoint,
    Field(discriminator="kind"),
]
