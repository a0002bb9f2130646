"""Bounded memories: the profiles this worker owns, and the vectors of the items it meets."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.items import Items

__all__ = ["Bounded", "Content", "ItemVectors"]

Key = TypeVar("Key")
Value = TypeVar("Value")
Vector = NDArray[np.float32]


class Bounded(Generic[Key, Value]):
    """The `capacity` most recently used values."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value of a key, if it is still there."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def peek(self, key: Key) -> Value | None:
        """The value of a key, if it is still there; it is not used by that."""
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, and drops the one used longest ago if there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def drop(self, key: Key) -> None:
        """Forgets a key, known or not."""
        self._values.pop(key, None)

    def drop_where(self, condition: Callable[[Key], bool]) -> None:
        """Forgets all keys that meet a condition."""
        for key in [key for key in self._values if condition(key)]:
            del self._values[key]


class Content(Struct, frozen=True, kw_only=True):
    """Content vectors gathered for one computation.

    Attributes:
        rows: which row of `vectors` holds an item.
        vectors: shape (m, d).
        missing: items that are not in the store at all; those in it without content are neither here nor there.
    """

    rows: dict[str, int]
    vectors: Vector
    missing: frozenset[str]


class ItemVectors:
    """Reads content vectors through a bounded cache. Absence is never cached: the item may come any moment.

    Args:
        items: where the vectors are.
        capacity: vectors kept.
        ttl_s: how long a vector may be used that has since changed in the store.
        clock: seconds; monotonic.
    """

    def __init__(
        self, items: Items, *, capacity: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._items = items
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: Bounded[str, tuple[float, Vector | None]] = Bounded(capacity)

    async def gather(self, item_ids: Iterable[str]) -> Content:
        """The vectors of `item_ids`, as rows of one array."""
        now = self._clock()
        found: dict[str, Vector | None] = {}
        unknown: list[str] = []
        for item_id in set(item_ids):
            entry = self._known.get(item_id)
            if entry is not None and entry[0] > now:
                found[item_id] = entry[1]
            else:
                unknown.append(item_id)
        if unknown:
            for item_id, vector in (await self._items.vectors(unknown)).items():
                found[item_id] = vector
                self._known.put(item_id, (now + self._ttl_s, vector))
        present = {item_id: vector for item_id, vector in found.items() if vector is not None}
        return Content(
            rows={item_id: row for row, item_id in enumerate(present)},
            vectors=np.stack(list(present.values()))
            if present
            else np.zeros((0, self._items.space.dimension), np.float32),
            missing=frozenset(item_id for item_id in unknown if item_id not in found),
        )

    def drop(self, item_id: str) -> None:
        """Forgets an item that has changed."""
        self._known.drop(item_id)
