"""Recommendations for many users at once: candidates by content, diversity, and what speaks for each item."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.cache import Content, ItemVectors
from penchant.profile.identity import Identity
from penchant.profile.interest import Horizons, interest_views, signal_parts
from penchant.profile.items import Candidate, Items
from penchant.profile.profiles import Profile
from penchant.profile.ranking.diversity import mmr
from penchant.profile.signals import Signal
from penchant.profile.store.base import SearchFilter

__all__ = ["RankedItem", "Ranker", "Reason"]

REACH = (1, 8, 64)  # times `candidates`: how far out to look for items that a user has not met


class Reason(Struct, frozen=True):
    """A signal that speaks for an item, and how much of the item's score it accounts for."""

    signal: Signal
    part: float


class RankedItem(Struct, frozen=True, kw_only=True):
    """A recommended item. `parts` by slice sum to `score`, the cosine of the item and the user's interest."""

    item_id: str
    score: float
    parts: dict[str, float]
    reasons: tuple[Reason, ...]


class Ranker:
    """Makes lists.

    Args:
        items: to choose from.
        vectors: reads their content.
        identity: tells a user's own items.
        horizons: as the profiles' views were made with.
        count: length of a list.
        candidates: nearest items that a list is chosen from.
        relevance_share: lambda of maximal marginal relevance.
        reasons: past events named per item.
    """

    def __init__(
        self,
        items: Items,
        vectors: ItemVectors,
        identity: Identity,
        horizons: Horizons,
        *,
        count: int,
        candidates: int,
        relevance_share: float,
        reasons: int,
    ) -> None:
        self._items = items
        self._vectors = vectors
        self._identity = identity
        self._horizons = horizons
        self._count = count
        self._candidates = max(candidates, count)
        self._relevance_share = relevance_share
        self._reasons = reasons

    async def rank(self, profiles: Sequence[Profile]) -> list[tuple[RankedItem, ...]]:
        """A list for each profile, best first; empty for one without interests."""
        interested = [profile for profile in profiles if profile.interest.any()]
        unmet = await self._unmet(interested)
        lists: dict[str, tuple[RankedItem, ...]] = {}
        for profile in interested:
            candidates = unmet[profile.user]
            content = await self._vectors.gather(
                [candidate.item_id for candidate in candidates] + [signal.item_id for signal in profile.state.signals]
            )
            lists[profile.user] = self._list(profile, candidates, content)
        return [lists.get(profile.user, ()) for profile in profiles]

    async def _unmet(self, profiles: Sequence[Profile]) -> dict[str, Sequence[Candidate]]:
        """For each profile the nearest items that its user has not met, best first.

        A filter of items seen cannot be asked for its items, so those it holds are found and passed over. Where they
        leave too few for a list, because the user has met most of what is near, the search goes further out.
        """
        unmet: dict[str, Sequence[Candidate]] = {}
        short = profiles
        for limit in (self._candidates * factor for factor in REACH):
            if not short:
                break
            found = await self._items.search([(one.interest, self._filter(one)) for one in short], limit=limit)
            for profile, candidates in zip(short, found, strict=True):
                new = [candidate for candidate in candidates if candidate.item_id not in profile.state.seen]
                unmet[profile.user] = new[: self._candidates]
            short = [
                profile
                for profile, candidates in zip(short, found, strict=True)
                if len(unmet[profile.user]) < self._count and len(candidates) == limit
            ]
        return unmet

    def _filter(self, profile: Profile) -> SearchFilter:
        """Lets pass what may be recommended to a user, less the items of the signals."""
        return self._items.listed_filter(
            author=self._identity.author(profile.user), without={signal.item_id for signal in profile.state.signals}
        )

    def _list(self, profile: Profile, candidates: Sequence[Candidate], content: Content) -> tuple[RankedItem, ...]:
        present = [candidate.item_id for candidate in candidates if candidate.item_id in content.rows]
        if not present:
            return ()
        vectors = content.vectors[[content.rows[item_id] for item_id in present]]
        # An item of the user's may have changed since the stored view was made. Scores and their reasons must be of
        # one reading of the items, so the view is made anew from this one.
        state = profile.state
        views = interest_views([state.signals], [state.as_of], content.rows, content.vectors, self._horizons)
        interest = views.interest[0]
        relevance = vectors @ interest
        chosen = mmr(relevance, vectors, count=self._count, relevance_share=self._relevance_share)
        parts = self._items.space.parts(interest, vectors[chosen])
        reasons = self._reasons_for(profile, content, vectors[chosen])
        names = [part.name for part in self._items.space.slices]
        return tuple(
            RankedItem(
                item_id=present[index],
                score=float(relevance[index]),
                parts={name: float(part) for name, part in zip(names, row, strict=True) if part},
                reasons=why,
            )
            for index, row, why in zip(chosen, parts, reasons, strict=True)
        )

    def _reasons_for(
        self, profile: Profile, content: Content, targets: NDArray[np.float32]
    ) -> list[tuple[Reason, ...]]:
        """For each target the signals that account for most of its score."""
        signals = profile.state.signals
        parts = signal_parts(
            signals,
            profile.state.as_of,
            content.rows,
            content.vectors,
            horizons=self._horizons,
            targets=targets,
        )
        loudest = np.argsort(-parts, axis=1, kind="stable")[:, : self._reasons]
        return [
            tuple(Reason(signals[index], float(row[index])) for index in best if row[index] > 0)
            for row, best in zip(parts, loudest, strict=True)
        ]
