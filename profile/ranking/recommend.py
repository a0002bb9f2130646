"""Recommendations for many users at once: candidates, the linear ranker, diversity, and what speaks for each item.

In place of the linear ranker content alone may rank, by one of the ways to fuse it (`penchant.profile.ranking.fused`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain, islice

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import positives
from penchant.profile.cache import Content, ItemVectors
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.profiles import Profile
from penchant.profile.ranking.candidates import Candidates, Finder
from penchant.profile.ranking.compared import Compared
from penchant.profile.ranking.diversity import mmr
from penchant.profile.ranking.exploration import Arms
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.fused import Liked, Mode
from penchant.profile.ranking.scoring import Known, request_of
from penchant.profile.ranking.weights import Weights
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.rows import Rows
from penchant.profile.shelf import Shelf
from penchant.profile.signals import Signal

__all__ = ["Offered", "Ranked", "RankedItem", "Ranker", "Reason"]

FUSED = "content"  # the one part of a score by fused content
TURN_S = 0.01  # of making lists, before others have their turn
ARMS = 20_000  # items of which is remembered what came of listing them

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]


class Reason(Struct, frozen=True):
    """A signal that speaks for an item, and how much of the item's score it accounts for."""

    signal: Signal
    part: float


class RankedItem(Struct, frozen=True, kw_only=True):
    """A recommended item. `parts` by feature sum to `score`.

    Attributes:
        explored: it is there to be tried: ranking alone had left it out.
    """

    item_id: str
    score: float
    parts: dict[str, float]
    reasons: tuple[Reason, ...]
    explored: bool = False


class Offered(Struct, frozen=True, kw_only=True, eq=False):
    """What a list was chosen from.

    Attributes:
        items: the n candidates.
        features: of them, standardised among them and as loud as they can be relied on: what weights are multiplied
            by, in the order of `Ranker.features`: shape (F, n).
    """

    items: tuple[str, ...]
    features: Vectors


class Ranked(Struct, frozen=True, kw_only=True, eq=False):
    """A list, best first, and what it was chosen from; None where there was nothing, or no features rank."""

    items: tuple[RankedItem, ...]
    offered: Offered | None


class Scored(Struct, frozen=True, kw_only=True, eq=False):
    """One user's n candidates with their scores.

    Attributes:
        items: the candidates.
        vectors: their content, shape (n, d).
        new: which candidates are new.
        names: of the parts.
        parts: that sum to the scores: shape (parts, n).
        offered: what the list is chosen from, where features rank.
        told: gives for t chosen candidates the k signals that account for their scores, and how much each does,
            shape (t, k).
    """

    items: Sequence[str]
    vectors: Vectors
    new: frozenset[str]
    names: Sequence[str]
    parts: NDArray[np.floating]
    offered: Offered | None
    told: Callable[[NDArray[np.int64]], tuple[Sequence[Signal], Floats]]


class Ranker:
    """Makes lists.

    Args:
        items: to choose from.
        rows: of the items.
        vectors: reads the items' content.
        identity: tells a user's own items.
        horizons: half-lives.
        weights: of the features, by name.
        calibration: of the slices, until there is another.
        count: length of a list.
        candidates: items of each source that a list is chosen from.
        relevance_share: lambda of maximal marginal relevance.
        reasons: past events named per item.
        exploration: share of a list's places that go to new items, to try them.
        exact_items: of a catalogue that is searched in memory, at most, while `shelf` runs.
        fusion: makes the mode that content alone ranks by, under a calibration; None: all features do.
        clock: seconds, by which it is remembered what trends and what is new.

    Attributes:
        features: their names.
        arms: what came of listing items; to be told.
        shelf: the catalogue; searched in memory while it runs.
    """

    def __init__(
        self,
        items: Items,
        rows: Rows,
        vectors: ItemVectors,
        identity: Identity,
        *,
        horizons: Horizons,
        weights: Weights,
        calibration: Calibration,
        count: int,
        candidates: int,
        relevance_share: float,
        reasons: int,
        exploration: float = 0.0,
        exact_items: int = 0,
        fusion: Callable[[Calibration], Mode] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = items.space
        self._rows = rows
        self._vectors = vectors
        self._horizons = horizons
        self._compared = Compared(self._space)
        self.features = (*content_names(part.name for part in self._space.slices), *BEHAVIOUR)
        self._weights = weights.among(self.features)
        self._calibration = calibration
        self._fusion = fusion
        self._mode: Mode | None = None
        self.arms = Arms(ARMS)
        self._trials = trials_of(count, exploration)
        self.shelf = Shelf(items, most=exact_items)
        self._finder = Finder(
            items,
            rows,
            identity,
            self.arms,
            shelf=self.shelf,
            count=count,
            candidates=candidates,
            clock=clock,
        )
        self._count = count
        self._relevance_share = relevance_share
        self._reasons = reasons

    def calibrate(self, calibration: Calibration) -> None:
        """Compares content by a calibration from now on."""
        self._calibration = calibration
        self._mode = None

    @property
    def mode(self) -> Mode | None:
        """What content alone ranks by; None: all features do.

        Raises:
            ConfigurationError: it cannot be made. It is made when first asked for.
        """
        if self._mode is None and self._fusion is not None:
            self._mode = self._fusion(self._calibration)
        return self._mode

    def weigh(self, weights: Weights) -> None:
        """Ranks by other weights from now on."""
        self._weights = weights.among(self.features)

    async def rank(self, profiles: Sequence[Profile], now_ms: Sequence[int]) -> list[Ranked]:
        """A list for each profile, best first, as of a moment each, epoch milliseconds."""
        found = await self._finder.find(profiles, now_ms)
        mode, calibration = self.mode, self._calibration
        known = await self._known(found if mode is None else [])
        content = await self._vectors.gather(
            item_id
            for profile, candidates in zip(profiles, found, strict=True)
            for item_id in chain(candidates.listed_at, (signal.item_id for signal in profile.state.signals))
        )
        lists = []
        until = time.monotonic() + TURN_S
        for profile, candidates, moment in zip(profiles, found, now_ms, strict=True):
            if mode is None:
                compared = self._compared.of(calibration, content.vectors)
                scored = self._by_features(profile, candidates, content, compared=compared, known=known, now_ms=moment)
            else:
                scored = self._by_content(mode, profile, candidates, content, moment)
            lists.append(self._list(scored, f"{moment} {profile.user}"))
            if time.monotonic() > until:  # others work in this loop, and all this may have been in memory
                await asyncio.sleep(0)
                until = time.monotonic() + TURN_S
        return lists

    async def _known(self, found: Sequence[Candidates]) -> Known:
        """What the rows say of candidates."""
        names = list({item_id for candidates in found for item_id in candidates.listed_at})
        return Known(
            places={item_id: place for place, item_id in enumerate(names)},
            figures=await self._rows.figures(names),
            after=await self._rows.after(list({item_id for candidates in found for item_id in candidates.following})),
        )

    def _list(self, scored: Scored | None, seed: str) -> Ranked:
        if scored is None:
            return Ranked(items=(), offered=None)
        relevance = unit_range(scored.parts.sum(axis=0))
        best = mmr(relevance, scored.vectors, count=self._count, relevance_share=self._relevance_share)
        tried = self._tried(scored, best, seed)
        chosen = [*best[: self._count - len(tried)], *tried]
        reasons = loudest(*scored.told(np.array(chosen)), self._reasons)
        parts = scored.parts[:, chosen].astype(float).T.tolist()
        ranked = []
        for index, why, mine in zip(chosen, reasons, parts, strict=True):
            told = {name: part for name, part in zip(scored.names, mine, strict=True) if part}
            ranked.append(
                RankedItem(
                    item_id=scored.items[index],
                    score=sum(told.values()),
                    parts=told,
                    reasons=why,
                    explored=index in tried,
                )
            )
        return Ranked(items=tuple(ranked), offered=scored.offered)

    def _tried(self, scored: Scored, best: Sequence[int], seed: str) -> list[int]:
        """New candidates that are to be tried, of those that are not among the best."""
        left_out = scored.new.difference(scored.items[index] for index in best) if self._trials else ()
        drawn = islice(self.arms.drawn(left_out, seed=seed), self._trials)
        return [scored.items.index(item_id) for item_id in drawn]

    def _by_content(
        self, mode: Mode, profile: Profile, candidates: Candidates, content: Content, now_ms: int
    ) -> Scored | None:
        """Candidates scored by fused content alone; None where there is nothing to choose from."""
        items = [item_id for item_id in candidates.listed_at if item_id in content.rows]
        if not items:
            return None
        past = [signal for signal in reversed(positives(profile.state.signals)) if signal.item_id in content.rows]
        as_stored = Calibration()
        vectors = content.vectors[[content.rows[item_id] for item_id in items]]
        met = content.vectors[[content.rows[signal.item_id] for signal in past]]
        known, targets = (mode.fused(as_stored.split(self._space, one)) for one in (met, vectors))
        liked = Liked(rows=np.arange(len(past)), ages_ms=np.array([now_ms - signal.time for signal in past], np.int64))

        def told(chosen: NDArray[np.int64]) -> tuple[Sequence[Signal], Floats]:
            terms = mode.terms(liked, known, targets)
            return ([], np.zeros((len(chosen), 0))) if terms is None else (past, terms[:, chosen].T)

        return Scored(
            items=items,
            vectors=vectors,
            new=candidates.new & content.rows.keys(),
            names=(FUSED,),
            parts=mode.scores(liked, known, targets)[None],
            offered=None,
            told=told,
        )

    def _by_features(
        self,
        profile: Profile,
        candidates: Candidates,
        content: Content,
        *,
        compared: Mapping[str, Vectors],
        known: Known,
        now_ms: int,
    ) -> Scored | None:
        """Candidates scored by all features; None where there is nothing to choose from."""
        signals = profile.state.signals
        request = request_of(signals, candidates, content, compared, known, horizons=self._horizons, now_ms=now_ms)
        if request is None:
            return None
        weights = self._weights.at(max(0, now_ms - profile.state.as_of))
        features = request.scored()
        return Scored(
            items=request.items,
            vectors=request.vectors,
            new=request.new,
            names=self.features,
            parts=weights[:, None] * features,
            offered=Offered(items=tuple(request.items), features=features),
            told=partial(request.told, weights, signals),
        )


def loudest(signals: Sequence[Signal], parts: Floats, most: int) -> list[tuple[Reason, ...]]:
    """For each of t items the signals that speak for it most.

    Args:
        signals: k of them.
        parts: of the scores that they account for, shape (t, k).
        most: at most so many are named.
    """
    order = np.argsort(-parts, axis=1, kind="stable")[:, :most]
    return [
        tuple(Reason(signals[index], float(row[index])) for index in best if row[index] > 0)
        for row, best in zip(parts, order, strict=True)
    ]


def trials_of(count: int, share: float) -> int:
    """How many of a list's places a share of them is, rounded down; 0.29 of a hundred are 29, whatever floats say."""
    return int(count * share + 1e-9)


def unit_range(scores: Floats) -> Vectors:
    """Scores from 0, the least, to 1, the largest: what similarities are weighed against.

    Where they tell no candidate from another, the order stands in which candidates were found.
    """
    above = scores - scores.min()
    if not above.any():
        above = np.arange(len(scores), 0, -1) - 1.0
    shares: Vectors = (above / max(above.max(), np.finfo(np.float32).tiny)).astype(np.float32)
    return shares
