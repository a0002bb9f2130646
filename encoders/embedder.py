"""All encoders behind one door: contents in, unit vectors by modality out.

Inputs are prepared in a few threads, while the forward passes have a single thread, which owns the device; the
event loop waits for both without being held. What several events contain is encoded together, and what was encoded
lately is remembered. What cannot be used is refused by itself, with a reason, and changes nothing for its neighbours.
A forward pass that fails is another matter: that is no input's fault, and its exception reaches the caller.
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
from msgspec import Struct, structs
from numpy.typing import NDArray

from penchant.encoders.base import (
    Encoder,
    Host,
    Identity,
    JointEncoder,
    PartUndecodable,
    Query,
    Undecodable,
    Whole,
    extra,
    fingerprint,
    unit_rows,
)
from penchant.encoders.batching import Batcher, Outcome
from penchant.encoders.cache import VectorCache, keys_of
from penchant.encoders.decoding.pool import DecodingPool
from penchant.encoders.devices import host_of
from penchant.encoders.registry import JOINT, build, identity, slots, tower
from penchant.encoders.speech import SpeechToText, identify_speech
from penchant.encoders.transcripts import Transcripts
from penchant.settings import EncoderSettings

__all__ = ["AUDIO", "IMAGE", "MODALITIES", "TEXT", "Content", "Embedded", "Embedder", "Refusal", "Space", "space"]

TEXT, IMAGE, AUDIO = MODALITIES = ("text", "image", "audio")
MAX_THREADS = 4
# A yellow square and half a red one on blue, 12 by 12, GIF: something to see, for encoders that look for it.
EXAMPLE_PICTURE = (
    "R0lGODdhDAAMAIEAAPrcKDx4vsgePAAAACwAAAAADAAMAAAIKwADCBxIsKDBgwgFAli48CDDhgYfAnD4MICAiwMlWsSI8KKAhB5BckwoMCAAOw=="
)

Vector = NDArray[np.float32]
Result = TypeVar("Result")

log = structlog.get_logger()


class Content(Struct, frozen=True, kw_only=True):
    """What an item, a post or an upload contains. Text of spaces alone is no text.

    Attributes:
        text: whatever there is to read.
        asks: whether the text asks for something, as a search does.
        images: encoded pictures.
        sounds: encoded sounds.
    """

    text: str = ""
    asks: bool = False
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


class Part(Struct, frozen=True):
    """What a content has in one slice: its unit vector, if any of it could be used, and what could not."""

    vector: Vector | None
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
    if settings.speech is not None:  # the same content has another text with it, or with another
        read = next(slot.name for slot in chosen if TEXT in slot.modalities)
        together = fingerprint(identities[read].fingerprint, identify_speech(settings.speech))
        identities[read] = Identity(dimension=identities[read].dimension, fingerprint=together)
    return Space(
        dimensions={name: found.dimension for name, found in identities.items()},
        fingerprints={name: found.fingerprint for name, found in identities.items()},
        modalities={slot.name: slot.modalities for slot in chosen},
    )


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
        self._encoders: tuple[Host, dict[str, Encoder[Any, Any, Any]]] | None = None
        self._batchers: dict[str, Batcher[Any, Any]] | None = None
        self._transcripts: Transcripts | None = None
        self._cache = VectorCache(settings.cache_bytes)
        self._under_way: dict[bytes, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, "prepare")
        self._decoder = DecodingPool(settings, processes=threads)
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
        batchers = await self._loaded()
        contents = await self._with_speech(contents)
        slices = self._space.modalities
        parts = await asyncio.gather(
            *(
                self._together(batchers[JOINT], of_slice, contents)
                if name == JOINT and JOINT in batchers
                else self._apart(batchers, of_slice, contents)
                for name, of_slice in slices.items()
            )
        )
        return [
            Embedded(
                slices={
                    name: part.vector for name, part in zip(slices, of_content, strict=True) if part.vector is not None
                },
                refusals=tuple(chain.from_iterable(part.refusals for part in of_content)),
            )
            for of_content in zip(*parts, strict=True)
        ]

    async def encoder(self, modality: str) -> tuple[Host, Encoder[Any, Any, Any]]:
        """What embeds a modality, and what it runs on, loaded."""
        host, encoders = await self.on_device(self._load)
        return host, encoders[modality]

    async def on_device(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Calls a function in the thread that owns the device."""
        return await asyncio.get_running_loop().run_in_executor(self._device, function, *arguments)

    async def close(self) -> None:
        """Waits for what is under way, and ends threads and processes."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for executor in (self._pool, self._device):
            await asyncio.to_thread(executor.shutdown)
        await asyncio.to_thread(self._decoder.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _loaded(self) -> dict[str, Batcher[Any, Any]]:
        """A batcher for each modality; their encoders are loaded once, in the device's thread."""
        if self._batchers is None:
            host, encoders = await self.on_device(self._load)
            self._batchers = self._batchers or {
                modality: Batcher(
                    encoder, host, pool=self._pool, device=self._device, wait_s=self._settings.wait_ms / 1_000
                )
                for modality, encoder in encoders.items()
            }
        return self._batchers

    async def _with_speech(self, contents: Sequence[Content]) -> Sequence[Content]:
        """Contents whose texts have what is said in their sounds, where the settings have that written down."""
        if self._transcripts is None:
            return contents
        said = await self._transcripts.of(chain.from_iterable(content.sounds for content in contents))
        return [
            structs.replace(
                content, text="\n".join(filter(None, [content.text, *(said[one] for one in content.sounds)]))
            )
            for content in contents
        ]

    def _load(self) -> tuple[Host, dict[str, Encoder[Any, Any, Any]]]:
        if self._encoders is None:
            extra("torch").set_num_threads(self._settings.threads or max(1, (os.cpu_count() or 1) - 1))
            host = host_of(self._settings, decoder=self._decoder)
            encoders = loaded(self._settings, host)
            if self._settings.speech is not None:
                speech = SpeechToText(self._settings.speech, host)
                self._transcripts = Transcripts(speech, pool=self._pool, device=self._device)
            self._encoders = host, encoders
        return self._encoders

    async def _apart(
        self, batchers: Mapping[str, Batcher[Any, Any]], modalities: Sequence[str], contents: Sequence[Content]
    ) -> list[Part]:
        """A slice of each content, whose modalities are encoded each by itself."""
        inputs = {modality: [inputs_of(content, modality) for content in contents] for modality in modalities}
        outcomes = await asyncio.gather(
            *(self._encode(modality, batchers[modality], inputs[modality]) for modality in modalities)
        )
        return [
            assemble(
                {
                    modality: [found[one] for one in inputs[modality][place]]
                    for modality, found in zip(modalities, outcomes, strict=True)
                }
            )
            for place in range(len(contents))
        ]

    async def _together(
        self, batcher: Batcher[Any, Any], modalities: Sequence[str], contents: Sequence[Content]
    ) -> list[Part]:
        """Likewise, encoded at once; a part that cannot be used is left out, and the rest encoded without it."""
        vectors: list[Vector | None] = [None] * len(contents)
        refusals: list[list[Refusal]] = [[] for _ in contents]
        left = dict(enumerate(whole_of(content, modalities) for content in contents))
        while left := {place: whole for place, whole in left.items() if whole.parts}:
            outcomes = await self._encode(JOINT, batcher, [left.values()])
            tried, left = left, {}
            for place, whole in tried.items():
                outcome = outcomes[whole]
                if isinstance(outcome, Undecodable):
                    parts = (outcome.part,) if isinstance(outcome, PartUndecodable) else whole.parts
                    refusals[place] += [refusal_of(modality, outcome) for modality, _ in parts]
                    left[place] = whole.without(parts)
                else:
                    vectors[place] = outcome
        return [Part(vector, tuple(found)) for vector, found in zip(vectors, refusals, strict=True)]

    async def _encode(
        self, modality: str, batcher: Batcher[Any, Any], inputs: Iterable[Iterable[Any]]
    ) -> dict[Any, Outcome]:
        """For each distinct input its unit vector, or why there is none. What is known or under way is not begun."""
        distinct: list[Any] = list(dict.fromkeys(chain.from_iterable(inputs)))
        if not distinct:
            return {}
        loop = asyncio.get_running_loop()
        keys = await loop.run_in_executor(self._pool, keys_of, modality, distinct)
        outcomes: dict[Any, Outcome] = {}
        awaited: dict[Any, asyncio.Future[Outcome]] = {}
        fresh: dict[bytes, Any] = {}
        for one, key in zip(distinct, keys, strict=True):
            known = self._cache.get(key)
            if known is not None:
                outcomes[one] = known
                continue
            if key not in self._under_way:
                self._under_way[key] = loop.create_future()
                fresh[key] = one
            awaited[one] = self._under_way[key]
        if fresh:  # a task of its own: others may wait for it when the caller does not any more
            task = loop.create_task(self._settle(batcher, fresh))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for one, future in awaited.items():
            outcomes[one] = await asyncio.shield(future)
        return outcomes

    async def _settle(self, batcher: Batcher[Any, Any], fresh: Mapping[bytes, Any]) -> None:
        """Encodes inputs, and tells all who wait for them."""
        try:
            outcomes = await batcher.encode(list(fresh.values()))
        except BaseException as error:
            for key in fresh:
                future = self._under_way.pop(key)
                future.set_exception(error)
                future.exception()  # taken notice of: nobody may be waiting
            if not isinstance(error, Exception):
                raise
            return
        for key, outcome in zip(fresh, outcomes, strict=True):
            if not isinstance(outcome, Undecodable):
                self._cache.put(key, outcome)
            self._under_way.pop(key).set_result(outcome)


def loaded(settings: EncoderSettings, host: Host) -> dict[str, Encoder[Any, Any, Any]]:
    """The encoder of each modality; those of a joint slice are one model's towers.

    Where that model takes all at once, what does is there under the slice's name.
    """
    found: dict[str, Encoder[Any, Any, Any]] = {}
    for slot in slots(settings):
        encoder = build(slot.options, host)
        for modality in slot.modalities:
            found[modality] = tower(encoder, modality)
        if isinstance(encoder, JointEncoder) and encoder.whole is not None:
            found[slot.name] = encoder.whole
    return found


def inputs_of(content: Content, modality: str) -> Sequence[str] | Sequence[Query] | Sequence[bytes]:
    """What a content has of a modality."""
    if modality == TEXT:
        if not content.text.strip():
            return ()
        return (Query(content.text),) if content.asks else (content.text,)
    return content.images if modality == IMAGE else content.sounds


def whole_of(content: Content, modalities: Sequence[str]) -> Whole:
    """All that a content has of some modalities, each part once."""
    return Whole(
        tuple(dict.fromkeys((modality, one) for modality in modalities for one in inputs_of(content, modality)))
    )


def assemble(outcomes: Mapping[str, Sequence[Outcome]]) -> Part:
    """A content's part in a slice from what became of its inputs: the mean direction of those usable.

    Args:
        outcomes: by modality. Where there are several, each that a content has counts the same.
    """
    directions = [
        unit_rows(np.mean(usable, axis=0, keepdims=True))[0]
        for results in outcomes.values()
        if (usable := [result for result in results if not isinstance(result, Undecodable)])
    ]
    vector = unit_rows(np.mean(directions, axis=0, keepdims=True))[0] if len(directions) > 1 else None
    return Part(
        directions[0] if len(directions) == 1 else vector,
        tuple(
            refusal_of(modality, result)
            for modality, results in outcomes.items()
            for result in results
            if isinstance(result, Undecodable)
        ),
    )


def refusal_of(modality: str, error: Undecodable) -> Refusal:
    """Why a part of a content could not be used."""
    return Refusal(modality=modality, reason=error.reason, detail=str(error))


def example() -> Content:
    """A content of all modalities, as small as they come."""
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(range(256)) * 16)
    return Content(text="an example", images=(base64.b64decode(EXAMPLE_PICTURE),), sounds=(sound.getvalue(),))
