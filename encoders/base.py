"""What an encoder is: prepare, forward, finish.

The three steps run in different places, which is why they are apart: `prepare` on one input at a time in a pool
of threads (decoding, resampling, tokenising), `forward` on many prepared inputs at once in the one thread that
owns the device, `finish` on its output (pooling, normalising). An input that cannot be prepared raises
`Undecodable` by itself and takes no other input of its batch with it.
"""

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.options.base import Options
from penchant.errors import ConfigurationError, PenchantError

__all__ = [
    "Decoder",
    "Encoder",
    "Fingerprint",
    "FixedEncoder",
    "Host",
    "Identity",
    "JointEncoder",
    "PartUndecodable",
    "Query",
    "Undecodable",
    "Vectors",
    "Whole",
    "extra",
    "fingerprint",
    "unit_rows",
]

Input = TypeVar("Input")
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


class Query(Struct, frozen=True):
    """A text that asks for something: some models take it in another way than what may be found."""

    text: str


class Whole(Struct, frozen=True):
    """What a content has of several modalities, for an encoder that takes all at once: inputs with their modality."""

    parts: tuple[tuple[str, str | Query | bytes], ...]

    def without(self, parts: Sequence[tuple[str, str | Query | bytes]]) -> "Whole":
        """The rest."""
        return Whole(tuple(one for one in self.parts if one not in parts))


class PartUndecodable(Undecodable):
    """A part of a whole cannot be used; the rest may be.

    Args:
        message: as of any.
        reason: likewise.
        part: which.
    """

    def __init__(self, message: str, *, reason: str, part: tuple[str, str | Query | bytes]) -> None:
        super().__init__(message, reason=reason)
        self.part = part


class Identity(Struct, frozen=True, kw_only=True):
    """What must be known of an encoder to open a store, and is known without loading it.

    Attributes:
        dimension: components of an output vector.
        fingerprint: changes whenever the same input may give another vector (model, revision, preprocessing).
    """

    dimension: int
    fingerprint: Fingerprint


class Decoder(Protocol):
    """Decodes pictures and sounds somewhere else than in the thread that asks, which waits."""

    def picture(self, data: bytes, *, side: int, squeezed: bool = False) -> NDArray[np.uint8]:
        """As `penchant.encoders.image.decode_picture`."""

    def sound(self, data: bytes) -> tuple[NDArray[np.float64], int]:
        """As `penchant.encoders.audio.decode_sound`."""


class Host(Struct, frozen=True, kw_only=True):
    """What an encoder is run on, and within. None of it changes a vector beyond rounding.

    Attributes:
        device: of the forward passes, as torch names it: "cpu", "cuda" or "mps".
        autocast: compute in half precision where the device is none of the processor's cores.
        max_pixels: of one picture, as its header declares it.
        max_audio_s: how long a sound may be.
        decoder: decodes what strangers send; None: the thread that prepares does, which is for files that are trusted.
    """

    device: str = "cpu"
    autocast: bool = False
    max_pixels: int = 40_000_000
    max_audio_s: float = 60.0
    decoder: Decoder | None = None


class Encoder(ABC, Generic[Input, Prepared, Raw]):
    """Turns inputs of one modality into unit vectors. Built by `(options, host)`, which loads its model.

    Attributes:
        dimension: components of an output vector.
        fingerprint: stands for everything that the output depends on.
        budget: sizes that one forward pass takes, each counted as the largest among them.
        ahead: inputs that may be prepared before their forward pass begins. It bounds what they occupy; where sizes
            differ, it is also how many are sorted together.
    """

    dimension: int
    fingerprint: Fingerprint
    budget: int = 16
    ahead: int = 32

    @classmethod
    @abstractmethod
    def identify(cls, options: Any) -> Identity:
        """Dimension and fingerprint of the encoder that the options describe, without loading it.

        Reads small files at most, and digests large ones; fetches nothing, and needs no optional part.

        Raises:
            ConfigurationError: they cannot be known here.
        """

    @abstractmethod
    def prepare(self, one: Input) -> Prepared:
        """Decodes one input; runs in any thread.

        Raises:
            Undecodable: the input cannot be used.
        """

    def prepare_query(self, one: Input) -> Prepared:
        """Likewise, of a text that asks for something."""
        return self.prepare(one)

    def size(self, prepared: Prepared) -> int:  # noqa: ARG002  a text's is how many tokens it has
        """How much of the budget an input takes."""
        return 1

    @abstractmethod
    def forward(self, batch: Sequence[Prepared]) -> Raw:
        """Encodes many prepared inputs at once; runs in the thread that owns the device."""

    @abstractmethod
    def finish(self, raw: Raw) -> Vectors:
        """Pools and normalises: shape (inputs, dimension), float32, rows of unit length or all zero."""


class FixedEncoder(Encoder[Input, Prepared, Raw]):
    """An encoder that no option changes: dimension and fingerprint are its class's."""

    @classmethod
    def identify(cls, options: Options) -> Identity:  # noqa: ARG003  as other kinds are asked
        """See `Encoder`."""
        return Identity(dimension=cls.dimension, fingerprint=cls.fingerprint)


class JointEncoder(ABC):
    """Encoders of several modalities into one space: their vectors are compared with each other.

    Attributes:
        dimension: components of an output vector, of whatever modality.
        fingerprint: as an encoder's.
        towers: an encoder a modality.
        whole: takes all that a content has of these modalities at once; None: each is encoded by its tower, and the
            content is their mean direction.
    """

    dimension: int
    fingerprint: Fingerprint
    towers: Mapping[str, Encoder[Any, Any, Any]]
    whole: Encoder[Whole, Any, Any] | None = None

    @classmethod
    @abstractmethod
    def identify(cls, options: Any) -> Identity:
        """See `Encoder.identify`."""


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
