"""Bounded memories: the profiles this worker owns, the vectors of the items it meets, and what else is read often."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.items import Items

__all__ = ["VOID", "Bounded", "Content", "ItemVectors", "Mark", "Remembered"]

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

    def get_all(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Value | None]]:
        """What `get` gives of each of many keys, with it."""
        values, move = self._values, self._values.move_to_end
        for key in keys:
            value = values.get(key)
            if value is not None:
                move(key)
            yield key, value

    def peek(self, key: Key) -> Value | None:
        """The value of a key, if it is still there; it is not used by that."""
        return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keeps a value, and drops the one used longest ago if there are too many."""
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)

    def values(self) -> Iterable[Value]:
        """All values, the one used longest ago first."""
        return self._values.values()

    def drop(self, key: Key) -> None:
        """Forgets a key, known or not."""
        self._values.pop(key, None)

    def drop_where(self, condition: Callable[[Key], bool]) -> None:
        """Forgets all keys that meet a condition."""
        for key in [key for key in self._values if condition(key)]:
            del self._values[key]


class Remembered(Generic[Value]):
    """What is stored under names, as this process has last written or read it; absence, too.

    Args:
        capacity: names remembered.
        ttl_s: how long what others may have changed is; infinite where nobody else writes.
        clock: seconds; monotonic.
    """

    def __init__(self, capacity: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._values: Bounded[str, tuple[float, Value | None]] = Bounded(capacity)
        self._overtaken: list[set[str]] = []  # by reading under way: what was written since it began

    async def get(
        self, names: Iterable[str], read: Callable[[list[str]], Awaitable[Mapping[str, Value]]]
    ) -> dict[str, Value]:
        """What there is under some names; `read` finds what is not remembered."""
        now = self._clock()
        found: dict[str, Value] = {}
        unknown: list[str] = []
        for name, known in self._values.get_all(names):
            if known is None or known[0] <= now:
                unknown.append(name)
            elif known[1] is not None:
                found[name] = known[1]
        if unknown:
            overtaken: set[str] = set()
            self._overtaken.append(overtaken)
            try:
                stored = await read(unknown)
            finally:
                self._overtaken = [one for one in self._overtaken if one is not overtaken]
            for name in unknown:
                if name not in overtaken:
                    self._values.put(name, (now + self._ttl_s, stored.get(name)))
            found |= stored
        return found

    def wrote(self, values: Mapping[str, Value | None]) -> None:
        """Notes what has been written."""
        until = self._clock() + self._ttl_s
        for name, value in values.items():
            self._values.put(name, (until, value))
        for overtaken in self._overtaken:
            overtaken.update(values)

    def forget(self, names: Iterable[str]) -> None:
        """Drops names of which it is not known what is stored."""
        gone = list(names)
        for name in gone:
            self._values.drop(name)
        for overtaken in self._overtaken:
            overtaken.update(gone)


class Content(Struct, frozen=True, kw_only=True, eq=False):
    """Content vectors gathered for one computation.

    Attributes:
        rows: which row of `vectors` holds an item; of those asked for that have content.
        vectors: shape (m, d), with rows that nobody asked for among them. Rows that are there stay as they are.
        missing: items that are not in the store at all; those in it without content are neither here nor there.
        mark: until when the rows are those of the items.
    """

    rows: dict[str, int]
    vectors: Vector
    missing: frozenset[str]
    mark: "Mark"


class Mark(Struct, frozen=True, gc=False):
    """Until when rows of items may be used without being asked for again: see `ItemVectors.holds`.

    Attributes:
        array: which one they are rows of.
        moment: counts the items that have changed.
        until: when others may have changed some, seconds.
    """

    array: int
    moment: int
    until: float

    def along(self, other: "Mark") -> "Mark":
        """Until when these rows hold and others, which hold under another mark as well."""
        return Mark(self.array, self.moment, min(self.until, other.until))


class Kept(Struct, gc=False):
    """What is remembered of an item: until when, seconds, and its row; `VOID` where it has no content."""

    until: float
    row: int


VOID = -1
MOST_CHANGED = 2**12  # items of which is remembered that they have changed
SPARE = 256  # rows, and as many as are in use: what a new array has room for beyond those


class ItemVectors:
    """Reads content vectors through a bounded cache. Absence is never cached: the item may come any moment.

    Vectors are rows of one array, to which rows are only ever added: whoever has gathered some may go on computing
    with them while others gather more. When the array is full, the rows in use move to a new one.

    Args:
        items: where the vectors are. What this process writes of them is read again.
        capacity: vectors kept.
        ttl_s: how long a vector may be used that another process has changed.
        clock: seconds; monotonic.
    """

    def __init__(
        self, items: Items, *, capacity: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._items = items
        self._ttl_s = ttl_s if items.shared else np.inf
        self._clock = clock
        self._capacity = capacity
        self._full = False  # whether anything may have been forgotten yet
        self._known: Bounded[str, Kept] = Bounded(capacity)
        self._array: Vector = np.empty((0, items.space.dimension), np.float32)
        self._arrays = 0
        self._used = 0
        self._moment = 0
        self._changed: Bounded[str, int] = Bounded(MOST_CHANGED)  # when items changed, by `_moment`
        self._overtaken: list[set[str]] = []  # by reading under way: what was dropped since it began
        items.watch(self._drop)

    async def gather(self, item_ids: Iterable[str]) -> Content:
        """The vectors of `item_ids`, as rows of one array."""
        now, moment, array = self._clock(), self._moment, self._array
        rows: dict[str, int] = {}
        unknown: list[str] = []
        until = now + self._ttl_s
        for item_id, kept in self._known.get_all(dict.fromkeys(item_ids)):
            if kept is None or kept.until <= now:
                unknown.append(item_id)
                continue
            until = min(until, kept.until)
            if kept.row != VOID:
                rows[item_id] = kept.row
        overtaken: set[str] = set()
        self._overtaken.append(overtaken)
        try:
            found = await self._items.vectors(unknown) if unknown else {}
        finally:
            self._overtaken = [one for one in self._overtaken if one is not overtaken]
        vectors = {item_id: vector for item_id, vector in found.items() if vector is not None}
        self._make_room(len(vectors) + len(rows))
        if array is not self._array:  # rows have moved, now or while the store was asked
            vectors |= {item_id: array[row] for item_id, row in rows.items()}
        rows |= {item_id: self._row(item_id, vector) for item_id, vector in vectors.items()}
        for item_id in found:
            if item_id not in overtaken:
                self._known.put(item_id, Kept(now + self._ttl_s, rows.get(item_id, VOID)))
        self._full = self._full or len(self._known) >= self._capacity
        return Content(
            rows=rows,
            vectors=self._array[: self._used],
            missing=frozenset(item_id for item_id in unknown if item_id not in found),
            mark=Mark(self._arrays, moment if overtaken else self._moment, until),
        )

    def holds(self, mark: Mark, item_ids: Iterable[str]) -> bool:
        """Whether the rows of some items, which were there, are still what they were when they were gathered."""
        if mark.array != self._arrays or self._clock() >= mark.until or self._moment - mark.moment > MOST_CHANGED:
            return False
        return mark.moment == self._moment or all(
            (self._changed.peek(item_id) or 0) <= mark.moment for item_id in item_ids
        )

    def drop(self, item_id: str) -> None:
        """Forgets an item that has changed."""
        self._drop([item_id])

    def _drop(self, item_ids: Collection[str]) -> None:
        for item_id in item_ids:
            self._known.drop(item_id)
            self._note(item_id)
        for overtaken in self._overtaken:
            overtaken.update(item_ids)

    def _make_room(self, count: int) -> None:
        """Moves the rows in use to a new array where this one has no room for so many more."""
        if self._used + count <= len(self._array):
            return
        kept = [one for one in self._known.values() if one.row != VOID]
        array = np.empty((2 * (len(kept) + count) + SPARE, self._array.shape[1]), np.float32)
        array[: len(kept)] = self._array[[one.row for one in kept]]
        for row, one in enumerate(kept):
            one.row = row
        self._array, self._used = array, len(kept)
        self._arrays += 1

    def _row(self, item_id: str, vector: Vector) -> int:
        """The row of an item's vector: the one that it has, where that says the same, else a new one."""
        kept = self._known.peek(item_id)
        if kept is not None and kept.row != VOID and np.array_equal(self._array[kept.row], vector):
            return kept.row
        row = self._used
        self._array[row] = vector
        self._used += 1
        if kept is not None or self._full:
            self._note(item_id)  # it has had another one, or may have had one that has been forgotten
        return row

    def _note(self, item_id: str) -> None:
        """Notes that an item may have another row than before."""
        self._moment += 1
        self._changed.put(item_id, self._moment)
