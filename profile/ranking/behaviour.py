"""Features of behaviour: what users do, whatever the items contain.

They are computed from what the rows answer in bulk (see `penchant.profile.rows`), and are those of
`penchant.profile.affinity`: the same scores, without unpacking a row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penchant.profile.affinity import (
    LANDMARK_MS,
    POPULARITY_HALF_LIVES_MS,
    ROW_HALF_LIFE_MS,
    Weighted,
    growth,
    item_key,
    log_growth,
    row_measure,
)
from penchant.profile.rows import AS_OF, COUNT, LOW, MASS, engine_keys
from penchant.profile.store.base import SparseVector

__all__ = ["age", "evidence", "familiarity", "log_popularity", "transition_terms"]

Floats = NDArray[np.float64]
Moments = NDArray[np.int64]

HOUR_MS = 3_600_000
HOURS_A_DAY = 24
FIRST = 1.0  # signals of a user: content counts half of what it does where there are many
FEW = 30.0  # likes of all candidates together: behaviour counts half of what it does where there are many
MOST_DOUBLINGS = 1_000.0  # of likes, seen from long before them: sums of thousands of such are numbers still


def log_popularity(figures: Floats, now_ms: int | Moments) -> Floats:
    """ln(1 + how often items were liked), by `POPULARITY_HALF_LIVES_MS` and in all, as of a moment.

    Args:
        figures: of n items, as `Rows.figures` gives them.
        now_ms: epoch milliseconds; one for all, or of each, shape (n,).

    Returns:
        Shape (3, n).
    """
    logarithms = figures[:, : COUNT + 1].T.copy()
    for horizon, half_life_ms in enumerate(POPULARITY_HALF_LIVES_MS):
        logarithms[horizon] -= log_growth(now_ms, half_life_ms)
    counts: Floats = np.exp2(np.minimum(logarithms, MOST_DOUBLINGS))
    found: Floats = np.log1p(counts)
    return found


def evidence(popularity: Floats) -> Floats:
    """How far what users did can be relied on: n / (n + 30), n the likes of all candidates together.

    Standardised, the one like that anybody has given is as loud as the hit of the year. It should not be.

    Args:
        popularity: as `log_popularity` gives it, shape (3, n).

    Returns:
        By horizon, from 0 to 1: shape (3,).
    """
    likes = np.expm1(popularity).sum(axis=1)
    shares: Floats = likes / (likes + FEW)
    return shares


def familiarity(signals: int) -> float:
    """How far what is known of a user can be relied on: n / (n + 1), n the signals that count.

    By it a user leaves what trends and what is new: one event says as much against that as it can, a second more.
    """
    return signals / (signals + FIRST)


def age(listed_at: Sequence[int] | Moments, now_ms: int | Moments) -> Floats:
    """ln(1 + days since items were listed as they are), shape (n,); epoch milliseconds, one for all or of each.

    In whole hours: of a catalogue that came at once, standardising would make its order of arrival heard.
    """
    hours = np.maximum(now_ms - np.asarray(listed_at, np.int64), 0) // HOUR_MS
    ages: Floats = np.log1p(hours / HOURS_A_DAY)
    return ages


def transition_terms(
    recent: Sequence[Weighted],
    masses: Mapping[str, float],
    after: Sequence[SparseVector | None],
    figures: Floats,
    *,
    now_ms: int,
) -> Floats:
    """What each of a user's recent items adds to `penchant.profile.affinity.transition_scores` of candidates.

    Args:
        recent: r distinct items with their weights.
        masses: `Row.mass` of those; 0 where they are left out.
        after: of the candidates, as `Rows.after` gives it; None counts as empty.
        figures: of the candidates, as `Rows.figures` gives them, shape (n, ...).
        now_ms: epoch milliseconds.

    Returns:
        Shape (r, n). Two recent items that share an engine's key each add what both together do, by their weights.
    """
    terms = np.zeros((len(recent), len(after)))
    told = np.array([place for place, vector in enumerate(after) if vector is not None], np.intp)
    if not recent or not len(told):
        return terms
    known_masses = np.array([masses.get(item_id, 0.0) for item_id, _ in recent])
    weights = np.array([weight for _, weight in recent]) / row_measure(known_masses, now_ms)
    keys = engine_keys(np.array([item_key(item_id) for item_id, _ in recent], np.uint64))
    known, places = np.unique(keys, return_inverse=True)
    vectors = [vector for vector in after if vector is not None]
    indices = np.concatenate([vector.indices for vector in vectors])
    low = np.zeros(LOW + 1, bool)
    low[known & LOW] = True
    met = np.flatnonzero(low[indices & LOW])  # of thousands the few that may be known, to be looked for in earnest
    found = np.minimum(np.searchsorted(known, indices[met]), len(known) - 1)
    same = known[found] == indices[met]
    found, met = found[same], met[same]
    columns = np.searchsorted(np.cumsum([len(vector.indices) for vector in vectors]), met, side="right")
    sums = np.zeros((len(known), len(told)))
    sums[found, columns] = np.concatenate([vector.values for vector in vectors])[met]
    sums *= remeasured(figures[told], now_ms)
    terms[:, told] = weights[:, None] * sums[places]
    return terms


def remeasured(figures: Floats, now_ms: int) -> Floats:
    """Turns what `Rows.after` is measured by, as of each row's newest event, into what it is as of now: shape (n,)."""
    then = row_measure(np.exp2(figures[:, MASS] - figures[:, AS_OF]), LANDMARK_MS)  # a mass as of its own time
    factors: Floats = then / (growth(now_ms, ROW_HALF_LIFE_MS) * row_measure(np.exp2(figures[:, MASS]), now_ms))
    return factors
