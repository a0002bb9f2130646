"""The lines of penchant in the table: the default, what it is without each of its parts, and each part alone."""

from collections.abc import Iterable, Sequence

from penchant.evaluation.ours import Configuration
from penchant.profile.ranking.features import BEHAVIOUR, CONTENT, content_names
from penchant.profile.ranking.priors import prior_weights
from penchant.profile.ranking.weights import Weights

__all__ = ["DEFAULT", "configurations"]

DEFAULT = "penchant"
POPULARITY = frozenset(name for name in BEHAVIOUR if name.startswith("popularity"))


def configurations(slices: Iterable[str]) -> Sequence[Configuration]:
    """All of them.

    Args:
        slices: names of the catalogue's slices.
    """
    by_slice = {name: frozenset(content_names([name])) for name in slices}
    content = frozenset[str]().union(*by_slice.values())
    everything = content | frozenset(BEHAVIOUR)
    by_kind = {kind: frozenset(f"{name}_{kind}" for name in by_slice) for kind in CONTENT}
    found = [
        learned(DEFAULT, everything),
        Configuration(name="penchant, weights as given", weights=prior_weights(sorted(everything)), learns=False),
        learned("penchant, learned from zero", everything, prior=False),
        learned("without weights for absence", everything, returning=False),
        *(learned(f"without the {name} slice", everything - features) for name, features in by_slice.items()),
        *(learned(f"without {kind}", everything - features) for kind, features in by_kind.items()),
        learned("without content", frozenset(BEHAVIOUR)),
        learned("without transitions", everything - {"transitions"}),
        learned("without popularity", everything - POPULARITY),
        learned("without age", everything - {"age"}),
        learned("content", content),
        learned("content and popularity", content | POPULARITY),
        learned("popularity, all horizons", POPULARITY),
        *(learned(f"{name} slice", features) for name, features in by_slice.items()),
    ]
    return found + [alone(name) for name in (*content_names(by_slice), *BEHAVIOUR)]


def learned(name: str, features: frozenset[str], *, prior: bool = True, returning: bool = True) -> Configuration:
    """Some features with weights that are learned."""
    given = prior_weights(sorted(features))
    base = dict(zip(given.names, given.base.tolist(), strict=True)) if prior else {}
    shifts = dict(zip(given.names, given.returning.tolist(), strict=True)) if prior and returning else {}
    return Configuration(name=name, weights=Weights.of(base, shifts, given.names), returning=returning)


def alone(feature: str) -> Configuration:
    """One feature, as it is."""
    return Configuration(name=f"{feature} alone", weights=Weights.of({feature: 1.0}, {}, [feature]), learns=False)
