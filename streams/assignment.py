"""Where a lane starts to read a partition: the smaller of what the store covers and what the group committed.

The committed offset says which lists and dead letters were published, the stored position which signals are in
the store. Either may be behind: the store after it was set back to a snapshot, the commits after a crash. Where
one is unknown the log is read from its beginning. Applying a record again changes nothing.
"""

from collections.abc import Mapping

import structlog
from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.profile.positions import Position

__all__ = ["LogRecreated", "PartitionLog", "Start", "start_of"]

log = structlog.get_logger()


class LogRecreated(ConfigurationError):
    """The log is not the one that the store's positions speak of."""


class PartitionLog(Struct, frozen=True, kw_only=True):
    """What the broker says of a partition.

    Attributes:
        low: the first offset that is still there.
        high: the next offset to be written.
        committed: the group's committed offset, if it has one.
    """

    topic_id: str
    low: int
    high: int
    committed: int | None


class Start(Struct, frozen=True, kw_only=True):
    """Where to start, and how many records are gone that should have been read."""

    offset: int
    lost: int


def start_of(name: str, found: PartitionLog, stored: Position | None) -> Start:
    """Decides where to start reading a partition.

    Args:
        name: of the partition, for errors.
        found: what the broker says.
        stored: what the store covers, if it covers anything.

    Raises:
        LogRecreated: the topic has another id than the stored position, or ends before it.
    """
    if stored is not None and stored.topic_id != found.topic_id:
        raise LogRecreated(
            f"{name} was deleted and created anew since the store covered it up to {stored.next_offset}",
            hint=RECREATED_HINT,
        )
    covered = None if stored is None else stored.next_offset
    for what, offset in (("the store covers it", covered), ("it was committed", found.committed)):
        if offset is not None and offset > found.high:
            raise LogRecreated(
                f"{name} ends at {found.high}, but {what} up to {offset}: its log is not the same any more",
                hint=RECREATED_HINT,
            )
    wanted = 0 if covered is None or found.committed is None else min(covered, found.committed)
    known = covered is not None or found.committed is not None
    # Of a log never read before, only what is there is asked for.
    lost = found.low - wanted if known and wanted < found.low else 0
    return Start(offset=max(wanted, found.low), lost=lost)


RECREATED_HINT = (
    "If the topic was recreated on purpose, start with a fresh data_dir or another namespace: profiles built from "
    "the former log cannot be continued exactly. If a store was restored from elsewhere, restore the one of this log."
)


def describe(starts: Mapping[tuple[str, int], Start]) -> str:
    """Starts in one line, for the log."""
    return ", ".join(f"{topic}[{number}]@{start.offset}" for (topic, number), start in sorted(starts.items()))
