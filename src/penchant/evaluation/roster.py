"""Who takes part, and what they are made of."""

import difflib
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.encoders.registry import identity, slot_of
from penchant.errors import ConfigurationError
from penchant.evaluation.baselines.als import Als
from penchant.evaluation.baselines.ease import Ease
from penchant.evaluation.baselines.ema import Ema
from penchant.evaluation.baselines.isgd import Isgd
from penchant.evaluation.baselines.item_cosine import ItemCosine
from penchant.evaluation.baselines.last_item import LastItem
from penchant.evaluation.baselines.popularity import Popularity
from penchant.evaluation.catalogue import slices_of
from penchant.evaluation.configurations import configurations
from penchant.evaluation.deep import Deep
from penchant.evaluation.fusions import Fusions
from penchant.evaluation.ours import Ours
from penchant.evaluation.protocol import Contestant, Rules, choose_probes
from penchant.evaluation.served import Served
from penchant.evaluation.stream import UNKNOWN_TIME, Stream
from penchant.profile.fusion import GRAPH
from penchant.profile.interest import Horizons
from penchant.profile.ranking.whitening import Calibration, calibrate
from penchant.profile.state import Limits
from penchant.settings import Settings

__all__ = ["Material", "baselines", "chosen", "makers"]

HALF_LIVES_DAYS = {"popularity": math.inf, "popularity 365 d": 365.0, "popularity 30 d": 30.0}


class Material(Struct, frozen=True, kw_only=True, eq=False, dict=True):
    """What contestants are made of.

    Attributes:
        stream: that will be played; for its dimensions and its catalogue, not for its future.
        vectors: of the items' texts: shape (items, d).
        rules: by which it will be; their seed is that of whatever starts at random.
        settings: of penchant.
        at_end: is told what contestants have to let go of.
        graph: a folder with a knowledge graph of the catalogue; None for none.
    """

    stream: Stream
    vectors: NDArray[np.float32]
    rules: Rules
    settings: Settings
    at_end: ExitStack
    graph: Path | None = None

    @cached_property
    def slices(self) -> dict[str, NDArray[np.float32]]:
        """Unit vectors of the items by slice, as encoders and graph give them: shape (items, d)."""
        return slices_of(self.stream, self.vectors, self.graph)

    @cached_property
    def calibration(self) -> Calibration:
        """Of the catalogue's content."""
        return calibrate(self.slices)

    @cached_property
    def whitened(self) -> dict[str, NDArray[np.float32]]:
        """The slices as ranking compares them."""
        return {name: self.calibration.apply(name, vectors) for name, vectors in self.slices.items()}


Maker = Callable[[Material], Contestant]


def makers() -> list[Maker]:
    """Of all contestants: penchant, profiles by fused content alone, and what both are compared with."""
    return [
        ours,
        lambda given: Fusions(len(given.stream.users), given.slices, given.calibration, given.settings.fusion.shares),
        deep,
        served,
        *baselines(),
    ]


def baselines() -> list[Maker]:
    """Of what users have had before, each after its paper."""
    return [
        lambda given: Popularity(len(given.stream.items), HALF_LIVES_DAYS),
        lambda given: LastItem(len(given.stream.items)),
        lambda given: Ema(len(given.stream.users), given.vectors),
        lambda given: Isgd(len(given.stream.users), len(given.stream.items), given.rules.seed),
        lambda given: ItemCosine(len(given.stream.users), len(given.stream.items)),
        lambda given: Als(len(given.stream.users), len(given.stream.items), given.rules.seed),
        lambda given: Ease(len(given.stream.users), len(given.stream.items)),
    ]


def ours(given: Material) -> Ours:
    """The configurations of penchant, with the settings' horizons and bounds."""
    profile = given.settings.profile
    return Ours(
        len(given.stream.users),
        given.stream.items,
        given.whitened,
        configurations(given.whitened),
        horizons=Horizons(
            short_ms=profile.short_half_life_ms,
            long_ms=profile.long_half_life_ms,
            short_share_at=profile.short_share_at,
        ),
        limits=Limits(strong=profile.strong_limit, weak=profile.weak_limit, seen_bits=profile.seen_bits),
        seed=given.rules.seed,
        released=times(given.stream.released),
    )


def served(given: Material) -> Served:
    """The parts of a worker; features rank where a model would, which has seen what it would be judged by."""
    probes = choose_probes(given.stream, given.rules).index
    settings = given.settings
    if settings.fusion.mode == "deep":
        settings = settings.model_copy(update={"fusion": settings.fusion.model_copy(update={"mode": "learned"})})
    made = Served(given.stream, given.slices, given.calibration, settings, probes)
    given.at_end.callback(made.close)
    return made


def deep(given: Material) -> Deep:
    """Deep fusion, kept beside the vectors of texts."""
    return Deep(
        len(given.stream.users),
        given.slices,
        given.calibration,
        {"text": identity(slot_of(given.settings.encoders, "text").options).fingerprint, GRAPH: "incidence"},
        seed=given.rules.seed,
        folder=given.settings.data_dir / "evaluation",
    )


def times(released: NDArray[np.int64] | None) -> NDArray[np.float64] | None:
    """When items came up, with infinity for what is not known."""
    return None if released is None else np.where(released == UNKNOWN_TIME, np.inf, released)


def chosen(contestants: Sequence[Contestant], only: Sequence[str]) -> list[Contestant]:
    """Those that have a configuration among `only`; all where it is empty.

    Raises:
        ConfigurationError: a name is nobody's.
    """
    known = [name for contestant in contestants for name in contestant.names]
    for name in only:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
            raise ConfigurationError(f"No configuration is named {name!r}", hint=hint)
    return [one for one in contestants if not only or set(only) & set(one.names)]
