"""What a verification finds."""

from enum import StrEnum
from typing import NamedTuple

from msgspec import Struct

__all__ = ["Fact", "Finding", "Kind", "Report", "RowReport", "RowsReport", "UserReport"]


class Fact(NamedTuple):
    """A signal as an ordinary tuple: the larger of two of one event stands, and the largest of a set are its newest.

    Attributes:
        time: epoch milliseconds.
    """

    time: int
    event_id: str
    item_id: str
    action: str
    weight: float


class Kind(StrEnum):
    """What can be wrong with a signal."""

    LOST = "lost"  # the log says it, the store does not
    FOREIGN = "foreign"  # the store says it, the log does not
    DOUBLED = "doubled"  # counted once more: under its own event id, or as the same deed under another
    ALTERED = "altered"  # the same event with another item, action, weight or time


class Finding(Struct, frozen=True, kw_only=True):
    """A signal that is not as it must be.

    Attributes:
        expected: what the log says; None for what should not be there.
        stored: what the store holds; None for what is not there.
    """

    kind: Kind
    event_id: str
    expected: Fact | None
    stored: Fact | None


class UserReport(Struct, frozen=True, kw_only=True):
    """All that is wrong with a user's profile.

    Attributes:
        signals: that are not as they must be.
        deviation: the largest difference of a component of `short`, `long` or `interest` from what the stored signals
            and the stored items make of it; 0 within the tolerance.
        stale: the deviation may be an item's that was edited after the profile was written: that is not wrong.
        forgotten: items of the profile that are not in the store, and that it does not wait for either.
    """

    user: str
    signals: tuple[Finding, ...] = ()
    deviation: float = 0.0
    stale: bool = False
    forgotten: tuple[str, ...] = ()


class RowReport(Struct, frozen=True, kw_only=True):
    """An item whose row is not as it must be.

    Attributes:
        expected: how often the log says that it was liked.
        stored: how often the row does.
        deviation: the largest relative difference of one of its decayed sums; 1 where one is missing or too many.
    """

    item_id: str
    expected: int
    stored: int
    deviation: float


class RowsReport(Struct, frozen=True, kw_only=True):
    """What came of comparing rows with the log of transitions.

    Attributes:
        rows: compared.
        transitions: read from the log.
        in_flight: of them, those that lie behind the store's positions: they may be in the store, and need not be.
        before_log: rows of which the log is not whole any more: taken as they are.
        findings: rows that are not as they must be, by item.
    """

    rows: int
    transitions: int
    in_flight: int
    before_log: int
    findings: tuple[RowReport, ...]


class Report(Struct, frozen=True, kw_only=True):
    """What came of comparing the store with the log.

    Attributes:
        records: read from the log.
        unusable: of them, those that are dead letters.
        in_flight: of them, those that lie behind the store's positions: they may be in the store, and need not be.
        users: compared.
        signals: that their profiles must hold.
        lost, doubled, foreign, altered: signals that are not as they must be, by kind.
        lost_users: users of whom the log has signals and the store no profile; their signals are lost.
        foreign_users: users of whom the store has signals and the log none; their signals are foreign.
        before_log: stored signals that can only be older than what is left of the log: taken as they are.
        waiting: profiles that wait for items.
        forgotten: items that a profile's signals need, and that are missing without the profile's waiting for them.
        deviating: profiles whose vectors are not those of their signals and items.
        stale: profiles whose vectors are those of items as they were before they were edited.
        largest_deviation: of a component of a vector, over all profiles that are not stale.
        findings: of users with whom something is wrong, by user.
        rows: of the items; None where only some users were looked at.
    """

    records: int
    unusable: int
    in_flight: int
    users: int
    signals: int
    lost: int
    doubled: int
    foreign: int
    altered: int
    lost_users: int
    foreign_users: int
    before_log: int
    waiting: int
    forgotten: int
    deviating: int
    stale: int
    largest_deviation: float
    findings: tuple[UserReport, ...]
    rows: RowsReport | None

    @property
    def exact(self) -> bool:
        """Whether the store holds what the log determines, and nothing else."""
        wrong = self.lost or self.doubled or self.foreign or self.altered or self.forgotten or self.deviating
        return not (wrong or (self.rows is not None and self.rows.findings))
