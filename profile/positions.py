"""How far the store covers each partition of the log, kept in the collection that it speaks of.

A position is written behind the points that it covers, into the same shard: wherever the store is set back to (a
restored snapshot, a power cut), its positions are set back with it, and the log is applied again from there.
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct

from penchant.profile.identity import position_point
from penchant.profile.store.base import TOKEN, Point, Store, new_token

__all__ = ["Position", "Positions"]

TOPIC_ID, NEXT_OFFSET = "topic_id", "next_offset"


class Position(Struct, frozen=True, kw_only=True):
    """Everything of a partition below `next_offset` is in the store.

    Attributes:
        topic_id: tells a topic from another one of the same name created later.
    """

    topic_id: str
    next_offset: int


class Positions:
    """The positions of one consumer group in one collection.

    Args:
        store: holds the collection.
        collection: the one that the group writes to.
        group: the consumer group.
    """

    def __init__(self, store: Store, collection: str, group: str) -> None:
        self._store = store
        self._collection = collection
        self._group = group

    async def load(self, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Position]:
        """The positions known among `partitions` (topic, partition)."""
        wanted = {position_point(self._group, topic, number): (topic, number) for topic, number in partitions}
        found = await self._store.retrieve(self._collection, list(wanted))
        return {
            wanted[key]: Position(topic_id=point.payload[TOPIC_ID], next_offset=point.payload[NEXT_OFFSET])
            for key, point in found.items()
        }

    async def save(self, positions: Mapping[tuple[str, int], Position]) -> None:
        """Notes positions, behind all writes acknowledged before."""
        await self._store.put(
            self._collection,
            [
                Point(
                    id=position_point(self._group, topic, number),
                    payload={TOPIC_ID: position.topic_id, NEXT_OFFSET: position.next_offset, TOKEN: new_token()},
                )
                for (topic, number), position in positions.items()
            ],
        )
