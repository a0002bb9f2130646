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

from penchant.encoders.base import Encoder, Host, JointEncoder, Undecodable, Vectors, extra, unit_rows
from penchant.encoders.registry import build, identity, slots
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["Content", "Embedded", "Embedder", "Refusal", "Space", "space"]

# Prepared at a time: it bounds what decoded pictures and sounds may occupy (60 s are 4 MB).
CHUNK = 32
# A text's tokens are few, and the more texts are sorted together, the less is computed on padding: 4.5 ms for a film's
# title and genres where 32 at a time take 6.7.
TEXT_CHUNK = 512
MAX_THREADS = 4

TEXT, IMAGE, AUDIO = MODALITIES = ("text", "image", "audio")

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
    """Where contents are embedded: dimension, fingerprint and modalities of each slice, in the order of the slices."""

    dimensions: dict[str, int]
    fingerprints: dict[str, str]
    modalities: dict[str, tuple[str, ...]]

    def shares(self, by_modality: Mapping[str, float]) -> dict[str, float]:
        """The share of each slice: together what its modalities have."""
        return {name: sum(by_modality[one] for one in modalities) for name, modalities in self.modalities.items()}


def space(settings: EncoderSettings) -> Space:
    """The space that `Embedder` embeds in. Loads no model, and needs no optional part.

    Raises:
        ConfigurationError: an encoder's dimension and fingerprint cannot be known in this process.
    """
    chosen = slots(settings)
    identities = {slot.name: identity(slot.options) for slot in chosen}
    return Space(
        dimensions={name: found.dimension for name, found in identities.items()},
        fingerprints={name: found.fingerprint for name, found in identities.items()},
        modalities={slot.name: slot.modalities for slot in chosen},
    )


Encoders = dict[str, Encoder[Any, Any, Any]]


class Embedder:
    """Embeds contents; an async context manager. The models are loaded on first use, or by `warm_up`.

    Args:
        settings: what encodes, what media may be, and how many threads a forward pass may use.

    Raises:
        ConfigurationError: an encoder's dimension and fingerprint cannot be known in this process.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        self._space = space(settings)
        self._encoders: Encoders | None = None
        self._pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), "prepare")
        self._device = ThreadPoolExecutor(1, "forward")

    @property
    def dimensions(self) -> dict[str, int]:
        """Components of each slice, in the order of the slices."""
        return self._space.dimensions

    @property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each slice's encoder, in the order of the slices."""
        return self._space.fingerprints

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
        parts = {modality: [inputs_of(content, modality) for content in contents] for modality in encoders}
        found = dict(
            zip(
                encoders,
                await asyncio.gather(
                    *(
                        self._encode(encoder, parts[modality], TEXT_CHUNK if modality == TEXT else CHUNK)
                        for modality, encoder in encoders.items()
                    )
                ),
                strict=True,
            )
        )
        return [
            assemble(
                {modality: [found[modality][one] for one in parts[modality][place]] for modality in encoders},
                self._space.modalities,
            )
            for place in range(len(contents))
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
            host = Host(
                device=device(self._settings.device),
                max_pixels=self._settings.max_pixels,
                max_audio_s=self._settings.max_audio_s,
            )
            self._encoders = loaded(self._settings, host)
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


def loaded(settings: EncoderSettings, host: Host) -> Encoders:
    """The encoder of each modality; those of a joint slice are one model's towers."""
    found: Encoders = {}
    for slot in slots(settings):
        encoder = build(slot.options, host)
        for modality in slot.modalities:
            found[modality] = encoder.towers[modality] if isinstance(encoder, JointEncoder) else encoder
    return {modality: found[modality] for modality in MODALITIES}


def device(wanted: str) -> str:
    """What forward passes run on.

    Args:
        wanted: "auto" or a device by name.

    Raises:
        ConfigurationError: torch does not find it.
    """
    torch = extra("torch")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, is_there in there.items() if is_there)
    if not there[wanted]:
        raise ConfigurationError(
            f"encoders.device is {wanted}, and torch {torch.__version__} finds none",
            hint="Set it to auto or cpu, or install the build of torch for that device.",
        )
    return wanted


def inputs_of(content: Content, modality: str) -> Sequence[str] | Sequence[bytes]:
    """What a content has of a modality."""
    if modality == TEXT:
        return (content.text,) if content.text.strip() else ()
    return content.images if modality == IMAGE else content.sounds


def assemble(
    outcomes: Mapping[str, Sequence[Vector | Undecodable]], modalities: Mapping[str, Sequence[str]]
) -> Embedded:
    """A content's slices from what became of its inputs: the mean direction of those usable.

    Args:
        outcomes: by modality.
        modalities: of each slice. Where several share one, each that a content has counts the same.
    """
    directions = {
        modality: unit_rows(np.mean(usable, axis=0, keepdims=True))[0]
        for modality, results in outcomes.items()
        if (usable := [result for result in results if not isinstance(result, Undecodable)])
    }
    slices: dict[str, Vector] = {}
    for name, of_slice in modalities.items():
        present = [directions[modality] for modality in of_slice if modality in directions]
        if present:
            slices[name] = present[0] if len(present) == 1 else unit_rows(np.mean(present, axis=0, keepdims=True))[0]
    refusals = [
        Refusal(modality=modality, reason=result.reason, detail=str(result))
        for modality, results in outcomes.items()
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
