"""In how many texts of a collection each word occurs: what tells a telling word from one that every text has.

Counted once, over a file of texts, and kept as JSON: a vector weighed by it depends on the file, whose digest is
part of the fingerprint.

Spärck Jones, "A statistical interpretation of term specificity and its application in retrieval" (1972).
"""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from penchant.encoders.base import extra
from penchant.errors import ConfigurationError

__all__ = ["Frequencies", "count_frequencies", "load_frequencies", "save_frequencies"]

# What is kept: the words that most texts have. Beyond, a word occurs once in a large collection.
MAX_WORDS = 200_000
# Words held while counting; what occurred once is let go of where there are more.
MAX_COUNTED = 2_000_000
MAX_FILE_BYTES = 64 * 2**20

Count = Annotated[int, Meta(ge=1, le=2**53)]


class Frequencies(Struct, frozen=True):
    """A collection's words.

    Attributes:
        texts: in the collection.
        words: in how many of them each word occurs.
    """

    texts: Count
    words: Annotated[dict[str, Count], Meta(min_length=1, max_length=MAX_WORDS)]

    def weight(self, word: str) -> float:
        """The inverse document frequency ln((1 + n) / (1 + n_w)) + 1: at least 1, and most for words unheard of."""
        return math.log((1 + self.texts) / (1 + self.words.get(word, 0))) + 1


def count_frequencies(texts: Iterable[str]) -> Frequencies:
    """Counts over texts, which are gone through once.

    Raises:
        ConfigurationError: there is no word in them, or the optional part that encodes is not installed.
    """
    analyse = extra("sklearn.feature_extraction.text").CountVectorizer().build_analyzer()
    counted: Counter[str] = Counter()
    number = 0
    for text in texts:
        words = set(analyse(text))
        number += bool(words)
        counted.update(words)
        if len(counted) > MAX_COUNTED:
            counted = Counter({word: count for word, count in counted.items() if count > 1})
    if not counted:
        raise ConfigurationError("There is no word in the texts", hint="One text a line, in UTF-8, is expected.")
    kept = sorted(counted.items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_WORDS]
    return Frequencies(texts=number, words=dict(kept))


def save_frequencies(frequencies: Frequencies, path: Path) -> None:
    """Writes a file that `load_frequencies` reads."""
    path.write_bytes(msgspec.json.encode(frequencies))


def load_frequencies(path: Path) -> Frequencies:
    """Reads a file that `save_frequencies` wrote.

    Raises:
        ConfigurationError: it is not there, or holds something else.
    """
    hint = "`penchant encoders frequencies` makes one of a file of texts."
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} is larger than {MAX_FILE_BYTES} bytes", hint=hint)
        return msgspec.json.decode(path.read_bytes(), type=Frequencies)
    except OSError as error:
        raise ConfigurationError(f"The word frequencies {path} cannot be read: {error.strerror}", hint=hint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path} holds no word frequencies: {error}", hint=hint) from None
