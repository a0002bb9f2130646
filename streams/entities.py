"""What `penchant graph publish` sends, as the content lane takes it: entities' vectors, and the model in force.

Vectors and model come through compacted topics of their own, in any order: a vector counts once the model that it is
of is in force. The model comes last when a graph is published, so that the change from one to the next is short.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray

from penchant.errors import Unavailable
from penchant.profile.entities import GraphModel
from penchant.profile.places import Entities, EntityVersion, Known, OwnVector, Places
from penchant.streams.codec import Unusable, decode
from penchant.streams.events import EntityVector, Id
from penchant.streams.events import GraphModel as PublishedModel
from penchant.streams.records import Record

__all__ = ["MODEL_KEY", "EntityKeeper", "model_event", "model_in", "vector_event", "vector_in"]

log = structlog.get_logger()

MODEL_KEY = b"model"
REST = 10  # times as long as a look took

Vector = NDArray[np.float32]


class EntityKeeper:
    """Keeps what is published of a graph, and places items by it.

    Args:
        entities: where vectors and the model go.
        places: gives items their places.
        dimension: of the graph's slice.
    """

    def __init__(self, entities: Entities, places: Places, dimension: int) -> None:
        self._entities = entities
        self.places = places
        self._dimension = dimension

    async def vectors(self, records: Sequence[Record]) -> list[tuple[Record, Unusable]]:
        """Keeps the vectors of a batch, and refreshes the items of their entities; gives what cannot be used."""
        refused: list[tuple[Record, Unusable]] = []
        newest: dict[str, OwnVector] = {}
        for record in records:
            try:
                found = vector_in(record)
            except Unusable as error:
                refused.append((record, error))
                continue
            known = newest.get(found.entity)
            if known is None or known.version < found.version:
                newest[found.entity] = found
        await self._entities.put(list(newest.values()))
        await self.places.refresh_naming(newest)
        return refused

    async def models(self, records: Sequence[Record]) -> list[tuple[Record, Unusable]]:
        """Puts the newest model of a batch in force; gives what cannot be used."""
        refused: list[tuple[Record, Unusable]] = []
        newest: tuple[EntityVersion, GraphModel | None] | None = None
        for record in records:
            try:
                found = model_in(record, self._dimension)
            except Unusable as error:
                refused.append((record, error))
                continue
            if newest is None or newest[0] < version(record):
                newest = version(record), found
        if newest is not None:
            await self.places.come_into_force(newest[1], newest[0])
            log.info("a graph model is in force", model="none" if newest[1] is None else newest[1].fingerprint)
        return refused

    async def follow(self, my_turn: Callable[[], bool], *, interval_s: float) -> None:
        """Refreshes the items that have no vector of their own whenever more is known, until cancelled.

        Facts come by another agent than items do, and a neighbour's vector may come after both: nobody else sees to
        those who were there before.

        Args:
            my_turn: whether this worker does it, among all.
            interval_s: between looks, at least.
        """
        seen: Known | None = None
        pause = interval_s
        while True:
            await asyncio.sleep(pause)
            if not my_turn():
                seen = None
                continue
            started = asyncio.get_running_loop().time()
            try:
                known = await self.places.known()
                if known != seen and known.model:
                    await self.places.fill()
                seen = known
            except Unavailable as error:
                log.warning("places are not filled in; will try again", error=str(error))
            pause = max(interval_s, REST * (asyncio.get_running_loop().time() - started))


def version(record: Record) -> EntityVersion:
    """Orders what is published under one key."""
    return record.timestamp, record.offset


def vector_in(record: Record) -> OwnVector:
    """The vector of a record of the `entity-vectors` topic; a null value takes back the one that the key names.

    Raises:
        Unusable: the record cannot be used.
    """
    if record.value is None:
        nothing = np.zeros(0, np.float32)
        return OwnVector(entity=key_of(record), model="", version=version(record), vector=nothing)
    found = decode(EntityVector, record.value, record.headers)
    if record.key is not None and record.key != found.entity.encode():
        raise Unusable("the key is not the entity that the value names", reason="key-mismatch")
    return OwnVector(
        entity=found.entity, model=found.model, version=version(record), vector=numbers(found.vector, "vector")
    )


def vector_event(entity: str, model: str, vector: Vector) -> EntityVector:
    """An entity's vector, shape (width,), as it is published."""
    return EntityVector(entity=entity, model=model, vector=raw(vector))


def model_in(record: Record, dimension: int) -> GraphModel | None:
    """The model of a record of the `graph-model` topic; None for a null value, which takes it back.

    Args:
        record: to read.
        dimension: of the graph's slice.

    Raises:
        Unusable: the record cannot be used.
    """
    if record.value is None:
        return None
    found = decode(PublishedModel, record.value, record.headers)
    mean, components = numbers(found.mean, "mean"), numbers(found.components, "components")
    if len(components) != dimension * len(mean):
        raise Unusable(
            f"`components` is no projection to the {dimension} components of the graph's slice: publish it with the "
            "workers' settings",
            reason="dimension",
        )
    if found.operation == "multiply" and len(mean) % 2:
        raise Unusable("complex vectors have an even number of components", reason="invalid")
    operators = {
        name: {relation: numbers(row, name) for relation, row in rows.items()}
        for name, rows in (("forward", found.forward), ("backward", found.backward))
    }
    if any(len(row) != len(mean) for rows in operators.values() for row in rows.values()):
        raise Unusable("a relation's vector is not as long as an entity's", reason="invalid")
    return GraphModel(
        fingerprint=found.model,
        operation=found.operation,
        mean=mean,
        components=components.reshape(dimension, len(mean)),
        forward=operators["forward"],
        backward=operators["backward"],
    )


def model_event(model: GraphModel) -> PublishedModel:
    """A model as it is published."""
    return PublishedModel(
        model=model.fingerprint,
        operation=model.operation,
        mean=raw(model.mean),
        components=raw(model.components),
        forward={name: raw(row) for name, row in model.forward.items()},
        backward={name: raw(row) for name, row in model.backward.items()},
    )


def key_of(record: Record) -> str:
    """The entity that a record's key names."""
    try:
        return msgspec.convert((record.key or b"").decode(), Id)
    except (UnicodeDecodeError, msgspec.ValidationError):
        raise Unusable("the key names no entity", reason="key-mismatch") from None


def raw(array: NDArray[np.float32]) -> bytes:
    """Numbers as they are on the wire: float32, little-endian."""
    return np.ascontiguousarray(array, "<f4").tobytes()


def numbers(encoded: bytes, field: str) -> Vector:
    """Numbers back from the wire."""
    if len(encoded) % 4:
        raise Unusable(f"`{field}` is no array of float32", reason="invalid")
    found = np.frombuffer(encoded, "<f4").astype(np.float32)
    if not np.isfinite(found).all():
        raise Unusable(f"`{field}` holds what is no finite number", reason="invalid")
    return found
