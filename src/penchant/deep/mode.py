"""Deep fusion as a mode to rank by."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penchant.deep.kept import Kept, load
from penchant.deep.model import Fused
from penchant.errors import ConfigurationError
from penchant.profile.fusion import GRAPH, Space
from penchant.profile.places import InForce
from penchant.profile.ranking.fused import Liked, Slices

__all__ = ["DeepMode", "deep_mode"]


class DeepMode:
    """Scores by a trained model: a `penchant.profile.ranking.fused.Mode`.

    Args:
        kept: the model, with its whitening.
    """

    def __init__(self, kept: Kept) -> None:
        self._model, self._calibration = kept.model, kept.calibration
        self._graph = kept.encoders.get(GRAPH)

    def check_graph(self, in_force: InForce | None) -> None:
        """Makes sure that items have their places by the graph that the model was trained on.

        Args:
            in_force: the graph's model that places items; None before there was one: then no item has a place.

        Raises:
            ConfigurationError: it is another.
        """
        if self._graph is not None and in_force is not None and in_force.model != self._graph:
            raise ConfigurationError(
                f"fusion.deep_model was trained on the graph {self._graph}, and items are placed by {in_force.model}",
                hint="Train it anew: `penchant deep train topics`.",
            )

    def fused(self, slices: Slices) -> Fused:
        """See `Mode`; slices that the model was not trained on count for nothing."""
        known = self._model.form.slices
        return self._model.catalogue({name: self._calibration.apply(name, slices[name]) for name in known})

    def scores(self, liked: Liked, known: Fused, targets: Fused) -> NDArray[np.float32]:
        """See `Mode`."""
        return self._model.scores(targets, known, liked.rows, liked.ages_ms)

    def terms(self, liked: Liked, known: Fused, targets: Fused) -> None:
        """See `Mode`: what was liked competes for a candidate's attention, and belongs to no one signal."""


def deep_mode(path: Path | None, space: Space) -> DeepMode:
    """The mode of a kept model, for items of a space.

    Args:
        path: `fusion.deep_model`.
        space: that content is in; it may have slices that the model knows nothing of.

    Raises:
        ConfigurationError: none is named; there is none; or it was trained on slices that are not those of the space.
    """
    if path is None:
        raise ConfigurationError(
            "fusion.mode is deep, and fusion.deep_model names no model",
            hint="`penchant deep train` writes one; set fusion.deep_model to its file.",
        )
    kept = load(path)
    parts = {part.name: part for part in space.slices}
    for name, dimension in kept.dimensions.items():
        if name not in parts:
            problem = f"the slice {name!r}, and here there are: {', '.join(parts)}"
        elif parts[name].dimension != dimension:
            problem = f"{dimension} components of {name}, and here there are {parts[name].dimension}"
        elif name != GRAPH and kept.encoders[name] != parts[name].fingerprint:
            problem = f"the slice {name!r} of another encoder: {kept.encoders[name]}, not {parts[name].fingerprint}"
        else:
            continue
        raise ConfigurationError(
            f"fusion.deep_model: {path} was trained on {problem}", hint="Train it anew: `penchant deep train --help`."
        )
    return DeepMode(kept)
