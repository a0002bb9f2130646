"""All encoders behind one door: contents in, unit vectors by modality out.

Inputs are prepared in a few threads, while the forward passes have a single thread, which owns the device; the
event loop waits for both without being held. What cannot be used is refused by itself, with a reason, and
changes nothing for its neighbours. A forward pass that fails is another matter: that is no input's fault, and
its exception reaches the caller.
"""

import asyncio
import base64
import io
import os
import time
import wave
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Self, TypeVar

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.audio import MfccStatistics
from penchant.encoders.base import Encoder, Undecodable, Vectors, extra, unit_rows
from penchant.encoders.image import ColourShape
from penchant.encoders.text import MiniLM
from penchant.settings import EncoderSettings

__all__ = ["Content", "Embedded", "Embedder", "Refusal", "Space", "space"]

# Prepared at a time: it bounds what decoded pictures and sounds may occupy (60 s are 4 MB).
CHUNK = 32
# A text's tokens are few, and the more texts are sorted together, the less is computed on padding: 4.5 ms for a film's
# title and genres where 32 at a time take 6.7.
TEXT_CHUNK = 512
MAX_THREADS = 4

Vector = NDArray[np.float32]
Input = TypeVar("Input", str, bytes)
Prepared = TypeVar("Prepared")
Raw = TypeVar("Raw")
Result = TypeVar("Result")

log = structlog.get_logger()


class Content(Struct, frozen=True, kw_only=True):
    """What an item, a post or an upload contains. Text of spaces alone is no text."""

    text: str = ""
    images: tuple[bytes, ...] = ()
    sounds: tuple[bytes, ...] = ()


class Refusal(Struct, frozen=True, kw_only=True):
    """A part of a content that could not be used: its modality, a short reason for counting, and words."""

    modality: str
    reason: str
    detail: str


class Embedded(Struct, frozen=True, kw_only=True):
    """A content's unit vectors, by modality; those that it lacks, or that were refused, are absent."""

    slices: dict[str, Vector]
    refusals: tuple[Refusal, ...] = ()


class Space(Struct, frozen=True, kw_only=True):
    """Where contents are embedded: dimension and fingerprint of each slice, in the order of the slices."""

    dimensions: dict[str, int]
    fingerprints: dict[str, str]


ENCODERS: Mapping[str, type[MiniLM | ColourShape | MfccStatistics]] = {
    "text": MiniLM,
    "image": ColourShape,
    "audio": MfccStatistics,
}


def space() -> Space:
    """The space that `Embedder` embeds in. Loads no model, and needs no optional part."""
    return Space(
        dimensions={modality: encoder.dimension for modality, encoder in ENCODERS.items()},
        fingerprints={modality: encoder.fingerprint for modality, encoder in ENCODERS.items()},
    )


class Encoders(Struct, frozen=True):
    """The encoders of one process, loaded."""

    text: MiniLM
    image: ColourShape
    audio: MfccStatistics


class Embedder:
    """Embeds contents; an async context manager. The models are loaded on first use, or by `warm_up`.

    Args:
        settings: what media may be, and how many threads a forward pass may use.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._encoders: Encoders | None = None
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "prepare")
        self._device = ThreadPoolExecutor(1, "forward")

    @property
    def dimensions(self) -> dict[str, int]:
        """Components of each slice, in the order of the slices."""
        return space().dimensions

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each slice's encoder, in the order of the slices."""
        return space().fingerprints

    async def warm_up(self) -> None:
        """Loads the models and encodes an example of each modality, so that the first event waits for nothing.

        Raises:
            ConfigurationError: the optional part that encodes is not installed, or not the one known.
        """
        started = time.perf_counter()
        await self.embed([example()])
        log.info("encoders are ready", seconds=round(time.perf_counter() - started, 1))

    async def embed(self, contents: Sequence[Content]) -> list[Embedded]:
        """Embeds contents, in order. An input that occurs several times is encoded once.

        Raises:
            ConfigurationError: as `warm_up`.
        """
        encoders = await self._on_device(self._load)
        texts = [(content.text,) if content.text.strip() else () for content in contents]
        images = [content.images for content in contents]
        sounds = [content.sounds for content in contents]
        of_text, of_image, of_audio = await asyncio.gather(
            self._encode(encoders.text, texts, TEXT_CHUNK),
            self._encode(encoders.image, images),
            self._encode(encoders.audio, sounds),
        )
        return [
            assemble(
                {
                    "text": [of_text[one] for one in text],
                    "image": [of_image[one] for one in pictures],
                    "audio": [of_audio[one] for one in clips],
                }
            )
            for text, pictures, clips in zip(texts, images, sounds, strict=True)
        ]

    async def close(self) -> None:
        """Waits for what is under way, and ends the threads."""
        for executor in (self._pool, self._device):
            await asyncio.to_thread(executor.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _load(self) -> Encoders:
        """The encoders; runs in the device's thread alone, so that they are loaded once."""
        if self._encoders is None:
            extra("torch").set_num_threads(self._settings.threads or max(1, (os.cpu_count() or 1) - 1))
            self._encoders = Encoders(
                text=MiniLM(),
                image=ColourShape(max_pixels=self._settings.max_pixels),
                audio=MfccStatistics(max_seconds=self._settings.max_audio_s),
            )
        return self._encoders

    async def _encode(
        self, encoder: Encoder[Input, Prepared, Raw], inputs: Iterable[Sequence[Input]], size: int = CHUNK
    ) -> dict[Input, Vector | Undecodable]:
        """For each distinct input its unit vector, or why there is none; so many are prepared at a time."""
        loop = asyncio.get_running_loop()
        distinct = list(dict.fromkeys(chain.from_iterable(inputs)))
        outcomes: dict[Input, Vector | Undecodable] = {}
        for start in range(0, len(distinct), size):
            chunk = distinct[start : start + size]
            pending = [loop.run_in_executor(self._pool, encoder.prepare, one) for one in chunk]
            usable: dict[Input, Prepared] = {}
            for one, preparing in zip(chunk, pending, strict=True):
                try:
                    usable[one] = await preparing
                except Undecodable as refusal:
                    outcomes[one] = refusal
            if usable:
                vectors = await self._on_device(forward, encoder, list(usable.values()))
                outcomes.update(zip(usable, vectors, strict=True))
        return outcomes

    async def _on_device(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._device, function, *arguments)


def forward(encoder: Encoder[Input, Prepared, Raw], prepared: Sequence[Prepared]) -> Vectors:
    """Both steps that follow preparation."""
    return encoder.finish(encoder.forward(prepared))


def assemble(outcomes: Mapping[str, Sequence[Vector | Undecodable]]) -> Embedded:
    """A content's slices from what became of its inputs, by modality: the mean direction of those usable."""
    slices: dict[str, Vector] = {}
    refusals: list[Refusal] = []
    for modality, results in outcomes.items():
        vectors = [result for result in results if not isinstance(result, Undecodable)]
        if vectors:
            slices[modality] = unit_rows(np.mean(vectors, axis=0, keepdims=True))[0]
        refusals += [
            Refusal(modality=modality, reason=result.reason, detail=str(result))
            for result in results
            if isinstance(result, Undecodable)
        ]
    return Embedded(slices=slices, refusals=tuple(refusals))


def example() -> Content:
    """A content of all modalities, as small as they come."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(range(256)) * 16)
    pixel = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAAAAAAALAAAAAABAAEAAAIBRAA7")
    return Content(text="an example", images=(pixel,), sounds=(sound.getvalue(),))
