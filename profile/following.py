"""What follows on what, in memory: which items came after those that a user has just liked.

A search of the store for that costs a query a user. What rows say of the items before theirs fits into memory as one
sparse matrix, by what came before; the product with what users liked last answers all users of a batch.

The matrix is some seconds old, fifty times as many as making it took: candidates are chosen by it, and nothing else.
What a candidate's row says is read as it stands when lists are made.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray
from scipy import sparse

from penchant.profile.rows import REMEMBERED, Rows
from penchant.profile.seen import SeenItems, hashed
from penchant.profile.store.base import SparseVector

__all__ = ["Asked", "Followers", "Following"]

REST = 50  # times as long as it took to make what follows, until it is made anew
LEAST_REST_S, MOST_REST_S = 0.05, 30.0
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
        values = np.concatenate([np.zeros(0, np.float32), *(row.values for row in rows)])
        items = np.repeat(np.arange(len(rows), dtype=np.int32), [len(row.indices) for row in rows])
        order = np.argsort(keys, kind="stable")
        self._keys, starts = np.unique(keys[order], return_index=True)
        self._matrix = sparse.csr_array(
            (values[order], items[order], np.append(starts, len(keys))), shape=(len(self._keys), len(rows))
        )

    def search(self, asked: Sequence[Asked], *, limit: int) -> list[list[str]]:
        """For each user the `limit` items that follow best on what they have just liked, best first.

        Only items that follow on any of it, and that the user has not met.
        """
        if not len(self._keys):
            return [[] for _ in asked]
        keys = np.concatenate([np.zeros(0, np.uint32), *(one.recent.indices for one in asked)])
        weights = np.concatenate([np.zeros(0, np.float32), *(one.recent.values for one in asked)])
        users = np.repeat(np.arange(len(asked)), [len(one.recent.indices) for one in asked])
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = self._keys[places] == keys
        queries = sparse.csr_array((weights[known], (users[known], places[known])), shape=(len(asked), len(self._keys)))
        scores = queries @ self._matrix
        return [
            self._best(scores.indices[start:end], scores.data[start:end], one.seen, limit)
            for one, start, end in zip(asked, scores.indptr[:-1], scores.indptr[1:], strict=True)
        ]

    def _best(self, items: NDArray[np.int32], scores: NDArray[np.float32], seen: SeenItems, limit: int) -> list[str]:
        """The best of one user.

        Args:
            items: those that follow at all.
            scores: of those.
            seen: what the user has met.
            limit: how many at most.
        """
        best = np.arange(0)
        for most in (*(limit * factor for factor in WITHIN), len(items)):
            best = np.argpartition(scores, -most)[-most:] if most < len(items) else np.arange(len(items))
            best = best[seen.lacking(self._hashed[items[best]])]
            if len(best) >= limit or most >= len(items):
                break
        best = best[np.lexsort((items[best], -scores[best]))][:limit]
        return [self._names[item] for item in items[best[scores[best] > 0]].tolist()]


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
            self._making.add_done_callback(lambda task: task.cancelled() or task.exception())  # the store answers then
        return self._made

    async def _make(self, names: Sequence[str]) -> None:
        """Makes it anew, while lists are made by what was."""
        began = time.monotonic()
        after = await self._rows.after(names)
        self._made = await asyncio.to_thread(Following, after)
        ended = time.monotonic()
        self._until = ended + min(max(LEAST_REST_S, REST * (ended - began)), MOST_REST_S)
