"""Images as bags of visual words: which of a vocabulary of local patterns a picture has, wherever they are in it.

Points that stand out at any scale are described by the gradients around them (Lowe, "Distinctive Image Features from
Scale-Invariant Keypoints", 2004); each description counts for the nearest of so many words, which were found by
k-means in the pictures of a folder (Sivic and Zisserman, "Video Google", 2003). Descriptions are compared by the
roots of their shares, as are pictures (Arandjelović and Zisserman, 2012).

Fit for photographs of the same thing from another side, and for prints and logos; of little use on tiny pictures.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Encoder, Host, Identity, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.image import BACKGROUND, Pixels, pixels_of
from penchant.encoders.models import digest_of
from penchant.encoders.options.image import SiftWordsOptions
from penchant.errors import ConfigurationError

__all__ = ["SiftWords", "Words", "fit_vocabulary", "load_vocabulary", "save_vocabulary"]

LONGEST = 160  # the longer side that every picture is brought to: 50 ms and some 100 points
COMPONENTS = 128  # of a description
MAX_WORDS = 4_096
# A vocabulary is fitted on as many descriptions at most, drawn evenly: k-means looks at each of them in each pass.
MAX_DESCRIPTIONS = 50_000
PASSES = 20

Words = NDArray[np.float32]


class SiftWords(Encoder[bytes, Words, NDArray[np.float64]]):
    """Encoded pictures (bytes) to as many components as the vocabulary has words.

    Raises:
        ConfigurationError: the optional part that encodes is not installed, or the vocabulary cannot be read.
    """

    def __init__(self, options: SiftWordsOptions, host: Host) -> None:
        self._host = host
        self._words = load_vocabulary(options.vocabulary)
        self._describe = Describer()
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint

    @classmethod
    def identify(cls, options: SiftWordsOptions) -> Identity:
        """See `Encoder`."""
        return Identity(
            dimension=len(load_vocabulary(options.vocabulary)),
            fingerprint=fingerprint("sift", 1, LONGEST, BACKGROUND, digest_of(options.vocabulary.expanduser())),
        )

    def prepare(self, one: bytes) -> Words:
        """A picture's descriptions: shape (points, 128).

        Raises:
            Undecodable: as `decode_picture`; or no point stands out ("featureless").
        """
        return self._describe(pixels_of(one, self._host, side=LONGEST))

    def forward(self, batch: Sequence[Words]) -> NDArray[np.float64]:
        """Roots of how often each word occurs: shape (pictures, words)."""
        return np.sqrt([np.bincount(nearest(one, self._words), minlength=self.dimension) for one in batch])

    def finish(self, raw: NDArray[np.float64]) -> Vectors:
        """Unit vectors: shape (pictures, words)."""
        return unit_rows(raw)


class Describer:
    """Pixels to descriptions of the points that stand out in them."""

    def __init__(self) -> None:
        self._image = extra("PIL.Image")
        self._grey = extra("skimage.color").rgb2gray
        self._sift = extra("skimage.feature").SIFT

    def __call__(self, pixels: Pixels) -> Words:
        """Descriptions of shape (points, 128), unit length: roots of shares.

        Raises:
            Undecodable: there are none ("featureless").
        """
        height, width = pixels.shape[:2]
        scale = LONGEST / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resized = self._image.fromarray(pixels).resize(size, self._image.Resampling.BICUBIC)
        found = self._sift(upsampling=1)
        try:
            found.detect_and_extract(self._grey(np.asarray(resized)))
        except (RuntimeError, ValueError, IndexError):  # no point at all, or a picture that is a line
            raise Undecodable("No point of the image stands out", reason="featureless") from None
        shares = np.asarray(found.descriptors, np.float64)
        if not shares.size:
            raise Undecodable("No point of the image stands out", reason="featureless")
        roots: Words = np.sqrt(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)).astype(np.float32)
        return roots


def nearest(descriptions: Words, words: Words) -> NDArray[np.intp]:
    """For each description, shape (points, 128), the place of the nearest of the words, shape (words, 128)."""
    places: NDArray[np.intp] = ((words**2).sum(axis=1) - 2 * descriptions @ words.T).argmin(axis=1)
    return places


def fit_vocabulary(pictures: Iterable[bytes], *, words: int, host: Host, seed: int = 0) -> Words:
    """Words that tell the local patterns of pictures apart, by k-means: shape (words, 128).

    Args:
        pictures: encoded; those that cannot be used are passed over.
        words: how many.
        host: bounds of a picture.
        seed: the same pictures in the same order and the same seed give the same words.

    Raises:
        ConfigurationError: the pictures have fewer points than words are wanted.
    """
    describe = Describer()
    draw = np.random.default_rng(seed)
    kept = np.empty((0, COMPONENTS), np.float32)
    # A sample of all points, however many there are: the ones with the smallest of as many random numbers.
    ranks = np.empty(0)
    for picture in pictures:
        try:
            found = describe(pixels_of(picture, host, side=LONGEST))
        except Undecodable:
            continue
        kept, ranks = np.concatenate([kept, found]), np.concatenate([ranks, draw.random(len(found))])
        if len(kept) > 2 * MAX_DESCRIPTIONS:
            kept, ranks = sample(kept, ranks)
    kept, _ = sample(kept, ranks)
    if len(kept) < words:
        raise ConfigurationError(
            f"The pictures have {len(kept)} points that stand out, which is less than {words} words",
            hint="Give more pictures, or ask for fewer words.",
        )
    cluster: Any = extra("scipy.cluster.vq")
    centres, _ = cluster.kmeans2(kept, words, iter=PASSES, minit="++", rng=draw)
    return np.asarray(centres, np.float32)


def sample(descriptions: Words, ranks: NDArray[np.float64]) -> tuple[Words, NDArray[np.float64]]:
    """So many of the descriptions as are fitted on at most, those of the lowest ranks; in their order."""
    chosen = np.sort(np.argsort(ranks)[:MAX_DESCRIPTIONS])
    return descriptions[chosen], ranks[chosen]


def save_vocabulary(words: Words, path: Path) -> None:
    """Writes a vocabulary to a file."""
    encoded = io.BytesIO()
    np.save(encoded, words, allow_pickle=False)
    path.write_bytes(encoded.getvalue())


def load_vocabulary(path: Path) -> Words:
    """A vocabulary from its file: shape (words, 128).

    Raises:
        ConfigurationError: there is none.
    """
    try:
        words = np.load(path.expanduser(), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(
            f"{path} holds no vocabulary ({type(error).__name__})",
            hint="Write one with: penchant encoders vocabulary FOLDER --out FILE",
        ) from None
    if words.ndim != 2 or words.shape[1] != COMPONENTS or not 1 <= len(words) <= MAX_WORDS:  # noqa: PLR2004  words by components
        raise ConfigurationError(f"{path} holds no vocabulary, but an array of shape {words.shape}")
    found: Words = np.array(words, np.float32)
    if not np.isfinite(found).all():
        raise ConfigurationError(f"{path} holds no vocabulary: some numbers are not finite")
    return found
