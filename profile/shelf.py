"""The catalogue in memory: what may be recommended, compared with exactly and for many users at once.

A search of the store costs a query a user, and reads what it finds out of the engine one object after the other. The
content of some ten thousand items fits into memory, and is gone through once for all users of a batch.
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
from penchant.profile.items import Items, Listed, Stored
from penchant.profile.seen import HASHES, hashed
from penchant.profile.state import ProfileState

__all__ = ["Shelf", "Wanted"]

log = structlog.get_logger()

Vectors = NDArray[np.float32]

REFRESH_S = 5.0
REST = 10  # times as long as looking for what others have changed took
MOST_REST_S = 30.0
MANY = 1_024  # items that have changed: to read the catalogue anew, while the store answers, keeps nobody waiting
# An embedded engine passes over all points for each query, and nobody else writes there: what bounds this is memory,
MOST_EMBEDDED = 500_000  # a gigabyte of text alone.
MOST_SHARED = 50_000  # A server has an index, and is asked again and again which items others have changed.
MOST_SCORES = 2**22  # computed at a time: 16 MB
FEW = 64  # items read or placed at a time
AT_ONCE = 2**24  # multiplications: some milliseconds at most, and no more than it takes to ask a thread for them
REACH = (1, 8, 64)  # times what is asked for: how far out the store looks for items that a user has not met
WITHIN = (4, 32)  # likewise in memory, before it looks at all


class Wanted(Struct, frozen=True, kw_only=True, eq=False):
    """What a user's search asks for.

    Attributes:
        vector: to be near to, shape (d,).
        author: whose own items are left out.
        state: of the user: what they have met is left out as well.
    """

    vector: Vectors
    author: str
    state: ProfileState


class Shelf:
    """Searches listed items: in memory where there are at most so many, else in the store.

    Args:
        items: of the catalogue.
        most: items held in memory; 0: none; None: so many as are searched sooner there than in such a store.

    Attributes:
        stocked: whether it is memory that answers.
    """

    def __init__(self, items: Items, *, most: int | None) -> None:
        self._items = items
        self._most = most if most is not None else MOST_SHARED if items.shared else MOST_EMBEDDED
        self.stocked = False
        self._stocking = False
        self._changed: set[str] = set()  # since the catalogue was read
        self._one_at_a_time = asyncio.Lock()
        self._hashed: NDArray[np.uint32]
        self._slices: dict[str, Vectors]  # those that any item has
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

    async def search(self, wanted: Sequence[Wanted], *, limit: int, least: int) -> list[list[str]]:
        """For each query the `limit` nearest listed items that may be recommended to its user, best first.

        Fewer where so many are not near enough to be looked at; less than `least` only where there are no more, or
        where the store has looked far out for them among what the user has met.
        """
        async with self._one_at_a_time:
            if await self._ready():
                if len(wanted) * sum(kept.size for kept in self._slices.values()) <= AT_ONCE:
                    return self._nearest(wanted, limit)
                return await asyncio.to_thread(self._nearest, wanted, limit)
        return await self._search_store(wanted, limit, least)

    async def listed(self, item_ids: Iterable[str]) -> dict[str, Listed]:
        """Those of `item_ids` that may be recommended."""
        async with self._one_at_a_time:
            if await self._ready():
                places = self._places
                return {item_id: self._listed[places[item_id]] for item_id in item_ids if item_id in places}
        return await self._items.listed(item_ids)

    @property
    def names(self) -> Collection[str]:
        """The listed items; none while the shelf is not stocked."""
        return self._places.keys() if self.stocked else ()

    async def _search_store(self, wanted: Sequence[Wanted], limit: int, least: int) -> list[list[str]]:
        """`search` in the store.

        It cannot be asked for what a filter does not hold, so what that holds is found and passed over. Where this
        leaves too few, because a user has met most of what is near, the search goes further out.
        """
        found: list[list[str]] = [[] for _ in wanted]
        short = list(range(len(wanted)))
        for most in (limit * factor for factor in REACH):
            if not short:
                break
            queries = [
                (
                    one.vector,
                    self._items.listed_filter(
                        author=one.author, without={signal.item_id for signal in one.state.signals}
                    ),
                )
                for one in (wanted[place] for place in short)
            ]
            nearest = await self._items.search(queries, limit=most)
            for place, candidates in zip(short, nearest, strict=True):
                seen = wanted[place].state.seen
                found[place] = [one.item_id for one in candidates if one.item_id not in seen][:limit]
            short = [
                place
                for place, candidates in zip(short, nearest, strict=True)
                if len(found[place]) < least and len(candidates) == most
            ]
        return found

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
            if place == len(self._hashed):
                self._grow()
            self._places[item_id] = place
            self._names.append(item_id)
            self._listed.append(Listed(author="", at=0))
        self._own.subtract([self._listed[place].author])
        self._own[stored.item.author] += 1
        self._listed[place] = Listed(author=stored.item.author, at=stored.item.version[0])
        self._hashed[place] = hashed([item_id])[0]
        for name, bounds in self._bounds.items():
            part = stored.vector[bounds]
            if name not in self._slices and part.any():
                self._slices[name] = np.zeros((len(self._hashed), len(part)), np.float32)
            if name in self._slices:
                self._slices[name][place] = part
        self._tokens[item_id] = stored.token

    def _remove(self, item_id: str) -> None:
        """Takes an item off; the last one takes its place."""
        place = self._places.pop(item_id, None)
        if place is None:
            return
        del self._tokens[item_id]
        self._own.subtract([self._listed[place].author])
        name, listed = self._names.pop(), self._listed.pop()
        if name != item_id:
            last = len(self._names)
            self._names[place], self._listed[place] = name, listed
            for column in (self._hashed, *self._slices.values()):
                column[place] = column[last]
            self._places[name] = place

    def _grow(self) -> None:
        # New arrays: a search that was given up may still be computing with these.
        more = len(self._hashed) + FEW
        self._hashed = np.concatenate([self._hashed, np.zeros((more, HASHES), np.uint32)])
        self._slices = {
            name: np.concatenate([kept, np.zeros((more, kept.shape[1]), np.float32)])
            for name, kept in self._slices.items()
        }

    def _clear(self) -> None:
        self.stocked = False
        self._changed.clear()
        self._bounds = self._items.space.bounds()
        self._slices = {}
        self._names: list[str] = []
        self._listed: list[Listed] = []
        self._own: Counter[str] = Counter()  # items by author
        self._places: dict[str, int] = {}
        self._tokens: dict[str, int | None] = {}
        self._hashed = np.zeros((0, HASHES), np.uint32)

    def _nearest(self, wanted: Sequence[Wanted], limit: int) -> list[list[str]]:
        """`search` in memory; of many in a thread of its own."""
        count = len(self._names)
        found: list[list[str]] = [[] for _ in wanted]
        asking = list(range(len(wanted))) if count else []
        for most in (*(min(limit * factor, count) for factor in WITHIN), count):
            step = max(1, MOST_SCORES // max(1, most))
            short = []
            for users in (asking[start : start + step] for start in range(0, len(asking), step)):
                for user, best in zip(users, self._best([wanted[one].vector for one in users], most), strict=True):
                    lacking = best[wanted[user].state.seen.lacking(self._hashed[best])]
                    found[user] = self._not_of(wanted[user].author, lacking)[:limit]
                    if len(found[user]) < limit and most < count:
                        short.append(user)
            asking = short
        return found

    def _not_of(self, author: str, places: NDArray[np.int64]) -> list[str]:
        """The items at some places that are not the author's own."""
        own = self._own[author] > 0
        return [self._names[place] for place in places.tolist() if not own or self._listed[place].author != author]

    def _best(self, vectors: Sequence[Vectors], most: int) -> list[NDArray[np.int64]]:
        """For each vector the places of its `most` largest dot products, best first.

        Each block of the catalogue is read once for all of them, and put in order is only what is better than what
        they have found before.
        """
        queries, count = np.stack(vectors), len(self._names)
        block = max(most, MOST_SCORES // len(queries))
        found = [(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in vectors]
        for start in range(0, count, block):
            end = min(start + block, count)
            scores = np.zeros((end - start, len(queries)), np.float32)
            for name, kept in self._slices.items():  # this way round: few queries take a third as long
                scores += kept[start:end] @ queries[:, self._bounds[name]].T
            for user, mine in enumerate(np.ascontiguousarray(scores.T)):
                places, best = found[user]
                better = np.flatnonzero(mine > best.min()) if start else np.arange(end - start)
                if better.size:
                    found[user] = largest(
                        np.concatenate([places, better + start]), np.concatenate([best, mine[better]]), most
                    )
        return [places[np.argsort(-best, kind="stable")] for places, best in found]


def largest(places: NDArray[np.int64], scores: Vectors, most: int) -> tuple[NDArray[np.int64], Vectors]:
    """The places of the `most` largest scores, in no order, and those."""
    if len(scores) <= most:
        return places, scores
    best = np.argpartition(scores, -most)[-most:]
    return places[best], scores[best]
