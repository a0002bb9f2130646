"""What an encoder is: prepare, forward, finish.

The three steps run in different places, which is why they are apart: `prepare` on one input at a time in a pool
of threads (decoding, resampling, tokenising), `forward` on many prepared inputs at once in the one thread that
owns the device, `finish` on its output (pooling, normalising). An input that cannot be prepared raises
`Undecodable` by itself and takes no other input of its batch with it.
"""

import hashlib
import importlib
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from penchant.errors import ConfigurationError, PenchantError

__all__ = ["Encoder", "Fingerprint", "Undecodable", "Vectors", "extra", "fingerprint", "unit_rows"]

Input_contra = TypeVar("Input_contra", contravariant=True)
Prepared = TypeVar("Prepared")
Raw = TypeVar("Raw")

Fingerprint = str
Vectors = NDArray[np.float32]


class Undecodable(PenchantError):
    """An input is not what it claims to be, or is beyond a bound.

    Args:
        message: what is wrong with it; never any of its content.
        reason: a short word for counting and filtering, such as "corrupt" or "too-large".
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Encoder(Protocol, Generic[Input_contra, Prepared, Raw]):
    """Turns inputs of one modality into unit vectors of `dimension` components.

    Attributes:
        fingerprint: changes whenever the same input may give another vector (model, revision, preprocessing).
    """

    @property
    def dimension(self) -> int:
        """Components of an output vector."""

    @property
    def fingerprint(self) -> Fingerprint:
        """Stands for everything that the output depends on."""

    def prepare(self, one: Input_contra) -> Prepared:
        """Decodes one input; runs in any thread.

        Raises:
            Undecodable: the input cannot be used.
        """

    def forward(self, batch: Sequence[Prepared]) -> Raw:
        """Encodes many prepared inputs at once; runs in the thread that owns the device."""

    def finish(self, raw: Raw) -> Vectors:
        """Pools and normalises: shape (inputs, dimension), float32, rows of unit length or all zero."""


def unit_rows(rows: NDArray[np.floating]) -> Vectors:
    """`rows` of shape (n, d) scaled to unit length as float32; rows of zeros stay zeros."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros(rows.shape), where=norms > 0)
    return scaled.astype(np.float32)


def fingerprint(*parts: object) -> Fingerprint:
    """A short digest of everything that an encoder's output depends on."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def extra(module: str, *, what: str = "Embedding") -> Any:
    """Imports a module of the optional part that encodes.

    A process that encodes nothing runs without that part, and imports the encoders' modules all the same.

    Args:
        module: its name.
        what: needs it.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"{what} needs {error.name or module}, which is not installed",
            hint='Install the encoders with: pip install "penchant[encoders]"',
        ) from error
