"""The parts of penchant that know nothing of Kafka: built as the settings ask, opened together.

Workers are made of them; whatever reads or makes anew what workers have written opens the same.
"""

import time
from collections.abc import Callable
from functools import cache, partial

from msgspec import Struct

from penchant.deep.mode import deep_mode
from penchant.encoders.embedder import space as encoder_space
from penchant.errors import ConfigurationError
from penchant.profile.cache import ItemVectors
from penchant.profile.fusion import Space, space_of
from penchant.profile.graph import Graph
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.places import Entities, Places
from penchant.profile.profiles import Profiles
from penchant.profile.ranking.calibrations import Calibrations
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.fused import FORMULAS, Mode, mode_of
from penchant.profile.ranking.priors import pinned_weights, prior_weights
from penchant.profile.ranking.recommend import Ranker
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.remade import HalfMade, Remade
from penchant.profile.rows import Rows
from penchant.profile.state import Limits
from penchant.profile.store.base import Store
from penchant.profile.store.open import open_store
from penchant.settings import Settings

__all__ = ["Parts", "build_parts", "fusion_of", "worker_space"]


class Parts(Struct, frozen=True, kw_only=True):
    """What a store holds and what works on it."""

    store: Store
    space: Space
    identity: Identity
    limits: Limits
    horizons: Horizons
    items: Items
    profiles: Profiles
    rows: Rows
    graph: Graph
    entities: Entities
    places: Places
    vectors: ItemVectors
    ranker: Ranker
    calibrations: Calibrations
    remade: Remade

    async def open(self, *, create: bool = True, half_made: bool = False) -> None:
        """Opens the store with the collections that the parts need; one that cannot be used is closed again.

        Args:
            create: false: all of them must be there.
            half_made: also a store that is still being made from another one.

        Raises:
            HalfMade: it is.
            NoCollection: a collection is missing and is not to be created.
        """
        parts = (self.items, self.profiles, self.rows, self.graph, self.entities, self.calibrations)
        await self.store.open([part.layout for part in parts], create=create)
        if not half_made:
            try:
                await self.remade.check()
            except HalfMade:
                await self.store.close()
                raise


def build_parts(
    settings: Settings, space: Space | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Parts:
    """The parts that the settings ask for, not yet opened.

    Args:
        settings: of this process.
        space: of content; None: that of the encoders and of the graph.
        clock: seconds, by which the ranker remembers what trends.

    Raises:
        ConfigurationError: a weight is pinned of a feature that there is not.
    """
    store = open_store(settings)
    space = space or worker_space(settings)
    identity = Identity(settings.id_key.get_secret_value())
    profile = settings.profile
    limits = Limits(strong=profile.strong_limit, weak=profile.weak_limit, seen_bits=profile.seen_bits)
    horizons = Horizons(
        short_ms=profile.short_half_life_ms,
        long_ms=profile.long_half_life_ms,
        short_share_at=profile.short_share_at,
    )
    items = Items(store, settings.encoded("items"), space)
    vectors = ItemVectors(items, capacity=profile.cached_items, ttl_s=profile.item_cache_s)
    graph = Graph(store, settings.prefixed("triples"))
    entities = Entities(store, settings.prefixed("entities"))
    rows = Rows(store, settings.prefixed("affinity"))
    calibrations = Calibrations(store, settings.encoded("calibration"), items)
    features = (*content_names(part.name for part in space.slices), *BEHAVIOUR)
    ranker = Ranker(
        items,
        rows,
        vectors,
        identity,
        horizons=horizons,
        weights=pinned_weights(prior_weights(features), settings.recommend.weights, settings.recommend.returning),
        calibration=Calibration(),
        count=settings.recommend.count,
        candidates=settings.recommend.candidates,
        relevance_share=settings.recommend.relevance,
        reasons=settings.recommend.reasons,
        fusion=fusion_of(settings, space),
        exploration=settings.recommend.exploration,
        exact_items=settings.recommend.exact_items,
        clock=clock,
    )
    return Parts(
        store=store,
        space=space,
        identity=identity,
        limits=limits,
        horizons=horizons,
        items=items,
        profiles=Profiles(store, settings.encoded("profiles"), space, identity, limits),
        rows=rows,
        graph=graph,
        entities=entities,
        places=Places(items, entities, graph),
        vectors=vectors,
        ranker=ranker,
        calibrations=calibrations,
        remade=Remade(store, calibrations.layout),
    )


def worker_space(settings: Settings) -> Space:
    """The space of the encoders and of the graph."""
    encoders = encoder_space(settings.encoders)
    return space_of(
        encoders.dimensions,
        encoders.fingerprints,
        settings.fusion.shares | encoders.shares(settings.fusion.shares),
        graph_dimension=settings.fusion.graph_dimension,
    )


def fusion_of(settings: Settings, space: Space) -> Callable[[Calibration], Mode] | None:
    """What makes the mode that content alone ranks by; None: all features rank.

    A model is loaded when it is first asked for, by what makes lists alone.

    Raises:
        ConfigurationError: weights of features are pinned, and none ranks.
    """
    fusion = settings.fusion
    if fusion.mode == "learned":
        return None
    if settings.recommend.weights or settings.recommend.returning:
        raise ConfigurationError(
            f"recommend.weights and recommend.returning weigh features, and fusion.mode {fusion.mode} ranks by none",
            hint="Remove them, or set fusion.mode to learned.",
        )
    if fusion.mode == "deep":
        loaded = cache(partial(deep_mode, fusion.deep_model, space))
        return lambda _: loaded()
    shares = {part.name: part.share for part in space.slices}
    foreign = shares.keys() - fusion.shares.keys()
    if foreign and fusion.mode in FORMULAS:
        raise ConfigurationError(
            f"fusion.mode {fusion.mode} is a formula of {', '.join(fusion.shares)}; encoders fill {', '.join(foreign)}",
            hint="Choose weighted, average, concat, attention or learned, or encoders that share no slice.",
        )
    return lambda calibration: mode_of(fusion.mode, calibration, shares)
