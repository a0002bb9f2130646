"""What a catalogue contains, as ranking is given it: unit vectors by slice."""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penchant.errors import ConfigurationError
from penchant.evaluation.stream import UNKNOWN_TIME, Stream
from penchant.graph.incidence import incidence_vectors
from penchant.profile.fusion import GRAPH

__all__ = ["slices_of"]

FACTS = "kg.txt"
ENTITIES = "item_index2entity_id.txt"
DIMENSION = 128
PERIOD_YEARS = 5


def slices_of(stream: Stream, texts: NDArray[np.float32], graph: Path | None) -> dict[str, NDArray[np.float32]]:
    """The slices of a stream's items: text, and what a knowledge graph says of them where there is one.

    The graph's slice is made of its facts, the items' categories and the five years that they are from.

    Args:
        stream: whose catalogue it is.
        texts: vectors of the items' texts, shape (m, d).
        graph: a folder with the facts (`kg.txt`: head, relation, tail) and the items' entities
            (`item_index2entity_id.txt`: item, entity), separated by white space; None: there is none.

    Raises:
        ConfigurationError: the folder lacks a file, or a file is of another form.
    """
    if graph is None:
        return {"text": texts}
    codes = {item: code for code, item in enumerate(stream.items)}
    attributes = [{f"category {category}" for category in categories} for categories in stream.categories]
    if stream.released is not None:
        for code, released in enumerate(stream.released.tolist()):
            if released != UNKNOWN_TIME:
                attributes[code].add(f"from {datetime.fromtimestamp(released / 1_000, UTC).year // PERIOD_YEARS}")
    entities: dict[str, list[int]] = {}
    for item, entity in rows_of(graph / ENTITIES, 2):
        if item in codes:
            entities.setdefault(entity, []).append(codes[item])
    for head, relation, tail in rows_of(graph / FACTS, 3):
        for code in entities.get(head, ()):
            attributes[code].add(f"{relation} {tail}")
    return {"text": texts, GRAPH: incidence_vectors([frozenset(one) for one in attributes], DIMENSION)}


def rows_of(path: Path, columns: int) -> Iterator[Sequence[str]]:
    """The rows of a file.

    Raises:
        ConfigurationError: it is missing, or a row has another number of columns.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        row = re.split(r"[\t ]+", line.strip())
        if len(row) != columns:
            raise ConfigurationError(f"{path.name}:{number}: {columns} columns expected, {len(row)} found")
        yield row
