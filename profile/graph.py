"""The knowledge graph as facts: a set of triples, kept as points without vectors."""

import hashlib
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

from msgspec import Struct

from penchant.profile.store.base import TOKEN, CollectionLayout, Point, SearchFilter, Store, new_token

__all__ = ["Fact", "Graph"]

PRESENT = "present"
UNUSED = {"unused": 1}  # the engines want a collection to have a vector, even where no point has one


class Fact(Struct, frozen=True):
    """`head` stands in `relation` to `tail`."""

    head: str
    relation: str
    tail: str


class Graph:
    """The facts of a store. Adding and removing are idempotent.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
    """

    def __init__(self, store: Store, collection: str) -> None:
        self._store = store
        self._collection = collection

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(
            name=self._collection,
            vectors=UNUSED,
            indexes={"head": "keyword", "tail": "keyword", PRESENT: "bool"},
            fingerprint="facts",
        )

    async def add(self, fact: Fact) -> None:
        """Keeps a fact."""
        await self._put(fact, present=True)

    async def remove(self, fact: Fact) -> None:
        """Forgets a fact, known or not."""
        await self._put(fact, present=False)

    async def about(self, head: str) -> AsyncIterator[Fact]:
        """The facts whose head is `head`, in no particular order."""
        async for fact in self._where({"head": head}):
            yield fact

    async def around(self, entity: str) -> AsyncIterator[Fact]:
        """The facts that `entity` is in, at either end, in no particular order."""
        async for fact in self.about(entity):
            yield fact
        async for fact in self._where({"tail": entity}):
            if fact.head != entity:
                yield fact

    async def count(self) -> int:
        """How many facts are known."""
        return await self._store.count(self._collection, SearchFilter(equal={PRESENT: True}))

    async def _where(self, equal: Mapping[str, str]) -> AsyncIterator[Fact]:
        where = SearchFilter(equal={**equal, PRESENT: True})
        async for point in self._store.scroll(self._collection, where):
            yield Fact(point.payload["head"], point.payload["relation"], point.payload["tail"])

    async def _put(self, fact: Fact, *, present: bool) -> None:
        payload = {"head": fact.head, "relation": fact.relation, "tail": fact.tail, PRESENT: present}
        await self._store.put(self._collection, [Point(id=fact_point(fact), payload=payload | {TOKEN: new_token()})])


def fact_point(fact: Fact) -> UUID:
    """The id of the point that holds a fact."""
    name = f"{fact.head}\x00{fact.relation}\x00{fact.tail}"
    return UUID(bytes=hashlib.blake2b(name.encode(), digest_size=16, person=b"fact").digest())
