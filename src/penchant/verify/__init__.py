"""Verification: every profile and every row in the store against what the log says they must be.

The store's profiles are read first, then the log from its beginning (or from a snapshot on), and what each profile must
hold is worked out by a second, plain model (`expected`, `views`) that shares no code with the one that keeps profiles;
so are the items' rows (`rows`), from the log of transitions.
It is exact while workers run: records below the store's positions are required, those after them are allowed.
"""

from penchant.verify.check import Progress, verify
from penchant.verify.report import Fact, Finding, Kind, Report, RowReport, RowsReport, UserReport
from penchant.verify.snapshot import take_snapshot

__all__ = [
    "Fact",
    "Finding",
    "Kind",
    "Progress",
    "Report",
    "RowReport",
    "RowsReport",
    "UserReport",
    "take_snapshot",
    "verify",
]
