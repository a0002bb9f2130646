"""The knowledge graph as facts: a set of triples, kept as points without vectors.

What was said of a fact last holds, whatever is read again: each fact keeps the version of the record that it is known
by, and an older record changes nothing. A fact that was taken back is kept as such, for that reason.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

from msgspec import Struct

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

__all__ = ["Fact", "FactVersion", "Graph"]

FactVersion = tuple[int, int]  # record timestamp, epoch milliseconds; record offset

PRESENT, VERSION = "present", "version"
MAX_ATTEMPTS = 10
UNUSED = {"unused": 1}  # the engines want a collection to have a vector, even where no point has one


class Fact(Struct, frozen=True):
    """`head` stands in `relation` to `tail`."""

    head: str
    relation: str
    tail: str


class Graph:
    """The facts of a store. Adding and removing are idempotent, and in any order the newest version holds.

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
            fingerprint="facts-2",
        )

    async def add(self, fact: Fact, version: FactVersion) -> None:
        """Keeps a fact, unless something as new is known of it."""
        await self._put(fact, version, present=True)

    async def remove(self, fact: Fact, version: FactVersion) -> None:
        """Takes a fact back, known or not, unless something as new is known of it."""
        await self._put(fact, version, present=False)

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

    async def _put(self, fact: Fact, version: FactVersion, *, present: bool) -> None:
        key = fact_point(fact)
        for _ in range(MAX_ATTEMPTS):
            known = (await self._store.retrieve(self._collection, [key], payload=(VERSION, TOKEN))).get(key)
            if known is not None and tuple(known.payload[VERSION]) >= version:
                return
            payload = {
                "head": fact.head,
                "relation": fact.relation,
                "tail": fact.tail,
                PRESENT: present,
                VERSION: list(version),
                TOKEN: new_token(),
            }
            write = Write(point=Point(id=key, payload=payload), expected=None if known is None else known.token)
            if await self._store.write(self._collection, [write]):
                return
        raise StoreUnavailable("a fact kept changing under this writer", hint="Is another worker stuck?")


def fact_point(fact: Fact) -> UUID:
    """The id of the point that holds a fact."""
    name = f"{fact.head}\x00{fact.relation}\x00{fact.tail}"
    return UUID(bytes=hashlib.blake2b(name.encode(), digest_size=16, person=b"fact").digest())
