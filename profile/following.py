"""What follows on what, in memory: which items came after those that a user has just liked.

A search of the store for that costs a query a user. What rows say of the items before theirs fits into memory, by
what came before, and what a user liked last takes a few slices of it.

What is in memory is some seconds old, fifty times as many as making it took: candidates are chosen by it, and nothing
else. What a candidate's row says is read as it stands when lists are made.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import structlog
from msgspec import Struct
from numpy.typing import NDArray

from penchant.errors import Unavailable
from penchant.profile.rows import REMEMBERED, Rows
from penchant.profile.seen import SeenItems, hashed
from penchant.profile.store.base import SparseVector

__all__ = ["Asked", "Followers", "Following"]

log = structlog.get_logger()

Floats = NDArray[np.float64]

REST = 50  # times as long as it took to make what follows, until it is made anew
LEAST_REST_S, MOST_REST_S = 0.05, 60.0
WITHIN = (4, 32)  # times what is asked for: how far out to look for what a user has not met, before all is looked at


class Asked(Struct, frozen=True, kw_only=True, eq=False):
    """What a user's search asks for.

    Attributes:
        recent: what the user has just liked, as `Rows.asked` gives it.
        seen: what the user has met, which is left out.
    """

    recent: SparseVector
    seen: SeenItems


class Following:
    """What follows on what.

    Args:
        after: of items, what came before each, as `Rows.after` gives it.
    """

    def __init__(self, after: Mapping[str, SparseVector]) -> None:
        self._names = list(after)
        self._hashed = hashed(self._names)
        rows = list(after.values())
        keys = np.concatenate([np.zeros(0, np.uint32), *(row.indices for row in rows)])
        order = np.argsort(keys, kind="stable")
        # By what came before: where in `items` and `values` those begin that came after it.
        self._keys, starts = np.unique(keys[order], return_index=True)
        self._starts = np.append(starts, len(keys)).tolist()
        self._items = np.repeat(np.arange(len(rows), dtype=np.int32), [len(row.indices) for row in rows])[order]
        self._values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])[order]

    def search(self, asked: Sequence[Asked], *, limit: int) -> list[list[str]]:
        """For each user the `limit` items that follow best on what they have just liked, best first.

        Only items that follow on any of it, and that the user has not met.
        """
        return [self._best(self._scores(one.recent), one.seen, limit) for one in asked]

    def _scores(self, recent: SparseVector) -> Floats:
        """The dot product of each item with a query, shape (n,)."""
        places = np.searchsorted(self._keys, recent.indices)
        found = [
            (slice(*self._starts[place : place + 2]), weight)
            for place, key, weight in zip(places.tolist(), recent.indices.tolist(), recent.values.tolist(), strict=True)
            if place < len(self._keys) and self._keys[place] == key
        ]
        if not found:
            return np.zeros(len(self._names))
        items = np.concatenate([self._items[those] for those, _ in found])
        values = np.concatenate([weight * self._values[those] for those, weight in found])
        return np.bincount(items, values, len(self._names)).astype(np.float64, copy=False)

    def _best(self, scores: Floats, seen: SeenItems, limit: int) -> list[str]:
        """The best of one user, by all scores."""
        best = np.arange(0)
        for most in (*(limit * factor for factor in WITHIN), len(scores)):
            best = np.argpartition(scores, -most)[-most:] if most < len(scores) else np.arange(len(scores))
            best = best[scores[best] > 0]
            enough = len(best) < most
            best = best[seen.lacking(self._hashed[best])]
            if enough or len(best) >= limit:
                break
        best = best[np.lexsort((best, -scores[best]))][:limit]
        return [self._names[item] for item in best.tolist()]


class Followers:
    """Keeps what follows on what in memory, as long as the items of interest are known and not too many.

    Args:
        rows: of the items.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._made: Following | None = None
        self._until = -np.inf
        self._making: asyncio.Task[None] | None = None

    def among(self, names: Collection[str]) -> Following | None:
        """What follows among some items: as it was a moment ago. None where it is not known, or not yet.

        Args:
            names: the items of interest; none: they are not known.
        """
        if not 0 < len(names) <= REMEMBERED:
            self._made = None
        elif time.monotonic() > self._until and (self._making is None or self._making.done()):
            self._making = asyncio.create_task(self._make(list(names)))
        return self._made

    async def _make(self, names: Sequence[str]) -> None:
        """Makes it anew, while lists are made by what was."""
        began = time.monotonic()
        try:
            after = await self._rows.after(names)
            self._made = await asyncio.to_thread(Following, after)
        except Unavailable as error:
            log.warning("what follows cannot be read; will try again", error=str(error))
        finally:
            ended = time.monotonic()
            self._until = ended + min(max(LEAST_REST_S, REST * (ended - began)), MOST_REST_S)
