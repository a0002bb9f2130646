"""Recommendations for many users at once: candidates, the linear ranker, diversity, and what speaks for each item.

In place of the linear ranker content alone may rank, by one of the ways to fuse it (`penchant.profile.ranking.fused`).
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.cache import VOID, ItemVectors
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons
from penchant.profile.items import Items
from penchant.profile.profiles import Profile
from penchant.profile.ranking.candidates import Finder
from penchant.profile.ranking.compared import Compared
from penchant.profile.ranking.diversity import mmr
from penchant.profile.ranking.exploration import Arms
from penchant.profile.ranking.features import BEHAVIOUR, content_names
from penchant.profile.ranking.fused import Liked, Mode
from penchant.profile.ranking.history import Histories
from penchant.profile.ranking.scoring import Gathered, Requests
from penchant.profile.ranking.weights import Weights
from penchant.profile.ranking.whitening import Calibration
from penchant.profile.rows import Rows
from penchant.profile.shelf import Shelf
from penchant.profile.signals import Signal

__all__ = ["TURN_S", "Offered", "Ranked", "RankedItem", "Ranker", "Reason"]

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
        signals: k of the user's.
        told: gives how much each of those accounts for of the scores of t chosen candidates, shape (t, k).
    """

    items: Sequence[str]
    vectors: Vectors
    new: frozenset[str]
    names: Sequence[str]
    parts: NDArray[np.floating]
    offered: Offered | None
    signals: Sequence[Signal]
    told: Callable[[NDArray[np.intp]], Floats]


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
        exact_items: of a catalogue that is searched in memory, at most, while `shelf` runs; None: as its store is.
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
        exact_items: int | None = 0,
        fusion: Callable[[Calibration], Mode] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._space = items.space
        self._rows = rows
        self._horizons = horizons
        self._compared = Compared(self._space)
        self._histories = Histories(vectors)
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

    def forget_all(self) -> None:
        """Drops what is kept of users: others may change them now."""
        self._histories.forget_all()

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

    async def rank(
        self, profiles: Sequence[Profile], now_ms: Sequence[int], *, rest_s: Callable[[], float] = lambda: 0
    ) -> list[Ranked]:
        """A list for each profile, best first.

        Args:
            profiles: of users.
            now_ms: as of which moment each, epoch milliseconds.
            rest_s: for how long others have their turn, seconds; asked when `TURN_S` has passed and lists are left.
        """
        mode, calibration, weights = self.mode, self._calibration, self._weights
        until = time.monotonic() + TURN_S
        gathered = await self._gathered(profiles, now_ms)
        if mode is None:
            compared = self._compared.of(calibration, gathered.content.vectors)
            requests = Requests(gathered, compared, horizons=self._horizons)
            score = partial(self._by_features, gathered, requests, weights, self._filled(compared))
        else:
            score = partial(self._by_content, gathered, mode)
        lists = []
        for user, (profile, moment) in enumerate(zip(profiles, now_ms, strict=True)):
            if time.monotonic() > until:  # others work in this loop, and all this may have been in memory
                await asyncio.sleep(rest_s())
                until = time.monotonic() + TURN_S
            lists.append(self._list(score(user), f"{moment} {profile.user}"))
        return lists

    async def _gathered(self, profiles: Sequence[Profile], now_ms: Sequence[int]) -> Gathered:
        """Users' candidates, with what is known of them."""
        histories, _ = await self._histories.of(profiles)
        found = await self._finder.find(profiles, [history.recent for history in histories], now_ms)
        listed_at: dict[str, int] = {}
        for candidates in found:
            listed_at |= candidates.listed_at
        names = list(listed_at)
        figures = await self._rows.figures(names)
        after = await self._rows.after(list({item_id for candidates in found for item_id in candidates.following}))
        histories, content = await self._histories.of(profiles, names)
        return Gathered(
            profiles=profiles,
            histories=histories,
            found=found,
            now_ms=now_ms,
            names=names,
            places={item_id: place for place, item_id in enumerate(names)},
            listed_at=np.array(list(listed_at.values()), np.int64),
            rows=np.array([content.rows.get(item_id, VOID) for item_id in names], np.intp),
            content=content,
            figures=figures,
            after=after,
        )

    def _filled(self, compared: Mapping[str, Vectors]) -> slice:
        """The components from the first to the last in which any item has something: often those of one slice."""
        bounds = [part for name, part in self._space.bounds().items() if name in compared and compared[name].shape[1]]
        return slice(bounds[0].start, bounds[-1].stop) if bounds else slice(0)

    def _list(self, scored: Scored | None, seed: str) -> Ranked:
        if scored is None:
            return Ranked(items=(), offered=None)
        relevance = unit_range(scored.parts.sum(axis=0))
        best = mmr(relevance, scored.vectors, count=self._count, relevance_share=self._relevance_share)
        tried = self._tried(scored, best, seed)
        chosen = [*best[: self._count - len(tried)], *tried]
        reasons = loudest(scored.signals, scored.told(np.array(chosen, np.intp)), self._reasons)
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

    def _by_content(self, gathered: Gathered, mode: Mode, user: int) -> Scored | None:
        """A user's candidates scored by fused content alone; None where there is nothing to choose from."""
        places = gathered.with_content(user)
        if not len(places):
            return None
        history, content = gathered.histories[user], gathered.content
        liked_rows = history.past.rows[history.past.positive]
        liked_signals = history.places[history.past.positive]
        as_stored = Calibration()
        vectors = content.vectors[gathered.rows[places]]
        known, targets = (
            mode.fused(as_stored.split(self._space, one)) for one in (content.vectors[liked_rows], vectors)
        )
        liked = Liked(
            rows=np.arange(len(liked_rows)), ages_ms=gathered.now_ms[user] - history.columns.times[liked_signals]
        )

        def told(chosen: NDArray[np.intp]) -> Floats:
            parts = np.zeros((len(chosen), len(history.signals)))
            terms = mode.terms(liked, known, targets)
            if terms is not None:
                parts[:, liked_signals] = terms[:, chosen].T
            return parts

        return Scored(
            items=gathered.named(places),
            vectors=vectors,
            new=gathered.found[user].new & content.rows.keys(),
            names=(FUSED,),
            parts=mode.scores(liked, known, targets)[None],
            offered=None,
            signals=history.signals,
            told=told,
        )

    def _by_features(
        self, gathered: Gathered, requests: Requests, weights: Weights, filled: slice, user: int
    ) -> Scored | None:
        """A user's candidates scored by all features; None where there is nothing to choose from."""
        request = requests.of(user)
        if request is None:
            return None
        content = gathered.content
        factors = weights.at(max(0, gathered.now_ms[user] - gathered.profiles[user].state.as_of))
        features = request.scored()
        return Scored(
            items=request.items,
            vectors=content.vectors[request.rows, filled],
            new=gathered.found[user].new & content.rows.keys(),
            names=self.features,
            parts=factors[:, None] * features,
            offered=Offered(items=tuple(request.items), features=features),
            signals=request.history.signals,
            told=partial(request.told, factors),
        )


def loudest(signals: Sequence[Signal], parts: Floats, most: int) -> list[tuple[Reason, ...]]:
    """For each of t items the signals that speak for it most.

    Args:
        signals: k of them.
        parts: of the scores that they account for, shape (t, k).
        most: at most so many are named.
    """
    reasons: list[list[Reason]] = [[] for _ in parts]
    items, left = np.arange(len(parts)), parts.copy()
    for _ in range(min(most, len(signals))):
        best = left.argmax(axis=1)  # a few times: less than sorting hundreds
        for mine, place, part in zip(reasons, best.tolist(), left[items, best].tolist(), strict=True):
            if part > 0:
                mine.append(Reason(signals[place], part))
        left[items, best] = 0
    return [tuple(mine) for mine in reasons]


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
