"""Candidates: which items a user's list is chosen from, before any of them is scored.

They come from four sources, each asked for so many: the nearest by content, those that follow best on what the user
has liked, those that trend, and the new ones, the newest first. Whatever its source, a candidate may be recommended to
this user: it is listed, is not the user's own, and the user has not met it.

An item is *new* while hardly anybody has liked it and it has not been listed often in vain either, however long it has
been there: all of a catalogue that came at once is new.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice, zip_longest

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import POPULARITY_HALF_LIVES_MS, Weighted
from penchant.profile.following import Asked, Followers
from penchant.profile.identity import Identity
from penchant.profile.items import Items
from penchant.profile.profiles import Profile
from penchant.profile.ranking.exploration import Arms
from penchant.profile.rows import COUNT, MASS, Rows
from penchant.profile.seen import SeenItems, hashed
from penchant.profile.shelf import Shelf, Wanted

__all__ = ["Candidates", "Finder"]

OUTWARD = (2, 4, 16)  # times `candidates`: how far out the store looks for what follows and is new to a user
AT_ONCE = 8  # users whose following items are looked for at once; of more, in a thread
# Of what is shown to everybody more is remembered than a list needs, for users who have met the first of it.
REMEMBERED = 8  # times `candidates`: how many trending items are, and how many new ones
FURTHER = (8, 64)  # times `candidates`: how far out to look for them
REMEMBERED_S = 5.0  # how long they are

FEW_LIKES = 5  # an item that has as many is not new: its row counts for half by then (see `row_measure`)
TRIED = 100  # nor is one that has been listed as often


class Candidates(Struct, frozen=True, kw_only=True):
    """A user's candidates, and what was learned on the way to them.

    Attributes:
        listed_at: by item, its version's time, epoch milliseconds: the nearest, then following, trending, and new ones.
        new: the new ones.
        following: those among them that follow on what the user has liked last.
        masses: `Row.mass` of what that is, and of others.
    """

    listed_at: Mapping[str, int]
    new: frozenset[str]
    following: frozenset[str]
    masses: Mapping[str, float]


class Shown(Struct, frozen=True, eq=False):
    """Items that are shown to everybody who has not met them, best first.

    Attributes:
        names: of n items.
        hashed: of those, as `SeenItems.lacking` asks for them.
    """

    names: Sequence[str] = ()
    hashed: NDArray[np.uint32] = hashed(())

    def unmet(self, seen: SeenItems, most: int) -> list[str]:
        """The first that a user has not met."""
        return [self.names[place] for place in np.flatnonzero(seen.lacking(self.hashed))[:most].tolist()]


class Finder:
    """Finds candidates.

    Args:
        items: to choose from.
        rows: of the items.
        identity: tells a user's own items.
        arms: what came of listing items.
        shelf: searches the items.
        count: least that a list needs.
        candidates: of each source.
        clock: seconds; monotonic.
    """

    def __init__(
        self,
        items: Items,
        rows: Rows,
        identity: Identity,
        arms: Arms,
        *,
        shelf: Shelf,
        count: int,
        candidates: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._items = items
        self._shelf = shelf
        self._rows = rows
        self._identity = identity
        self._arms = arms
        self._count = count
        self._candidates = max(candidates, count)
        self._clock = clock
        self._followers = Followers(rows)
        self._trends = Shown()
        self._new = Shown()
        self._until = -np.inf
        self._looking: asyncio.Task[None] | None = None

    async def find(
        self, profiles: Sequence[Profile], recent: Sequence[Sequence[Weighted]], now_ms: Sequence[int]
    ) -> list[Candidates]:
        """The candidates of some users.

        Args:
            profiles: of the users.
            recent: what each has liked last, as `recent_items` gives it.
            now_ms: as of a moment each, epoch milliseconds.
        """
        if not profiles:
            return []
        masses = await self._masses(recent)
        near, following, _ = await asyncio.gather(
            self._near(profiles), self._following(profiles, recent, masses, now_ms), self._look_around()
        )
        seen = [profile.state.seen for profile in profiles]
        trending = [self._trends.unmet(one, self._candidates) for one in seen]
        fresh = [self._new.unmet(one, self._candidates) for one in seen]
        found = list(zip(near, following, trending, fresh, strict=True))
        # The rows know nothing of whether an item may be recommended, and to whom; what is remembered may be outdated.
        listed = await self._shelf.listed({item_id for sources in found for source in sources for item_id in source})
        candidates = []
        for profile, sources in zip(profiles, found, strict=True):
            author = self._identity.author(profile.user)
            listed_at = {
                item_id: one.at
                for source in sources
                for item_id in source
                if (one := listed.get(item_id)) is not None and one.author != author
            }
            _, followers, _, new = sources
            candidates.append(
                Candidates(
                    listed_at=listed_at,
                    new=frozenset(new) & listed_at.keys(),
                    following=frozenset(followers) & listed_at.keys(),
                    masses=masses,
                )
            )
        return candidates

    async def _masses(self, recent: Iterable[Sequence[Weighted]]) -> dict[str, float]:
        """`Row.mass` of all items that users liked lately."""
        names = list({item_id for items in recent for item_id, _ in items})
        figures = await self._rows.figures(names)
        return dict(zip(names, np.exp2(figures[:, MASS]).tolist(), strict=True))

    async def _near(self, profiles: Sequence[Profile]) -> list[list[str]]:
        """For each profile the nearest items that its user has not met, best first."""
        near: list[list[str]] = [[] for _ in profiles]
        asking = [place for place, profile in enumerate(profiles) if profile.interest.any()]
        wanted = [
            Wanted(
                vector=profile.interest,
                author=self._identity.author(profile.user),
                state=profile.state,
            )
            for profile in (profiles[place] for place in asking)
        ]
        found = await self._shelf.search(wanted, limit=self._candidates, least=self._count)
        for place, items in zip(asking, found, strict=True):
            near[place] = items
        return near

    async def _following(
        self,
        profiles: Sequence[Profile],
        recent: Sequence[Sequence[Weighted]],
        masses: Mapping[str, float],
        now_ms: Sequence[int],
    ) -> list[list[str]]:
        """For each profile the items that follow best on what its user has liked and that they have not met."""
        following: list[list[str]] = [[] for _ in profiles]
        asking = [place for place, items in enumerate(recent) if items]
        asked = {place: Rows.asked(recent[place], masses, now_ms[place]) for place in asking}
        in_memory = self._followers.among(self._shelf.names)
        if in_memory is not None:
            wanted = [Asked(recent=asked[place], seen=profiles[place].state.seen) for place in asking]
            call = partial(in_memory.search, wanted, limit=self._candidates)
            found = call() if len(wanted) <= AT_ONCE else await asyncio.to_thread(call)
            for place, items in zip(asking, found, strict=True):
                following[place] = items
            return following
        for limit in (self._candidates * factor for factor in OUTWARD):
            if not asking:
                break
            found = await self._rows.following([asked[place] for place in asking], limit=limit)
            for place, items in zip(asking, found, strict=True):
                following[place] = list(islice(unmet(items, profiles[place]), self._candidates))
            asking = [
                place
                for place, items in zip(asking, found, strict=True)
                if len(following[place]) < self._candidates and len(items) == limit
            ]
        return following

    async def _look_around(self) -> None:
        """Has what trends and what is new read again some seconds after the last time, while lists are made.

        Nobody waits for that, unless what is remembered is older than twice as long.
        """
        late_s = self._clock() - self._until
        if late_s < 0:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        if late_s >= REMEMBERED_S:
            await asyncio.shield(self._looking)  # others may wait for it, too
        else:
            self._looking.add_done_callback(lambda task: task.cancelled() or task.exception())  # told to who waits

    async def _look(self) -> None:
        """Reads what trends and what is new."""
        trends, new = await self._trending(), await self._newest()
        self._trends, self._new = Shown(trends, hashed(trends)), Shown(new, hashed(new))
        self._until = self._clock() + REMEMBERED_S

    async def _trending(self) -> tuple[str, ...]:
        """Listed items that trend, the horizons taking turns. What is liked and is no item takes no other's place."""
        found: tuple[str, ...] = ()
        for limit in (self._candidates * factor for factor in FURTHER):
            horizons = [await self._rows.trending(one, limit=limit) for one in range(len(POPULARITY_HALF_LIVES_MS))]
            merged = dict.fromkeys(item for turn in zip_longest(*horizons) for item in turn if item is not None)
            listed = await self._items.listed(merged)
            found = tuple(item for item in merged if item in listed)
            if len(found) >= REMEMBERED * self._candidates or all(len(one) < limit for one in horizons):
                break
        return found

    async def _newest(self) -> tuple[str, ...]:
        """Items that are new, those listed last first."""
        found: list[str] = []
        for limit in (self._candidates * factor for factor in FURTHER):
            names = await self._items.newest(limit)
            likes = np.rint(np.exp2((await self._rows.figures(names))[:, COUNT])).tolist()
            found = [name for name, count in zip(names, likes, strict=True) if self._is_new(name, count)]
            if len(found) >= REMEMBERED * self._candidates or len(names) < limit:
                break
        return tuple(found[: REMEMBERED * self._candidates])

    def _is_new(self, item_id: str, likes: float) -> bool:
        """Whether too little is known of an item to tell if anybody likes it."""
        return likes < FEW_LIKES and self._arms.listings(item_id) < TRIED


def unmet(item_ids: Iterable[str], profile: Profile) -> Iterable[str]:
    """Those of some items that a user has not met."""
    return (item_id for item_id in item_ids if item_id not in profile.state.seen)
