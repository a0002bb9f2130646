"""Items' texts as vectors, encoded once: a second evaluation of the same texts reads them from a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Undecodable, extra
from penchant.encoders.batching import Passes, prepare_all
from penchant.encoders.devices import host_of
from penchant.encoders.registry import build, identity, slot_of, tower
from penchant.errors import ConfigurationError
from penchant.evaluation.protocol import Progress
from penchant.settings import EncoderSettings

__all__ = ["text_vectors"]

TEXT = "text"
CHUNK = 512


def text_vectors(
    texts: Sequence[str], cache: Path, encoders: EncoderSettings, *, progress: Progress | None = None
) -> NDArray[np.float32]:
    """The vectors that the content lane would store, raw: unit rows, zero where there is nothing to read.

    Args:
        texts: n of them.
        cache: a folder, made where it is missing; a file in it is named after the encoder and these very texts.
        encoders: which encoder, and how many threads its forward passes take; 0: as many as torch takes.
        progress: is told how far it is.

    Returns:
        Shape (n, dimension).

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the folder cannot be written.
    """
    digest = hashlib.blake2b(msgspec.msgpack.encode(list(texts)), digest_size=8).hexdigest()
    path = cache / f"text-{identity(slot_of(encoders, TEXT).options).fingerprint}-{digest}.npy"
    if path.is_file():
        known: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return known
    vectors = encoded(texts, encoders, progress or (lambda *_: None))
    try:
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        unfinished.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{cache} cannot be written: {error.strerror}") from None
    return vectors


def encoded(texts: Sequence[str], settings: EncoderSettings, tell: Progress) -> NDArray[np.float32]:
    """The vectors of texts; those that cannot be read are as if there were none."""
    host = host_of(settings)
    encoder = tower(build(slot_of(settings, TEXT).options, host), TEXT)
    if settings.threads:
        extra("torch").set_num_threads(settings.threads)
    passes = Passes(encoder, host)
    vectors = np.zeros((len(texts), encoder.dimension), np.float32)
    for start in range(0, len(texts), CHUNK):
        tell("encoding texts", start, len(texts))
        prepared = prepare_all(encoder, texts[start : start + CHUNK])
        readable = {start + place: one for place, one in enumerate(prepared) if not isinstance(one, Undecodable)}
        if readable:
            vectors[list(readable)] = passes(list(readable.values()))
    return vectors
