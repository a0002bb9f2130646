"""The weights that ranking starts from, before a stream has taught it anything.

The figures were rounded from what MovieLens' small set of ratings taught (see docs/quality.md); what they say of text
and of the graph is said of every slice, for nothing better is known of pictures and sounds.
"""

import difflib
from collections.abc import Iterable, Mapping

from penchant.errors import ConfigurationError
from penchant.profile.ranking.weights import Weights

__all__ = ["pinned_weights", "prior_weights"]

BASE: Mapping[str, float] = {
    "transitions": 0.15,
    "popularity_30d": 0.0,
    "popularity_365d": 0.45,
    "popularity": -0.1,  # what was liked long ago, and is not any more
    "age": 0.1,
}
RETURNING: Mapping[str, float] = {"popularity_30d": 0.15, "transitions": -0.1}
SLICE_BASE: Mapping[str, float] = {"long": 0.15, "short": 0.1, "last": 0.35}
SLICE_RETURNING: Mapping[str, float] = {"long": 0.25, "short": -0.1, "last": -0.2}


def prior_weights(names: Iterable[str]) -> Weights:
    """The weights of some features, by name; zero for those of which nothing is known."""
    features = tuple(names)

    def weight(name: str, own: Mapping[str, float], of_slice: Mapping[str, float]) -> float:
        return own[name] if name in own else of_slice.get(name.rpartition("_")[2], 0.0)

    base = {name: weight(name, BASE, SLICE_BASE) for name in features}
    returning = {name: weight(name, RETURNING, SLICE_RETURNING) for name in features}
    return Weights.of(base, returning, features)


def pinned_weights(weights: Weights, base: Mapping[str, float], returning: Mapping[str, float]) -> Weights:
    """Weights with some of them as settings want them, by name.

    Args:
        weights: of all features.
        base: weights that always count.
        returning: weights that count by absence.

    Raises:
        ConfigurationError: a name is no feature's.
    """
    for section, pinned in (("weights", base), ("returning", returning)):
        for name in pinned:
            if name not in weights.names:
                near = difflib.get_close_matches(name, weights.names, 1)
                hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(weights.names)}."
                raise ConfigurationError(f"recommend.{section}: no feature is named {name!r}", hint=hint)
    own = dict(zip(weights.names, weights.base.tolist(), strict=True)) | dict(base)
    shifts = dict(zip(weights.names, weights.returning.tolist(), strict=True)) | dict(returning)
    return Weights.of(own, shifts, weights.names)
