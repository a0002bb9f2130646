"""The vectors that a set of signals must have, in double precision and one user at a time (see docs/semantics.md)."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penchant.settings import ProfileSettings
from penchant.verify.report import Fact

__all__ = ["views_of"]

Vector = NDArray[np.float64]

# A sum of unit vectors that is no longer than this is what rounding has left of interests that cancel.
NOTHING = 1e-12


def views_of(
    facts: Sequence[Fact], content: Mapping[str, NDArray[np.float32]], dimension: int, settings: ProfileSettings
) -> tuple[Vector, Vector, Vector]:
    """`short`, `long` and `interest` of a set of signals, each of shape (dimension,).

    Args:
        facts: the set.
        content: vectors of its items, shape (dimension,); items without one count for nothing.
        dimension: of the vectors.
        settings: the half-lives, and the mass at which the mix is half short.
    """
    zero = np.zeros(dimension)
    counted = [fact for fact in facts if fact.item_id in content and fact.weight]
    if not counted:
        return zero, zero, zero
    items = np.array([content[fact.item_id] for fact in counted], np.float64)
    weights = np.array([fact.weight for fact in counted])
    times = np.array([fact.time for fact in counted], np.float64)
    # A mean is the same from whichever moment decay is counted; from the newest that counts, nothing underflows.
    means = []
    for half_life_ms in (settings.short_half_life_ms, settings.long_half_life_ms):
        shares = weights * 0.5 ** ((times.max() - times) / half_life_ms)
        means.append((shares[:, None] * items).sum(axis=0) / np.abs(shares).sum())
    now = max(fact.time for fact in facts)
    mass = (np.abs(weights) * 0.5 ** ((now - times) / settings.short_half_life_ms)).sum()
    rho = mass / (mass + settings.short_share_at)
    return means[0], means[1], unit(rho * unit(means[0]) + (1 - rho) * unit(means[1]))


def unit(vector: Vector) -> Vector:
    """A vector at length one; zero where nothing is left of it."""
    length = float(np.linalg.norm(vector))
    return vector / length if length > NOTHING else np.zeros_like(vector)
