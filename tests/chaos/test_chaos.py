"""The short run: every kind of fault strikes once under traffic, and what is known of everyone is exact."""

import sys

import pytest

from tests.chaos.faults import EMBEDDED, SERVED
from tests.chaos.run import perform, table

EVENTS = 25_000


@pytest.mark.timeout(1_200)
def test_no_fault_loses_or_doubles_anything(tmp_path, measured):
    """Crashes, zombies, a broker and a store that fail in many ways, a full disk, an old copy: all stays exact.

    Profiles hold what was sent; items count each like of it once.
    """
    kinds = len(EMBEDDED) + len(SERVED)
    outcomes = perform(
        tmp_path,
        seed=1,
        events=EVENTS,
        faults=kinds,
        say=lambda text: print(text, file=sys.stderr),  # noqa: T201  shown where it fails
    )
    measured(table(outcomes))
    for outcome in outcomes:
        assert outcome.verdict.exact, outcome.verdict
        assert outcome.verdict.signals > 0
        assert outcome.verdict.likes > 0
    struck = [strike.kind for outcome in outcomes for strike in outcome.strikes]
    left_out = [kind for outcome in outcomes for kind in outcome.left_out]
    assert sorted({*struck, *left_out}) == sorted({*EMBEDDED, *SERVED})
