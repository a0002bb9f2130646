"""Where a graph's facts come from, and which of them are held back.

A folder of a benchmark says itself what to train on, to stop by and to rank; one file, or the `triples` topic, is
split here. Nothing is held back that an entity or a relation would be unknown without.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np
import structlog
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.settings import Settings
from penchant.streams.codec import Unusable
from penchant.streams.events import Id
from penchant.streams.knowledge import fact_of
from penchant.streams.onlooker import TopicReader
from penchant.streams.topics import Topic

__all__ = ["Facts", "Named", "facts_of", "read_facts", "split", "topic_facts"]

Named = tuple[str, str, str]  # head, relation, tail

PARTS = ("train", "valid", "test")
SUFFIXES = (".txt", ".tsv")
HELD_BACK = 0.05

TOPIC = "topic"  # as the source: what the triples' topic holds

log = structlog.get_logger()


class Facts(Struct, frozen=True, kw_only=True):
    """A graph's facts, by what they are for.

    Attributes:
        source: where they are from, for people.
        train: to learn from.
        valid: to stop by.
        test: to rank, and nothing else.
    """

    source: str
    train: tuple[Named, ...]
    valid: tuple[Named, ...]
    test: tuple[Named, ...]

    @property
    def entities(self) -> tuple[str, ...]:
        """All entities that something can be learned of, in order."""
        return tuple(sorted({entity for head, _, tail in self.train for entity in (head, tail)}))

    @property
    def relations(self) -> tuple[str, ...]:
        """All relations that something can be learned of, in order."""
        return tuple(sorted({relation for _, relation, _ in self.train}))


def facts_of(source: str, settings: Settings, *, seed: int) -> Facts:
    """The facts that the command line names.

    Args:
        source: a folder with train, valid and test files; one tab-separated file; or `topic`.
        settings: where the topic is.
        seed: of the split, where there is none.

    Raises:
        ConfigurationError: there is nothing that can be read.
        Unavailable: the broker does not answer.
    """
    path = Path(source)
    if path.is_dir():
        train, valid, test = (read_facts(file_of(path, part)) for part in PARTS)
        return within(Facts(source=path.name, train=train, valid=valid, test=test))
    if source == TOPIC:
        return split(topic_facts(settings), source=settings.prefixed(Topic.TRIPLES), seed=seed)
    return split(read_facts(path), source=path.name, seed=seed)


def file_of(folder: Path, part: str) -> Path:
    """A part's file."""
    for suffix in SUFFIXES:
        if (folder / f"{part}{suffix}").is_file():
            return folder / f"{part}{suffix}"
    raise ConfigurationError(
        f"{folder} has no {part}.txt or {part}.tsv",
        hint="A folder must hold train, valid and test files; a single file of facts is split by itself.",
    )


def read_facts(path: Path) -> tuple[Named, ...]:
    """The facts of a tab-separated file: head, relation, tail.

    Raises:
        ConfigurationError: the file cannot be read, or a line is no fact.
    """
    found: list[Named] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(fact_in(line, path, number))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8'}") from None
    return tuple(found)


def fact_in(line: str, path: Path, number: int) -> Named:
    """A line's fact."""
    try:
        return msgspec.convert(tuple(line.rstrip("\r\n").split("\t")), tuple[Id, Id, Id])
    except msgspec.ValidationError:
        raise ConfigurationError(
            f"{path.name}:{number}: no fact", hint="A line holds head, relation and tail with tabs between."
        ) from None


def topic_facts(settings: Settings) -> tuple[Named, ...]:
    """The facts that the `triples` topic holds now, less those taken back.

    Raises:
        Unavailable: the broker does not answer.
        ConfigurationError: the broker refuses, or the topic does not exist.
    """
    held: dict[Named, None] = {}
    unusable = 0
    with TopicReader(settings, Topic.TRIPLES, from_beginning=True) as reader:
        for record in reader.to_end():
            try:
                fact = fact_of(record)
            except Unusable:
                unusable += 1
                continue
            named = (fact.head, fact.relation, fact.tail)
            if record.value is None:
                held.pop(named, None)
            else:
                held[named] = None
    if unusable:
        log.warning("records that state no fact were passed over", records=unusable)
    return tuple(held)


def split(facts: Iterable[Named], *, source: str, seed: int) -> Facts:
    """Holds a twentieth back to stop by and another to rank, of those facts that nothing would be unknown without.

    Args:
        facts: of a graph; one that occurs twice counts once.
        source: where they are from, for people.
        seed: of what is held back.

    Raises:
        ConfigurationError: there are no facts.
    """
    distinct = sorted(set(facts))
    if not distinct:
        raise ConfigurationError(f"{source} holds no facts")
    shuffled = [distinct[index] for index in np.random.default_rng(seed).permutation(len(distinct))]
    needed, spare = parted(shuffled)
    count = min(max(1, round(HELD_BACK * len(distinct))), len(spare) // 2)
    valid, test, rest = spare[:count], spare[count : 2 * count], spare[2 * count :]
    return Facts(source=source, train=(*needed, *rest), valid=tuple(valid), test=tuple(test))


def parted(facts: Sequence[Named]) -> tuple[list[Named], list[Named]]:
    """The facts that first name an entity or a relation, and all others."""
    needed: list[Named] = []
    spare: list[Named] = []
    entities: set[str] = set()
    relations: set[str] = set()
    for fact in facts:
        head, relation, tail = fact
        if head in entities and tail in entities and relation in relations:
            spare.append(fact)
        else:
            needed.append(fact)
            entities |= {head, tail}
            relations.add(relation)
    return needed, spare


def within(facts: Facts) -> Facts:
    """The facts, less those held back of which something does not occur in training: nothing can be said of them."""
    entities, relations = set(facts.entities), set(facts.relations)

    def known(part: tuple[Named, ...]) -> tuple[Named, ...]:
        return tuple(
            (head, relation, tail)
            for head, relation, tail in part
            if head in entities and tail in entities and relation in relations
        )

    return Facts(source=facts.source, train=facts.train, valid=known(facts.valid), test=known(facts.test))
