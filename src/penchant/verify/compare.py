"""Compares what a profile holds with what it must hold, signal by signal."""

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from penchant.verify.expected import newest
from penchant.verify.report import Fact, Finding, Kind

__all__ = ["Compared", "compare", "same"]

ROUNDING = 1e-9


class Compared(Struct, frozen=True, kw_only=True):
    """What came of one bounded set.

    Attributes:
        expected: how many signals it must hold.
        before_log: how many of them are taken on the store's word.
    """

    findings: list[Finding]
    expected: int
    before_log: int


def compare(
    stored: Sequence[Fact], logged: Mapping[str, Fact], limit: int, may_precede: Callable[[Fact], bool]
) -> Compared:
    """Compares one bounded set of signals.

    A set is right if it is the newest of what the log requires, together with what it holds itself of what the log
    allows. So whatever a store has applied of the records in flight, it must have applied rightly: newer signals have
    pushed out the oldest, and none else.

    Args:
        stored: the set.
        logged: what the log says of the user, by event id: all that is required, and what the store has of the rest.
        limit: how many signals the set may hold.
        may_precede: whether a signal may be of a record that the log no longer has.
    """
    older: dict[str, Fact] = {}
    for fact in stored:
        if fact.event_id not in logged and may_precede(fact):
            older[fact.event_id] = max(fact, older.get(fact.event_id, fact))
    expected = {fact.event_id: fact for fact in newest([*logged.values(), *older.values()], limit)}
    left = dict(expected)
    odd: list[Fact] = []
    for fact in stored:
        if fact.event_id in left and same(fact, left[fact.event_id]):
            del left[fact.event_id]
        else:
            odd.append(fact)
    findings: list[Finding] = []
    deeds = {deed(fact) for fact in expected.values()}
    for fact in odd:
        wanted = left.pop(fact.event_id, None)
        if wanted is not None:
            kind = Kind.ALTERED
        elif fact.event_id in expected or deed(fact) in deeds:
            kind = Kind.DOUBLED
        else:
            kind = Kind.FOREIGN
        findings.append(Finding(kind=kind, event_id=fact.event_id, expected=wanted, stored=fact))
    findings += [Finding(kind=Kind.LOST, event_id=fact.event_id, expected=fact, stored=None) for fact in left.values()]
    return Compared(findings=findings, expected=len(expected), before_log=len(older.keys() & expected.keys()))


def same(one: Fact, other: Fact) -> bool:
    """Whether two facts are one; weights are compared as numbers that were computed in different ways."""
    return one[:-1] == other[:-1] and math.isclose(one.weight, other.weight, rel_tol=ROUNDING, abs_tol=ROUNDING)


def deed(fact: Fact) -> tuple[int, str, str, float]:
    """What was done, whatever the event is called."""
    return fact.time, fact.item_id, fact.action, round(fact.weight, 9)
