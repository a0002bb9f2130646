"""Applying signals: load, merge, view, compare and set; again on conflict, until every signal is in the store."""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.affinity import Liking, Likings, Positive, positives
from penchant.profile.cache import Bounded, ItemVectors
from penchant.profile.current import CurrentViews
from penchant.profile.identity import OWN_PREFIX
from penchant.profile.interest import Horizons, interest_views
from penchant.profile.profiles import Profile, Profiles
from penchant.profile.signals import Signal
from penchant.profile.state import Limits, ProfileState
from penchant.profile.store.base import StoreUnavailable
from penchant.profile.told import Origin, Told

__all__ = ["Applied", "ProfileUpdater", "Tellings", "differs", "with_views"]

MAX_ATTEMPTS = 20
ROUNDING = 1e-6  # in components of vectors of unit length and of their means
UNLIMITED = Limits(strong=sys.maxsize, weak=sys.maxsize, seen_bits=0)
CHUNK = 256  # users prepared together: bounds memory, and shares what it costs to look at items
BREATH = 32  # users after whom others get a turn: some milliseconds


T = TypeVar("T")
Vector = NDArray[np.float32]

NOTHING_SETTLED: Mapping[Origin, int] = {}
Tellings = Mapping[str, Sequence[Positive]]  # by user, in order within each origin

NOTHING_TOLD: Tellings = {}


class Applied(Struct, frozen=True, kw_only=True):
    """What came of applying signals.

    Attributes:
        refused: how many writes were refused because someone else had written first, and were made again.
        likings: by user; one for each record that was the first of its event.
    """

    refused: int
    likings: Sequence[Likings]

    def told(self, tell: Callable[[Liking], T]) -> list[T]:
        """What is made of each liking, in order within each origin."""
        offsets: list[int] = []
        made: list[T] = []
        for likings in self.likings:
            for liking in likings:
                offsets.append(liking.offset)
                made.append(tell(liking))
        return [made[number] for number in sorted(range(len(made)), key=offsets.__getitem__)]


class ProfileUpdater:
    """Merges signals into profiles and keeps their views current. One call at a time: one write per user in flight.

    Args:
        profiles: where they are stored.
        vectors: of the items.
        horizons: of the views.
        limits: of the states.
        capacity: profiles kept in memory.
    """

    def __init__(
        self, profiles: Profiles, vectors: ItemVectors, horizons: Horizons, limits: Limits, *, capacity: int
    ) -> None:
        self._profiles = profiles
        self._views = CurrentViews(vectors, horizons, capacity=capacity)
        self._limits = limits
        self._cache: Bounded[str, Profile] = Bounded(capacity)

    async def apply(
        self,
        signals: Mapping[str, Sequence[Signal]],
        tellings: Tellings = NOTHING_TOLD,
        settled: Mapping[Origin, int] = NOTHING_SETTLED,
    ) -> Applied:
        """Merges each user's signals; returns when all of them are in the store.

        An empty sequence asks for the views of a known user to be made anew, because an item of theirs has changed.

        Args:
            signals: by user.
            tellings: of those among them that make transitions.
            settled: by origin, the offset behind the last record that the group has committed, or an earlier one.

        Raises:
            StoreUnavailable: the store does not answer. Some users may have been written; apply all again.
        """
        applied = [await self._apply_chunk(chunk, tellings, settled) for chunk in chunks(signals, CHUNK)]
        return Applied(
            refused=sum(one.refused for one in applied), likings=[likings for one in applied for likings in one.likings]
        )

    async def read(self, users: Iterable[str]) -> dict[str, Profile]:
        """The profiles of `users` that exist, at least as new as the last `apply` that returned.

        May be called while signals are applied; so it remembers nothing of what it had to load.
        """
        known, unknown = self._recall(users)
        return known | await self._profiles.load(unknown)

    def forget_all(self) -> None:
        """Drops the memory of all profiles: others may write them now."""
        self._cache.drop_where(lambda _: True)
        self._views.forget_all()

    def _recall(self, users: Iterable[str]) -> tuple[dict[str, Profile], list[str]]:
        """The profiles in memory, and the users of whom there is none."""
        found = {user: self._cache.get(user) for user in users}
        known = {user: profile for user, profile in found.items() if profile is not None}
        return known, [user for user in found if user not in known]

    async def _load(self, users: Iterable[str]) -> dict[str, Profile]:
        """The profiles of `users` that exist; those loaded are remembered."""
        known, unknown = self._recall(users)
        loaded = await self._profiles.load(unknown)
        for user, profile in loaded.items():
            self._cache.put(user, profile)
        return known | loaded

    async def _apply_chunk(
        self, signals: Mapping[str, Sequence[Signal]], tellings: Tellings, settled: Mapping[Origin, int]
    ) -> Applied:
        pending = dict(signals)
        refused = 0
        likings: dict[str, Likings] = {}
        for _ in range(MAX_ATTEMPTS):
            known = await self._load(pending)
            merged: list[tuple[ProfileState, Profile]] = []
            for number, (user, mine) in enumerate(pending.items()):
                if number % BREATH == 0:
                    await asyncio.sleep(0)
                if mine or user in known:
                    before = known.get(user) or self._profiles.empty(user)
                    grown = before.state.adding(mine, UNLIMITED)
                    told, likings[user] = heard(
                        before.told, grown, tellings.get(user, ()), settled, partial(self._profiles.owns, user)
                    )
                    state = grown.cut(self._limits)
                    if state == before.state:
                        state = before.state  # which its views were made of
                    state.take_over(before.state)
                    merged.append((before.state, msgspec.structs.replace(before, state=state, told=told)))
            viewed = await self._views.renewed(merged)
            changed = [profile for profile in viewed if differs(profile, known.get(profile.user))]
            try:
                written = await self._profiles.write(changed) if changed else {}
            except StoreUnavailable:
                self._forget(changed)  # the write may or may not stand
                raise
            for user, profile in written.items():
                self._cache.put(user, profile)
            conflicts = [profile for profile in changed if profile.user not in written]
            if not conflicts:
                return Applied(refused=refused, likings=list(likings.values()))
            refused += len(conflicts)
            # Someone else wrote these: load what stands and merge all of this batch's signals into that.
            self._forget(conflicts)
            pending = {profile.user: pending[profile.user] for profile in conflicts}
        raise StoreUnavailable("profiles kept changing under this writer", hint="Does another worker share them?")

    def _forget(self, profiles: Iterable[Profile]) -> None:
        for profile in profiles:
            self._cache.drop(profile.user)


async def with_views(profiles: Sequence[Profile], vectors: ItemVectors, horizons: Horizons) -> list[Profile]:
    """The profiles with views of their states, and with the items that they wait for.

    Args:
        profiles: whatever their views are.
        vectors: of the items.
        horizons: of the views.
    """
    users = [profile.state.signals for profile in profiles]
    content = await vectors.gather({signal.item_id for signals in users for signal in signals})
    views = interest_views(
        users, [profile.state.as_of for profile in profiles], content.rows, content.vectors, horizons
    )
    return [
        msgspec.structs.replace(
            profile,
            short=views.short[row],
            long=views.long[row],
            interest=views.interest[row],
            rho=float(views.rho[row]),
            awaits=content.missing.intersection(signal.item_id for signal in users[row]),
        )
        for row, profile in enumerate(profiles)
    ]


def heard(
    told: Told,
    grown: ProfileState,
    tellings: Sequence[Positive],
    settled: Mapping[Origin, int],
    is_own: Callable[[str], bool],
) -> tuple[Told, Likings]:
    """What a user's records have told of, and what of it is told to others.

    Of items of the user's own nothing is told: that their author likes them says nothing about others, and what came
    before or after them would name the author.

    Args:
        told: what has been told of before.
        grown: the state with all signals of the batch, those among them that it will push out too: a history that is
            sent at once leaves as it came.
        tellings: of the signals that make transitions.
        settled: by origin, the offset behind the last record that the group has committed, or an earlier one.
        is_own: whether an item is the user's own.
    """
    tellings = [
        one for one in tellings if not (one.signal.item_id.startswith(OWN_PREFIX) and is_own(one.signal.item_id))
    ]
    told, found = told.hearing([one.telling for one in tellings], settled)
    firsts = [one for one in tellings if one.telling in found]
    liked = positives(grown.signals) if firsts else ()
    past = [one for one in liked if not (one.item_id.startswith(OWN_PREFIX) and is_own(one.item_id))]
    return told, Likings(firsts, past)


def differs(profile: Profile, stored: Profile | None) -> bool:
    """Whether a profile says anything that the stored one does not."""
    return (
        stored is None
        or profile.state != stored.state
        or profile.told != stored.told
        or profile.awaits != stored.awaits
        or further(profile.interest, stored.interest)
        or further(profile.short, stored.short)
        or further(profile.long, stored.long)
    )


def further(one: Vector, other: Vector) -> bool:
    """Whether two vectors are further from each other than sums of the same signals, taken in another order."""
    return one is not other and float(np.abs(one - other).max(initial=0)) > ROUNDING


def chunks(signals: Mapping[str, Sequence[Signal]], size: int) -> Iterator[dict[str, Sequence[Signal]]]:
    """The mapping in parts of at most `size` users."""
    users = list(signals)
    for start in range(0, len(users), size):
        yield {user: signals[user] for user in users[start : start + size]}
