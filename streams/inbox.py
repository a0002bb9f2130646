"""What waits to be handled of one topic: bounded, and handed out together where much of it waits.

A user is written once a batch, so that a lane that is behind catches up with fewer writes the more it takes at once;
and one that keeps up takes what there is, however little. What is bounded are records and their bytes, for posts may
carry megabytes each; the bounds hold however much is still in the log.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import chain

from msgspec import Struct

from penchant.streams.records import Record

__all__ = ["Batch", "Inbox"]

BEARABLE_S = 3.0
SHORTEST_S = 1e-6
MOST_BYTES = 16 * 2**20  # of values handled together, or waiting; one take from Kafka may exceed it by itself


class Batch(Struct, frozen=True, kw_only=True, dict=True):
    """Records of one topic, in order within each partition.

    Attributes:
        assignments: by partition, which assignment of it to this worker the records were taken under.
        settled: by partition, the offset behind the last record that was committed when these were taken.
    """

    topic: str
    records: Sequence[Record]
    assignments: Mapping[int, int]
    settled: Mapping[int, int] = {}

    @cached_property
    def next_offsets(self) -> dict[int, int]:
        """By partition, the offset behind the batch."""
        return {record.partition: record.offset + 1 for record in self.records}

    @cached_property
    def size(self) -> int:
        """Bytes of its records' values."""
        return sum(len(record.value) for record in self.records if record.value is not None)


class Inbox:
    """Batches of one topic that wait, oldest first.

    Args:
        together: records that are handed out at a time at most, unless one batch has more.
        room: records that may wait before it is full.
    """

    def __init__(self, *, together: int, room: int) -> None:
        self._together = together
        self._bearable = together
        self._room = room
        self._waiting: deque[Batch] = deque()
        self._changed = asyncio.Event()
        self._closed = False
        self.records = 0
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether as much waits as may."""
        return self.records >= self._room or self.bytes >= MOST_BYTES

    def put(self, batch: Batch) -> None:
        """Adds what has been taken; also where it is full, for what is in hand cannot be given back."""
        self._waiting.append(batch)
        self.records += len(batch.records)
        self.bytes += batch.size
        self._changed.set()

    def took(self, records: int, seconds: float) -> None:
        """Notes how long it took to handle so many records: no more are handed out than take some `BEARABLE_S`.

        For so long a stop has to wait, and as much is done again after a crash.
        """
        self._bearable = min(self._together, int(records * BEARABLE_S / max(seconds, SHORTEST_S)))

    def close(self) -> None:
        """Nothing more will be handed out."""
        self._closed = True
        self._changed.set()

    async def get(self) -> Batch | None:
        """Waits for something, and gives what there is of it as one batch; None where the inbox is closed."""
        while not self._waiting and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed:
            return None
        parts = [self._next()]
        records, size, assignments = len(parts[0].records), parts[0].size, dict(parts[0].assignments)
        while self._waiting:
            following = self._waiting[0]
            records += len(following.records)
            size += following.size
            anew = any(assignments.get(number, known) != known for number, known in following.assignments.items())
            if records > self._bearable or size > MOST_BYTES or anew:
                break
            assignments |= following.assignments
            parts.append(self._next())
        return together(parts)

    def _next(self) -> Batch:
        batch = self._waiting.popleft()
        self.records -= len(batch.records)
        self.bytes -= batch.size
        return batch


def together(parts: Sequence[Batch]) -> Batch:
    """Batches, one behind the other, as one."""
    if len(parts) == 1:
        return parts[0]
    return Batch(
        topic=parts[0].topic,
        records=list(chain.from_iterable(part.records for part in parts)),
        assignments={number: known for part in parts for number, known in part.assignments.items()},
        settled={number: known for part in parts for number, known in part.settled.items()},
    )
