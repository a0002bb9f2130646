"""Places in the graph: the entities' vectors as they were published, and the items that are placed by them.

An item that names an entity has the graph's slice where something is known of it: the entity's own vector, or for one
that is newer than the model the mean of its neighbours' translations. Item, vector, model and facts come in any order;
whoever writes one of them *refreshes* the items concerned: reads what is there now, and writes the item anew by compare
and set if its slice should be another. Two who write at the same time each read after they wrote, so that one of them
sees the other's part.

**One model at a time.** A model is in force in three steps: it is noted as coming, and from then on nobody is given a
place; all places of others are taken away; then it is noted as ready, and places are given. So no two models' vectors
are in the slice together. Each step may be repeated: whoever is stopped in between begins anew.
"""

import base64
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.entities import Facing, GraphModel, Operation, neighbours_mean, place
from penchant.profile.fusion import GRAPH
from penchant.profile.graph import Graph
from penchant.profile.items import Item, Items, Placed, Stored
from penchant.profile.store.base import (
    TOKEN,
    CollectionLayout,
    Point,
    SearchFilter,
    Store,
    StoreUnavailable,
    Write,
    new_token,
)

__all__ = ["Entities", "EntityVersion", "InForce", "Known", "OwnVector", "Place", "Places"]

Vector = NDArray[np.float32]
EntityVersion = tuple[int, int]  # record timestamp, epoch milliseconds; record offset

UNUSED = {"unused": 1}  # the engines want a collection to have a vector, even where no point has one
HELD = "held"
MAX_ATTEMPTS = 10
CHUNK = 64


class OwnVector(Struct, frozen=True, kw_only=True):
    """An entity's own vector.

    Attributes:
        model: fingerprint of the model that it is of; empty: the vector was taken back.
        version: orders the vectors of an entity.
        vector: shape (width of the model,).
    """

    entity: str
    model: str
    version: EntityVersion
    vector: Vector


class InForce(Struct, frozen=True, kw_only=True):
    """Which model places items: the one named, once it is ready."""

    model: str
    version: EntityVersion
    ready: bool


class Place(Struct, frozen=True, kw_only=True):
    """Where an entity is.

    Attributes:
        model: fingerprint of the model that says so.
        mean: by its neighbours, not by a vector of its own.
        vector: unit length, shape (dimension of the slice,).
    """

    model: str
    mean: bool
    vector: Vector


class Known(Struct, frozen=True):
    """How much is known that places follow from: when it changes, so may they."""

    facts: int
    vectors: int
    model: str


class Entities:
    """The entities' vectors, and the model in force, of a store.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection
        self._model: GraphModel | None = None

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(name=self._collection, vectors=UNUSED, indexes={HELD: "bool"}, fingerprint="entities")

    async def put(self, vectors: Sequence[OwnVector]) -> None:
        """Keeps vectors, unless one as new is there already. No entity may appear twice.

        Raises:
            StoreUnavailable: the store does not answer, or others kept writing the same entities.
        """
        pending = {entity_point(one.entity): one for one in vectors}
        for _ in range(MAX_ATTEMPTS):
            stored = await self._store.retrieve(self._collection, list(pending), payload=("version", TOKEN))
            for key, point in stored.items():
                if tuple(point.payload["version"]) >= pending[key].version:
                    del pending[key]
            writes = [
                Write(point=vector_point(one), expected=stored[key].token if key in stored else None)
                for key, one in pending.items()
            ]
            if not writes:
                return
            for key in await self._store.write(self._collection, writes):
                del pending[key]
        raise StoreUnavailable("entities kept changing under this writer", hint="Is another content worker stuck?")

    async def vectors(self, names: Iterable[str], *, model: str) -> dict[str, Vector]:
        """The entities' own vectors by a model, of those that have one."""
        wanted = {entity_point(name): name for name in names}
        found = await self._store.retrieve(self._collection, list(wanted), payload=("model", "vector"))
        return {
            wanted[key]: floats(point.payload["vector"])
            for key, point in found.items()
            if point.payload["model"] == model
        }

    async def count(self) -> int:
        """How many entities have a vector, whatever model it is of."""
        return await self._store.count(self._collection, SearchFilter(equal={HELD: True}))

    async def in_force(self) -> InForce | None:
        """Which model places items; None before there was one."""
        found = await self._store.retrieve(self._collection, [STATE])
        return None if STATE not in found else msgspec.convert(found[STATE].payload, InForce)

    async def set_in_force(self, state: InForce) -> bool:
        """Notes which model places items; false where a newer note is there."""
        for _ in range(MAX_ATTEMPTS):
            found = await self._store.retrieve(self._collection, [STATE])
            known = found.get(STATE)
            if known is not None and msgspec.convert(known.payload, InForce).version > state.version:
                return False
            payload = msgspec.to_builtins(state) | {TOKEN: new_token()}
            write = Write(point=Point(id=STATE, payload=payload), expected=None if known is None else known.token)
            if await self._store.write(self._collection, [write]):
                return True
        raise StoreUnavailable("the graph model kept changing under this writer")

    async def keep_model(self, model: GraphModel) -> None:
        """Keeps what a model's places are computed with, in place of the one before."""
        payload: dict[str, Any] = {
            "fingerprint": model.fingerprint,
            "operation": model.operation,
            "mean": text(model.mean),
            "components": text(model.components),
            "forward": {name: text(row) for name, row in model.forward.items()},
            "backward": {name: text(row) for name, row in model.backward.items()},
            TOKEN: new_token(),
        }
        await self._store.put(self._collection, [Point(id=MODEL, payload=payload)])

    async def model(self, fingerprint: str) -> GraphModel | None:
        """What a model's places are computed with; None where another's is kept."""
        if self._model is None or self._model.fingerprint != fingerprint:
            found = await self._store.retrieve(self._collection, [MODEL])
            if MODEL not in found:
                return None
            self._model = model_of(found[MODEL].payload)
        return self._model if self._model.fingerprint == fingerprint else None


class Places:
    """Gives items their places in the graph.

    Args:
        items: of the catalogue.
        entities: their entities' vectors.
        graph: the facts.
        now: milliseconds since 1970.
    """

    def __init__(
        self,
        items: Items,
        entities: Entities,
        graph: Graph,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._items = items
        self._entities = entities
        self._graph = graph
        self._now = now

    async def of(self, names: Iterable[str]) -> dict[str, Place]:
        """The places of those entities that have one."""
        wanted = {name for name in names if name}
        state = await self._entities.in_force() if wanted else None
        if state is None or not state.ready or not state.model:
            return {}
        model = await self._entities.model(state.model)
        if model is None:
            return {}
        vectors = await self._entities.vectors(wanted, model=model.fingerprint)
        found = {name: (place(model, vector), False) for name, vector in vectors.items() if fits(vector, model)}
        for name in sorted(wanted - found.keys()):
            mean = await self._mean(model, name)
            if mean is not None:
                found[name] = (place(model, mean), True)
        return {
            name: Place(model=model.fingerprint, mean=is_mean, vector=vector)
            for name, (vector, is_mean) in found.items()
            if vector.any()
        }

    def placed(self, item: Item, slices: Mapping[str, Vector], found: Place | None) -> tuple[Item, Vector | None]:
        """An item with its place: what is to be kept of it, and its content vector.

        Args:
            item: which is listed if it has content, and is neither withdrawn nor private.
            slices: unit vectors by modality; the graph's is left out of account.
            found: its place, if it has one.
        """
        own = {name: vector for name, vector in slices.items() if name != GRAPH}
        content = self._items.space.fuse(own if found is None else {**own, GRAPH: found.vector})
        mark = None
        if found is not None:
            mark = Placed(found.model, digest(found.vector), mean=found.mean, at=self._now())
        elif item.placed is not None:
            mark = Placed("", "", mean=False, at=self._now())
        modalities = tuple(own) if found is None else (*own, GRAPH)
        listed = content is not None and not item.withdrawn and not item.private
        return msgspec.structs.replace(item, placed=mark, modalities=modalities, listed=listed), content

    async def refresh(self, item_ids: Iterable[str]) -> int:
        """Writes those items anew whose place should be another; gives how many.

        Raises:
            StoreUnavailable: the store does not answer, or others kept writing the same items.
        """
        pending = set(item_ids)
        done = 0
        for _ in range(MAX_ATTEMPTS):
            if not pending:
                return done
            stored = [one for one in await self._items.stored(pending) if one.item.entity]
            places = await self.of(one.item.entity for one in stored)
            edits = []
            for one in stored:
                found = places.get(one.item.entity)
                if mark_of(one.item) != (("", "") if found is None else (found.model, digest(found.vector))):
                    slices = {} if one.vector is None else self._items.space.split(one.vector)
                    item, content = self.placed(one.item, slices, found)
                    edits.append(Stored(item=item, vector=content, token=one.token))
            stands = await self._items.replace(edits) if edits else set()
            done += len(stands)
            pending = {edit.item.item_id for edit in edits} - stands
        raise StoreUnavailable("items kept changing under this writer", hint="Is another content worker stuck?")

    async def refresh_naming(self, entities: Iterable[str]) -> int:
        """Refreshes the items that name entities; gives how many were written anew."""
        done = 0
        for entity in entities:
            done += await self._refresh_all(self._items.naming(entity))
        return done

    async def come_into_force(self, model: GraphModel | None, version: EntityVersion) -> None:
        """Puts a model in force, unless a newer one is: takes all places of others away, then gives those of this one.

        Args:
            model: None: from now on there is none.
            version: of the record that says so.
        """
        name = "" if model is None else model.fingerprint
        known = await self._entities.in_force()
        if known is None or known.model != name or not known.ready:
            if not await self._entities.set_in_force(InForce(model=name, version=version, ready=False)):
                return
            if model is not None:
                await self._entities.keep_model(model)
        # Also where it is known: another worker, whose items are others, may have put it in force.
        await self._refresh_all(self._items.placed_by_others(name))
        if await self._entities.set_in_force(InForce(model=name, version=version, ready=True)):
            await self.fill()

    async def fill(self) -> int:
        """Refreshes the items that name an entity and have no place by a vector of its own; gives how many changed."""
        return await self._refresh_all(self._items.unplaced())

    async def known(self) -> Known:
        """How much is known now."""
        state = await self._entities.in_force()
        name = "" if state is None or not state.ready else state.model
        return Known(await self._graph.count(), await self._entities.count(), name)

    async def _refresh_all(self, item_ids: AsyncIterator[str]) -> int:
        done, chunk = 0, []
        async for item_id in item_ids:
            chunk.append(item_id)
            if len(chunk) == CHUNK:
                done += await self.refresh(chunk)
                chunk = []
        return done + await self.refresh(chunk)

    async def _mean(self, model: GraphModel, entity: str) -> Vector | None:
        """Where an entity without a vector of its own should be."""
        facts = [fact async for fact in self._graph.around(entity)]
        facing = sorted(
            {(fact.relation, fact.tail if fact.head == entity else fact.head, fact.head != entity) for fact in facts}
        )
        vectors = await self._entities.vectors({neighbour for _, neighbour, _ in facing}, model=model.fingerprint)
        return neighbours_mean(
            model,
            [
                (Facing(relation, neighbour, forward), vectors[neighbour])
                for relation, neighbour, forward in facing
                if neighbour in vectors and fits(vectors[neighbour], model)
            ],
        )


def mark_of(item: Item) -> tuple[str, str]:
    """What an item's place was computed from."""
    return ("", "") if item.placed is None else (item.placed.model, item.placed.digest)


def digest(vector: Vector) -> str:
    """A short digest of a vector."""
    return hashlib.blake2b(vector.tobytes(), digest_size=6).hexdigest()


def fits(vector: Vector, model: GraphModel) -> bool:
    """Whether a vector has as many components as the model's."""
    return len(vector) == model.width


def entity_point(entity: str) -> UUID:
    """The id of the point that holds an entity's vector."""
    return UUID(bytes=hashlib.blake2b(entity.encode(), digest_size=16, person=b"entity").digest())


def reserved(name: bytes) -> UUID:
    """The id of a point that holds no entity."""
    return UUID(bytes=hashlib.blake2b(name, digest_size=16, person=b"graph model").digest())


STATE, MODEL = reserved(b"in force"), reserved(b"parameters")


def vector_point(one: OwnVector) -> Point:
    """An entity's vector as a point. A vector that was taken back leaves its version, against older records."""
    payload = {
        "entity": one.entity,
        "model": one.model,
        "version": list(one.version),
        "vector": text(one.vector),
        HELD: bool(one.model),
        TOKEN: new_token(),
    }
    return Point(id=entity_point(one.entity), payload=payload)


def model_of(payload: Mapping[str, Any]) -> GraphModel:
    """Reads a model back from its payload."""
    mean = floats(payload["mean"])
    operation: Operation = payload["operation"]
    return GraphModel(
        fingerprint=payload["fingerprint"],
        operation=operation,
        mean=mean,
        components=floats(payload["components"]).reshape(-1, len(mean)),
        forward={name: floats(row) for name, row in payload["forward"].items()},
        backward={name: floats(row) for name, row in payload["backward"].items()},
    )


def text(array: NDArray[np.float32]) -> str:
    """Numbers as a payload holds them."""
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode()


def floats(encoded: str) -> Vector:
    """Numbers back from a payload."""
    return np.frombuffer(base64.b64decode(encoded), "<f4").astype(np.float32)
