"""Text as the mean of its words' vectors, which a file holds: GloVe's, or word2vec's in text.

A word is looked up as it stands, then in lower case. What the file does not know is left out and counted, for a
file of another language knows little of most texts; a text of unknown words alone has no vector.

Mikolov et al., "Efficient Estimation of Word Representations in Vector Space" (2013); Pennington et al., "GloVe"
(2014); Arora et al., "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (2017), for weighing words.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.bag_of_words import readable
from penchant.encoders.base import Encoder, Host, Identity, Undecodable, Vectors, fingerprint, unit_rows
from penchant.encoders.frequencies import load_frequencies
from penchant.encoders.models import digest_of
from penchant.encoders.options.text import WordVectorsOptions
from penchant.errors import ConfigurationError

__all__ = ["WordTable", "WordVectors", "load_word_table"]

VERSION = 1  # of what becomes of a text
WORD = re.compile(r"\w+")
MAX_DIMENSION = 4_096
MAX_TABLE_BYTES = 8 * 2**30
MAX_LINE_BYTES = 256 * 2**10
HEADER = 2  # word2vec's first line: how many words, how many components
# The share of unknown words is judged once, after so many.
JUDGED_AT = 10_000

Vector = NDArray[np.float32]

log = structlog.get_logger()


class WordTable(Struct, frozen=True):
    """Words and their vectors.

    Attributes:
        places: of the words among the vectors.
        vectors: shape (words, dimension).
    """

    places: dict[str, int]
    vectors: NDArray[np.float32]


class WordVectors(Encoder[str, Vector, NDArray[np.float32]]):
    """Texts to the weighed means of their words' vectors. Building one reads the file.

    Attributes:
        words: that texts have had.
        unknown: of these, without a vector.

    Raises:
        ConfigurationError: a file is not there, or is not what it should be.
    """

    ahead = budget = 512

    def __init__(self, options: WordVectorsOptions, host: Host) -> None:  # noqa: ARG002  as all encoders are built
        found = self.identify(options)
        self.dimension, self.fingerprint = found.dimension, found.fingerprint
        self._table = load_word_table(options.vectors, options.max_words)
        self._weight: Callable[[str], float] = (
            load_frequencies(options.frequencies).weight if options.frequencies else lambda _: 1.0
        )
        self.words = self.unknown = 0
        self._counting = Lock()

    @classmethod
    def identify(cls, options: WordVectorsOptions) -> Identity:
        """See `Encoder`."""
        with opened(options.vectors) as file:
            dimension = shape(options.vectors, file)[1]
        weighing = digest_of(options.frequencies) if options.frequencies else ""
        return Identity(
            dimension=dimension,
            fingerprint=fingerprint("word-vectors", VERSION, digest_of(options.vectors), options.max_words, weighing),
        )

    def prepare(self, one: str) -> Vector:
        """The weighed mean of a text's known words: shape (dimension,).

        Raises:
            Undecodable: the text has no word, or none that is known ("empty", "unknown-words", "corrupt").
        """
        words = WORD.findall(readable(one))
        if not words:
            raise Undecodable("The text has no words", reason="empty")
        found = [(place, self._weight(word.lower())) for word in words if (place := self._place(word)) is not None]
        self._count(len(words), len(words) - len(found))
        if not found:
            raise Undecodable("The text has no word that is known", reason="unknown-words")
        weights = np.array([weight for _, weight in found], np.float32)
        mean: Vector = weights @ self._table.vectors[[place for place, _ in found]] / weights.sum()
        return mean

    def forward(self, batch: Sequence[Vector]) -> NDArray[np.float32]:
        """The means together: shape (texts, dimension)."""
        return np.stack(batch)

    def finish(self, raw: NDArray[np.float32]) -> Vectors:
        """Unit vectors: shape (texts, dimension)."""
        return unit_rows(raw)

    def _place(self, word: str) -> int | None:
        places = self._table.places
        return places.get(word, places.get(word.lower()))

    def _count(self, words: int, unknown: int) -> None:
        """Counts, and says once if most words are unknown."""
        with self._counting:
            judged = self.words < JUDGED_AT <= self.words + words
            self.words += words
            self.unknown += unknown
            if judged and 2 * self.unknown > self.words:
                log.warning("most words are not among the word vectors", words=self.words, unknown=self.unknown)


def load_word_table(path: Path, max_words: int) -> WordTable:
    """Reads a file's first words; the first of two alike stands.

    Args:
        path: a word and its components a line, separated by spaces; word2vec's begins with their numbers.
        max_words: read at most.

    Raises:
        ConfigurationError: the file is not there, is too large, or is not of that format.
    """
    with opened(path) as file:
        declared, dimension = shape(path, file)
        rows = min(max_words, declared) if declared else max_words
        if rows * dimension * 4 > MAX_TABLE_BYTES:
            raise ConfigurationError(
                f"{rows} words of {dimension} components are more than {MAX_TABLE_BYTES >> 30} GiB",
                hint="Lower encoders.text.max_words.",
            )
        places: dict[str, int] = {}
        vectors = np.empty((rows, dimension), np.float32)
        for number, line in numbered_lines(path, file, skip=bool(declared)):
            if len(places) == rows:
                break
            word, components = parsed(path, number, line, dimension)
            if word not in places:
                vectors[len(places)] = components
                places[word] = len(places)
    return WordTable(places=places, vectors=vectors[: len(places)])


def opened(path: Path) -> BinaryIO:
    """The file, to be read from its start."""
    try:
        return path.open("rb")
    except OSError as error:
        raise ConfigurationError(
            f"The word vectors {path} cannot be read: {error.strerror}",
            hint="encoders.text.vectors names a file of GloVe's, or of word2vec's text format, unpacked.",
        ) from None


def shape(path: Path, file: BinaryIO) -> tuple[int, int]:
    """How many words are declared (0: nothing is) and how many components they have; leaves the file at its start."""
    fields = file.readline(MAX_LINE_BYTES).split()
    file.seek(0)
    declared, dimension = 0, len(fields) - 1
    if len(fields) == HEADER and all(field.isdigit() for field in fields):
        declared, dimension = int(fields[0]), int(fields[1])
    if not 1 <= dimension <= MAX_DIMENSION or (len(fields) == HEADER and not declared):
        raise ConfigurationError(
            f"{path} holds no word vectors", hint="GloVe's format or word2vec's text format is read, unpacked."
        )
    return declared, dimension


def numbered_lines(path: Path, file: BinaryIO, *, skip: bool) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, each of a bounded length."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise ConfigurationError(f"Line {number} of {path} has no end", hint="Is it a binary file?")
        if line.strip() and not (skip and number == 1):
            yield number, line


def parsed(path: Path, number: int, line: bytes, dimension: int) -> tuple[str, list[float]]:
    """A line's word, which may hold spaces itself, and its components."""
    word, *fields = line.rstrip().rsplit(b" ", dimension)
    try:
        components = [float(field) for field in fields]
    except ValueError:
        components = []
    if len(components) != dimension or not all(map(math.isfinite, components)):
        raise ConfigurationError(
            f"Line {number} of {path} is not a word with {dimension} numbers",
            hint="GloVe's format or word2vec's text format is read, unpacked.",
        )
    return word.decode(errors="replace"), components
