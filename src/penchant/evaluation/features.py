"""Items' texts as vectors, encoded once: a second evaluation of the same texts reads them from a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Host, Undecodable
from penchant.encoders.embedder import TEXT_CHUNK, forward
from penchant.encoders.options.text import MiniLMOptions
from penchant.encoders.text import MiniLM
from penchant.errors import ConfigurationError
from penchant.evaluation.protocol import Progress

__all__ = ["text_vectors"]


def text_vectors(
    texts: Sequence[str], cache: Path, *, threads: int = 0, progress: Progress | None = None
) -> NDArray[np.float32]:
    """The vectors that the content lane would store, raw: unit rows, zero where there is nothing to read.

    Args:
        texts: n of them.
        cache: a folder, made where it is missing; a file in it is named after the encoder and these very texts.
        threads: of the forward passes; 0: as many as torch takes.
        progress: is told how far it is.

    Returns:
        Shape (n, dimension).

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the folder cannot be written.
    """
    digest = hashlib.blake2b(msgspec.msgpack.encode(list(texts)), digest_size=8).hexdigest()
    path = cache / f"text-{MiniLM.fingerprint}-{digest}.npy"
    if path.is_file():
        known: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return known
    vectors = encoded(texts, threads, progress or (lambda *_: None))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{cache} cannot be written: {error.strerror}") from None
    return vectors


def encoded(texts: Sequence[str], threads: int, tell: Progress) -> NDArray[np.float32]:
    """The vectors of texts; those that cannot be read are as if there were none."""
    encoder = MiniLM(MiniLMOptions(), Host())
    if threads:
        import torch  # noqa: PLC0415  an optional package, which the encoder has found

        torch.set_num_threads(threads)
    vectors = np.zeros((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), TEXT_CHUNK):
        tell("encoding texts", start, len(texts))
        readable = {}
        for place in range(start, min(start + TEXT_CHUNK, len(texts))):
            try:
                readable[place] = encoder.prepare(texts[place])
            except Undecodable:
                continue
        if readable:
            vectors[list(readable)] = forward(encoder, list(readable.values()))
    return vectors
