"""The catalogue in memory: what may be recommended, compared with exactly and for many users at once.

A search of the store costs a query a user, and reads what it finds out of the engine one object after the other. The
content of some ten thousand items fits into memory as one array, and one matrix product answers all users of a batch.
Until the shelf is stocked, and for a catalogue that is too large for it, the store is asked.

What this process writes is on the shelf at once. What others write is found by comparing write tokens, every so many
seconds: for so long an item withdrawn elsewhere may be on lists, and a new one stay off them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import Unavailable
from penchant.profile.items import Candidate, Items, Listed, Stored

__all__ = ["Shelf", "Wanted"]

log = structlog.get_logger()

Vectors = NDArray[np.float32]

REFRESH_S = 5.0
REST = 10  # times as long as looking for what others have changed took
MOST_REST_S = 30.0
MANY = 1_024  # items that have changed: to read the catalogue anew, while the store answers, keeps nobody waiting
MOST_SCORES = 2**22  # computed at a time: 16 MB
FEW = 64  # items read or placed at a time


class Wanted(Struct, frozen=True, kw_only=True, eq=False):
    """What a user's search asks for.

    Attributes:
        vector: to be near to, shape (d,).
        author: whose own items are left out.
        without: further items that are.
    """

    vector: Vectors
    author: str
    without: Collection[str]


class Shelf:
    """Searches listed items: in memory where there are at most so many, else in the store.

    Args:
        items: of the catalogue.
        most: items held in memory; 0: none.

    Attributes:
        stocked: whether it is memory that answers.
    """

    def __init__(self, items: Items, *, most: int) -> None:
        self._items = items
        self._most = most
        self.stocked = False
        self._stocking = False
        self._changed: set[str] = set()  # since the catalogue was read
        self._one_at_a_time = asyncio.Lock()
        self._vectors: Vectors
        self._times: NDArray[np.int64]
        self._clear()
        items.watch(self._note)

    async def run(self) -> None:
        """Stocks the shelf, and keeps it as the store is, until cancelled."""
        while self._most:
            rest_s = REFRESH_S
            try:
                rest_s = await self._refresh()
            except Unavailable as error:
                log.warning("the catalogue cannot be read; will try again", error=str(error))
            await asyncio.sleep(rest_s)

    async def search(self, wanted: Sequence[Wanted], *, limit: int) -> list[list[Candidate]]:
        """For each query the `limit` listed items of largest dot product, best first."""
        async with self._one_at_a_time:
            if await self._ready():
                return await asyncio.to_thread(self._nearest, wanted, limit)
        filters = [self._items.listed_filter(author=one.author, without=one.without) for one in wanted]
        return await self._items.search(
            [(one.vector, where) for one, where in zip(wanted, filters, strict=True)], limit=limit
        )

    async def listed(self, item_ids: Iterable[str]) -> dict[str, Listed]:
        """Those of `item_ids` that may be recommended."""
        async with self._one_at_a_time:
            if await self._ready():
                places = {item_id: self._places[item_id] for item_id in item_ids if item_id in self._places}
                return {
                    item_id: Listed(author=self._authors[place], at=int(self._times[place]))
                    for item_id, place in places.items()
                }
        return await self._items.listed(item_ids)

    @property
    def names(self) -> Collection[str]:
        """The listed items; none while the shelf is not stocked."""
        return self._places.keys() if self.stocked else ()

    def _note(self, item_ids: Collection[str]) -> None:
        """Has items looked at again that have been written."""
        if self.stocked or self._stocking:
            self._changed.update(item_ids)

    async def _ready(self) -> bool:
        """Whether the shelf is stocked; with what has been written since, if it is."""
        while self.stocked and self._changed:
            if len(self._changed) > MANY:
                self._clear()
                break
            changed = set(self._changed)
            self._changed -= changed
            try:
                await self._take(changed)
            except BaseException:
                self._changed |= changed
                raise
            if len(self._names) > self._most:
                self._clear()
        return self.stocked

    async def _refresh(self) -> float:
        """Stocks the shelf, or looks for what has changed; says how long to rest after that, seconds."""
        if await self._items.count() > self._most:
            async with self._one_at_a_time:
                self._clear()
            return REFRESH_S
        if not self.stocked:
            await self._stock()
            return REFRESH_S
        started = time.monotonic()
        if self._items.shared:
            tokens = {item_id: token async for item_id, token in self._items.tokens()}
            changed = [item_id for item_id, token in tokens.items() if self._tokens.get(item_id) != token]
            self._changed.update(changed, self._tokens.keys() - tokens.keys())
        rest_s = min(max(REFRESH_S, REST * (time.monotonic() - started)), MOST_REST_S)
        async with self._one_at_a_time:
            await self._ready()  # so that no list has much to wait for
        return rest_s

    async def _stock(self) -> None:
        """Reads the whole catalogue. What is written meanwhile is read again."""
        self._clear()
        self._stocking = True
        try:
            async for stored in self._items.all_listed():
                self._place(stored)
            self.stocked = len(self._names) <= self._most
        finally:
            self._stocking = False
        if self.stocked:
            log.info("the catalogue is in memory", items=len(self._names))

    async def _take(self, item_ids: Collection[str]) -> None:
        """Puts items on the shelf as they are now, or takes them off."""
        names = list(item_ids)
        for start in range(0, len(names), FEW):
            part = names[start : start + FEW]
            found = {one.item.item_id: one for one in await self._items.stored(part)}
            for item_id in part:
                if item_id in found:
                    self._place(found[item_id])
                else:
                    self._remove(item_id)

    def _place(self, stored: Stored) -> None:
        item_id = stored.item.item_id
        if stored.vector is None or not stored.item.listed:
            self._remove(item_id)
            return
        place = self._places.get(item_id)
        if place is None:
            place = len(self._names)
            if place == len(self._vectors):
                self._grow()
            self._places[item_id] = place
            self._names.append(item_id)
            self._authors.append("")
        self._own.subtract([self._authors[place]])
        self._own[stored.item.author] += 1
        self._authors[place] = stored.item.author
        self._times[place] = stored.item.version[0]
        self._vectors[place] = stored.vector
        self._tokens[item_id] = stored.token
        self._slices |= {name for name, bounds in self._bounds.items() if stored.vector[bounds].any()}

    def _remove(self, item_id: str) -> None:
        """Takes an item off; the last one takes its place."""
        place = self._places.pop(item_id, None)
        if place is None:
            return
        del self._tokens[item_id]
        self._own.subtract([self._authors[place]])
        name, author = self._names.pop(), self._authors.pop()
        if name != item_id:
            last = len(self._names)
            self._names[place], self._authors[place] = name, author
            self._times[place], self._vectors[place] = self._times[last], self._vectors[last]
            self._places[name] = place

    def _grow(self) -> None:
        # New arrays: a search that was given up may still be computing with these.
        more = len(self._times) + FEW
        self._vectors = np.concatenate([self._vectors, np.zeros((more, self._vectors.shape[1]), np.float32)])
        self._times = np.concatenate([self._times, np.zeros(more, np.int64)])

    def _clear(self) -> None:
        self.stocked = False
        self._changed.clear()
        self._bounds = self._items.space.bounds()
        self._slices: set[str] = set()  # those that any item has
        self._names: list[str] = []
        self._authors: list[str] = []
        self._own: Counter[str] = Counter()  # items by author
        self._places: dict[str, int] = {}
        self._tokens: dict[str, int | None] = {}
        self._times = np.zeros(0, np.int64)
        self._vectors = np.zeros((0, self._items.space.dimension), np.float32)

    def _nearest(self, wanted: Sequence[Wanted], limit: int) -> list[list[Candidate]]:
        """`search` in memory; in a thread of its own."""
        count = len(self._names)
        if not count:
            return [[] for _ in wanted]
        found: list[list[Candidate]] = []
        step = max(1, MOST_SCORES // count)
        for start in range(0, len(wanted), step):
            part = wanted[start : start + step]
            queries = np.stack([one.vector for one in part])
            scores = np.zeros((len(part), count), np.float32)
            for bounds in (self._bounds[name] for name in self._slices):
                scores += queries[:, bounds] @ self._vectors[:count, bounds].T
            found += [self._best(row, one, limit) for row, one in zip(scores, part, strict=True)]
        return found

    def _best(self, scores: Vectors, wanted: Wanted, limit: int) -> list[Candidate]:
        """The best of one user, by all scores."""
        scores[[self._places[item_id] for item_id in wanted.without if item_id in self._places]] = -np.inf
        if self._own[wanted.author]:
            scores[[place for place, author in enumerate(self._authors) if author == wanted.author]] = -np.inf
        best = np.argpartition(scores, -limit)[-limit:] if limit < len(scores) else np.arange(len(scores))
        best = best[np.argsort(-scores[best], kind="stable")]
        return [
            Candidate(item_id=self._names[place], score=score, at=at)
            for place, score, at in zip(best.tolist(), scores[best].tolist(), self._times[best].tolist(), strict=True)
            if score > -np.inf
        ]
