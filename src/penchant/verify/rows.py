"""What every row must be, recounted from the log of transitions in the plainest way, in the order of the log.

Of the code that keeps rows it shares the weight of a moment and what stands for an item, so that both cut rows short
at the same place; adding, cutting and what counts once are written anew.
"""

import heapq
from collections.abc import Iterable, Mapping
from sys import intern

import numpy as np
from msgspec import Struct, field

from penchant.parts import build_parts
from penchant.profile.affinity import (
    POPULARITY_HALF_LIVES_MS,
    ROW_HALF_LIFE_MS,
    ROW_LIMIT,
    Row,
    growth,
    item_key,
)
from penchant.profile.positions import Position, Positions
from penchant.settings import Settings
from penchant.streams import affinity, events
from penchant.streams.codec import Unusable, decode
from penchant.streams.connection import partition_of
from penchant.streams.interpret import check_key
from penchant.streams.records import Record, SourceKey
from penchant.verify.held import awaited
from penchant.verify.log import Extent
from penchant.verify.report import RowReport, RowsReport

__all__ = ["HeldRows", "Recount", "read_rows"]

TOLERANCE = 1e-6


class HeldRows(Struct, frozen=True, kw_only=True):
    """What a store holds: at least what its positions cover."""

    positions: dict[SourceKey, Position]
    rows: dict[str, Row]


def read_rows(settings: Settings, partitions: Iterable[SourceKey]) -> HeldRows:
    """A store's rows, and its positions in the log of transitions."""
    return awaited(read(settings, partitions))


async def read(settings: Settings, partitions: Iterable[SourceKey]) -> HeldRows:
    """Reads positions first, so that the rows read after them hold at least what they cover."""
    parts = build_parts(settings)
    await parts.store.open([parts.rows.layout], create=False)
    try:
        group = settings.prefixed(affinity.GROUP)
        positions = await Positions(parts.store, parts.rows.layout.name, group).load(partitions)
        return HeldRows(positions=positions, rows={row.item_id: row async for row in parts.rows.all()})
    finally:
        await parts.store.close()


class Tally(Struct):
    """An item's transitions, counted."""

    count: int = 0
    as_of: int = 0
    decayed: list[float] = field(default_factory=lambda: [0.0] * (len(POPULARITY_HALF_LIVES_MS) + 1))
    after: dict[int, float] = field(default_factory=dict)
    newest: dict[SourceKey, int] = field(default_factory=dict)

    def add(self, told: events.Transition) -> None:
        """Counts one that has not been counted."""
        self.count += 1
        self.as_of = max(self.as_of, told.at)
        self.newest[told.origin.topic, told.origin.partition] = told.origin.offset
        for number, half_life_ms in enumerate((*POPULARITY_HALF_LIVES_MS, ROW_HALF_LIFE_MS)):
            self.decayed[number] += growth(told.at, half_life_ms)
        weight = growth(told.at, ROW_HALF_LIFE_MS)
        for item_id, share in told.previous:
            key = item_key(item_id)
            self.after[key] = self.after.get(key, 0.0) + share * weight
        if len(self.after) > ROW_LIMIT:
            heaviest = heapq.nlargest(ROW_LIMIT, ((weight, key) for key, weight in self.after.items()))
            self.after = {key: weight for weight, key in heaviest}


class Recount:
    """Counts the log's transitions: those that the store must hold, and those of the rest that it does hold.

    Args:
        held: what the store holds.
        before: a snapshot to start from; None: the beginning of the log.
    """

    def __init__(self, held: HeldRows, before: HeldRows | None) -> None:
        self.held = held
        self.tallies = {} if before is None else {item_id: tally_of(row) for item_id, row in before.rows.items()}
        self.covered = {source: position.next_offset for source, position in held.positions.items()}
        self.records = self.in_flight = 0

    def take(self, record: Record) -> None:
        """Takes a record into account, in the order of the log."""
        self.records += 1
        try:
            told = decode(events.Transition, record.value, record.headers)
            check_key(record, told.item_id)
        except Unusable:
            return
        origin = (told.origin.topic, told.origin.partition)
        tally = self.tallies.get(told.item_id)
        if tally is not None and told.origin.offset <= tally.newest.get(origin, -1):
            return  # published again
        row = self.held.rows.get(told.item_id)
        taken = row is not None and told.origin.offset <= row.applied.get(origin, -1)
        required = record.offset < self.covered.get((record.topic, record.partition), 0)
        self.in_flight += not required
        if taken or required:
            self.tallies.setdefault(intern(told.item_id), Tally()).add(told)

    def report(self, extents: Mapping[SourceKey, Extent], starts: Mapping[SourceKey, int]) -> RowsReport:
        """Compares row by row. Where the beginning of an item's log is gone, its row is taken as it is."""
        torn = {source[1] for source, extent in extents.items() if extent.low > starts[source]}
        findings: list[RowReport] = []
        trusted = 0
        known = sorted(self.held.rows.keys() | self.tallies.keys())
        for item_id in known:
            if partition_of(item_id.encode(), len(extents)) in torn:
                trusted += 1
                continue
            row, tally = self.held.rows.get(item_id) or Row(item_id=item_id), self.tallies.get(item_id) or Tally()
            off = deviation(row, tally)
            if row.count != tally.count or off > TOLERANCE:
                findings.append(RowReport(item_id=item_id, expected=tally.count, stored=row.count, deviation=off))
        return RowsReport(
            rows=len(known) - trusted,
            transitions=self.records,
            in_flight=self.in_flight,
            before_log=trusted,
            findings=tuple(findings),
        )


def tally_of(row: Row) -> Tally:
    """A row, to be counted on from."""
    return Tally(
        row.count,
        row.as_of,
        [*row.popularity, row.mass],
        dict(zip(row.keys.tolist(), row.sums.tolist(), strict=True)),
        dict(row.applied),
    )


def deviation(row: Row, tally: Tally) -> float:
    """The largest relative difference of a sum, at most 1; 1 where one is missing or too many."""
    if set(row.keys.tolist()) != tally.after.keys() or row.as_of != tally.as_of:
        return 1.0
    stored = np.array([*row.popularity, row.mass, *row.sums])
    expected = np.array([*tally.decayed, *(tally.after[key] for key in row.keys.tolist())])
    return float(np.max(np.abs(stored - expected) / np.maximum(np.maximum(stored, expected), np.finfo(float).tiny)))
