"""Text as its words and nothing else: no order, no meaning, no weights to load.

Each word has a place among the components and a sign, both by its hash, and adds its weight there. Two words that
meet at one place are as likely to cancel as to add, so the product of two texts' vectors is, on average, that of
their whole vocabularies' (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", 2009), and no
vocabulary needs to be kept. A word that occurs n times weighs 1 + ln n.

Words are runs of two or more letters and digits, in lower case. A language that puts no spaces between its words
is not for these.
"""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Encoder, Host, Identity, Undecodable, Vectors, extra, fingerprint, unit_rows
from penchant.encoders.frequencies import load_frequencies
from penchant.encoders.models import digest_of
from penchant.encoders.options.text import HashedWordsOptions, TfIdfOptions

__all__ = ["HashedWords", "TfIdf", "readable"]

VERSION = 1  # of what becomes of a text
# What is read of a text: an event may hold a fifth of this.
MAX_CHARACTERS = 100_000

Vector = NDArray[np.float32]


class BagOfWords(Encoder[str, Vector, NDArray[np.float32]]):
    """What both kinds share: hashing weighed words.

    Args:
        dimension: components of a vector.

    Raises:
        ConfigurationError: the optional part that encodes is not installed.
    """

    ahead = budget = 512

    def __init__(self, dimension: int) -> None:
        self._analyse = extra("sklearn.feature_extraction.text").CountVectorizer().build_analyzer()
        self._hasher = extra("sklearn.feature_extraction").FeatureHasher(dimension, input_type="dict", dtype=np.float32)

    def prepare(self, one: str) -> Vector:
        """A text's words, each at its place: shape (dimension,).

        Raises:
            Undecodable: the text has no word, or none that counts ("empty", "unknown-words", "corrupt").
        """
        counts = Counter[str](self._analyse(readable(one)))
        if not counts:
            raise Undecodable("The text has no words", reason="empty")
        weighed = {
            word: (1 + math.log(count)) * weight for word, count in counts.items() if (weight := self.weight(word))
        }
        row: Vector = self._hasher.transform([weighed]).toarray()[0]
        if not row.any():  # or every word has met its opposite
            raise Undecodable("The text has no word that is known", reason="unknown-words")
        return row

    def weight(self, word: str) -> float:  # noqa: ARG002  a subclass asks
        """What a word counts; 0: nothing."""
        return 1.0

    def forward(self, batch: Sequence[Vector]) -> NDArray[np.float32]:
        """The rows together: shape (texts, dimension)."""
        return np.stack(batch)

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (texts, dimension)."""
        return unit_rows(raw)


class HashedWords(BagOfWords):
    """Texts to vectors in which all words weigh alike. Nothing is fitted."""

    def __init__(self, options: HashedWordsOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        super().__init__(options.dimension)
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint

    @classmethod
    def identify(cls, options: HashedWordsOptions) -> Identity:
        """See `Encoder`."""
        return Identity(
            dimension=options.dimension, fingerprint=fingerprint("hashed-words", VERSION, options.dimension)
        )


class TfIdf(BagOfWords):
    """Texts to vectors in which rare words weigh more; words that the collection did not have weigh nothing."""

    def __init__(self, options: TfIdfOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        super().__init__(options.dimension)
        frequencies = load_frequencies(options.frequencies)
        self._weights = {word: frequencies.weight(word) for word in frequencies.words}
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint

    @classmethod
    def identify(cls, options: TfIdfOptions) -> Identity:
        """See `Encoder`."""
        return Identity(
            dimension=options.dimension,
            fingerprint=fingerprint("tf-idf", VERSION, options.dimension, digest_of(options.frequencies)),
        )

    def weight(self, word: str) -> float:
        """The inverse document frequency."""
        return self._weights.get(word, 0.0)


def readable(one: str) -> str:
    """What is read of a text: its beginning.

    Raises:
        Undecodable: it is not text ("corrupt").
    """
    read = one[:MAX_CHARACTERS]
    try:
        read.encode()
    except UnicodeEncodeError:  # a lone surrogate: no UTF-8 can say it
        raise Undecodable("The text is not valid Unicode", reason="corrupt") from None
    return read
