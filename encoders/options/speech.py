"""Options of what writes down what is said."""

from typing import Literal

from pydantic import Field

from penchant.encoders.options.base import ModelOptions

__all__ = ["SpeechOptions"]


class SpeechOptions(ModelOptions):
    """Speech to text by transformers: Whisper and its like, or any model that spells by CTC (wav2vec 2.0 …)."""

    kind: Literal["transformers"] = "transformers"
    pin: str = Field(
        default="",
        pattern=r"^([0-9a-f]{16})?$",
        description="fingerprint as `penchant encoders check` says it, for processes without the files",
    )
    language: str = Field(
        default="", max_length=32, description="of all sounds, such as en; empty: as the model finds (Whisper)"
    )
    max_tokens: int = Field(default=128, ge=1, le=448, description="written down of one window at most (Whisper)")
    window_s: float = Field(default=30.0, ge=1, le=60, description="longest stretch heard at once; Whisper has 30 s")
