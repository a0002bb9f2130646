"""Options of what encodes sounds."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from penchant.encoders.options.base import InJoint, ModelOptions, Options

__all__ = ["AudioOptions", "LogMelOptions", "MfccOptions", "TorchaudioOptions", "TransformersAudioOptions"]


class MfccOptions(Options):
    """Statistics of mel-frequency cepstral coefficients."""

    encoder: ClassVar[str] = "penchant.encoders.audio:MfccStatistics"
    kind: Literal["mfcc"] = "mfcc"


class LogMelOptions(Options):
    """Mean and spread of a sound's mel bands: fit for a first try; the coefficients tell more."""

    encoder: ClassVar[str] = "penchant.encoders.audio:LogMelStatistics"
    kind: Literal["log-mel"] = "log-mel"


class ListeningOptions(ModelOptions):
    """What models that listen have in common."""

    window_s: float = Field(
        default=10.0, ge=1, le=60, description="longest stretch heard at once; the features of several are averaged"
    )


class TransformersAudioOptions(ListeningOptions):
    """Any audio model of transformers (wav2vec 2.0, HuBERT, WavLM, AST …), by its features averaged over time."""

    encoder: ClassVar[str] = "penchant.encoders.listening:TransformersAudio"
    kind: Literal["transformers"] = "transformers"
    pooling: Literal["mean", "pooler"] = Field(
        default="mean", description="mean: over time; pooler: as the model itself pools for classes, such as AST"
    )


class TorchaudioOptions(ListeningOptions):
    """A pipeline of torchaudio (wav2vec 2.0, HuBERT, WavLM), by the features of its last layer averaged over time."""

    encoder: ClassVar[str] = "penchant.encoders.listening:TorchaudioPipeline"
    kind: Literal["torchaudio"] = "torchaudio"
    pipeline: str = Field(
        pattern=r"^[A-Z0-9_]+$",
        description="its name in torchaudio.pipelines; `model` is the folder that its .pth file lies in",
    )


AudioOptions = Annotated[
    MfccOptions | LogMelOptions | TransformersAudioOptions | TorchaudioOptions | InJoint, Field(discriminator="kind")
]
