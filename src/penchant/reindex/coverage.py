"""How far a store covers the log: read before anything else is, written behind it all."""

from collections.abc import Mapping
from uuid import UUID

from penchant.parts import Parts
from penchant.profile.identity import position_point
from penchant.profile.positions import Position, Positions
from penchant.reindex.sides import Sides
from penchant.settings import Settings
from penchant.streams import affinity, content, interest
from penchant.streams.records import SourceKey
from penchant.streams.topics import Topic, topic_specs

__all__ = ["Coverage", "Covered"]

# By lane and partition (topic, number).
Covered = Mapping[tuple[str, str, int], Position]


class Coverage:
    """The positions of the lanes whose work is copied.

    Partitions are those that the settings ask for. One that is not among them has no position in the new store, and is
    read from its beginning: that takes longer, and changes nothing.
    """

    def __init__(self, sides: Sides) -> None:
        self._settings: Settings = sides.new
        self._lanes = [content, interest, *([] if sides.shared else [affinity])]
        self._specs = {spec.topic: spec for spec in topic_specs(sides.new)}

    async def load(self, parts: Parts) -> Covered:
        """How far a store covers the log, by lane and partition."""
        found: dict[tuple[str, str, int], Position] = {}
        for lane in self._lanes:
            known = await self._positions(parts, lane.LANE, lane.GROUP).load(self._partitions(lane.TOPICS))
            found |= {(lane.LANE, *source): position for source, position in known.items()}
        return found

    async def save(self, parts: Parts, covered: Covered) -> None:
        """Notes how far a store covers the log, behind all that was written to it."""
        for lane in self._lanes:
            mine: Mapping[SourceKey, Position] = {
                (topic, number): position for (name, topic, number), position in covered.items() if name == lane.LANE
            }
            if mine:
                await self._positions(parts, lane.LANE, lane.GROUP).save(mine)

    def points(self) -> list[UUID]:
        """The ids of the points that hold positions."""
        return [
            position_point(self._settings.prefixed(lane.GROUP), *source)
            for lane in self._lanes
            for source in self._partitions(lane.TOPICS)
        ]

    def _partitions(self, topics: tuple[Topic, ...]) -> list[SourceKey]:
        specs = [self._specs[topic] for topic in topics]
        return [(spec.name, number) for spec in specs for number in range(spec.partitions)]

    def _positions(self, parts: Parts, lane: str, group: str) -> Positions:
        layouts = {
            content.LANE: parts.items.layout,
            interest.LANE: parts.profiles.layout,
            affinity.LANE: parts.rows.layout,
        }
        return Positions(parts.store, layouts[lane].name, self._settings.prefixed(group))
