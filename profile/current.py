"""Keeping views current: what has changed is added to sums that are in memory, and the rest is left as it was.

The views of a profile are functions of its signals and of its items' vectors; so is what is made here, to within single
precision. Beside each profile lie the sums that its views were made of. They are moved on where they still hold: they
are of the state that has changed, none of its items has, and rounding cannot show. Else they are made anew.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter

import numpy as np
from msgspec import Struct

from penchant.profile.cache import Bounded, Content, ItemVectors, Mark
from penchant.profile.interest import MOST_STEPS, Change, Horizons, Sums, Views, advanced, sums_of, views_of
from penchant.profile.profiles import Profile
from penchant.profile.signals import Signal, kept_run
from penchant.profile.state import ProfileState

__all__ = ["CurrentViews"]

item_of = attrgetter("item_id")


class Known(Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """What a user's views were made of.

    Attributes:
        state: the user's.
        awaits: those items of its signals that were not in the store.
        mark: until when the others' rows hold.
        sums: of the signals.
        steps: how many times the sums have been moved on since they were made.
    """

    state: ProfileState
    awaits: frozenset[str]
    mark: Mark
    sums: Sums
    steps: int


class Draft(Struct, kw_only=True, eq=False, gc=False):
    """A profile whose views are to be made.

    Attributes:
        known: what its views before were made of, and
        change: what has changed since; None where the views are to be made anew.
    """

    profile: Profile
    known: Known | None = None
    change: Change = Change((), ())

    @property
    def items(self) -> Iterable[str]:
        """Those whose vectors are needed."""
        if self.known is None:
            return map(item_of, self.profile.state.signals)
        return (*map(item_of, self.change.added), *map(item_of, self.change.removed), *self.known.awaits)


class CurrentViews:
    """Makes the views of profiles. One call at a time.

    Args:
        vectors: of the items.
        horizons: of the views.
        capacity: users whose sums are kept in memory.
    """

    def __init__(self, vectors: ItemVectors, horizons: Horizons, *, capacity: int) -> None:
        self._vectors = vectors
        self._horizons = horizons
        self._known: Bounded[str, Known] = Bounded(capacity)

    def forget_all(self) -> None:
        """Drops all sums."""
        self._known.drop_where(lambda _: True)

    async def renewed(self, changed: Sequence[tuple[ProfileState, Profile]]) -> list[Profile]:
        """Profiles with views of their states, and with the items that they wait for.

        Args:
            changed: each behind the state that it had before; whatever its views are.
        """
        drafts = [self._draft(before, profile) for before, profile in changed]
        while True:
            content = await self._vectors.gather(item_id for draft in drafts for item_id in draft.items)
            moving = [draft for draft in drafts if draft.known is not None]
            fallen = [draft for draft in moving if not self._holds(draft, content)]
            renewed = self._moved_on(moving, content) if moving and not fallen else {}
            fallen += [draft for draft in moving if not fallen and draft.profile.user not in renewed]
            if not fallen:
                break
            for draft in fallen:  # all of their items are needed now
                draft.known, draft.change = None, Change((), ())
        anew = [draft for draft in drafts if draft.known is None]
        if anew:
            renewed |= self._made_anew(anew, content)
        return [renewed[profile.user] for _, profile in changed]

    def _draft(self, before: ProfileState, profile: Profile) -> Draft:
        """What is known of a profile."""
        known = self._known.get(profile.user)
        if known is None or known.state is not before or known.steps == MOST_STEPS or not self._as_they_were(known):
            return Draft(profile=profile)
        return Draft(profile=profile, known=known, change=change_of(before, profile.state))

    def _holds(self, draft: Draft, content: Content) -> bool:
        """Whether the sums of a profile's state before can be moved on, by what has been gathered."""
        known = draft.known
        return known is not None and self._as_they_were(known) and known.awaits <= content.missing

    def _as_they_were(self, known: Known) -> bool:
        """Whether no item of a user's has changed since sums were made of them."""
        return self._vectors.holds(known.mark, map(item_of, known.state.signals))

    def _moved_on(self, drafts: Sequence[Draft], content: Content) -> dict[str, Profile]:
        """Those of the profiles whose sums could be moved on, by user."""
        known = [draft.known for draft in drafts if draft.known is not None]
        sums, holds = advanced(
            Sums.together([one.sums for one in known]),
            [draft.change for draft in drafts],
            content.rows,
            content.vectors,
            self._horizons,
        )
        views = views_of(sums, [draft.profile.state.as_of for draft in drafts], self._horizons)
        holds &= views.sound
        return {
            drafts[row].profile.user: self._keep(
                drafts[row], row, sums, views, steps=known[row].steps + 1, content=content
            )
            for row in np.flatnonzero(holds).tolist()
        }

    def _made_anew(self, drafts: Sequence[Draft], content: Content) -> dict[str, Profile]:
        """The profiles, by user."""
        states = [draft.profile.state for draft in drafts]
        sums = sums_of([state.signals for state in states], content.rows, content.vectors, self._horizons)
        views = views_of(sums, [state.as_of for state in states], self._horizons)
        return {
            draft.profile.user: self._keep(draft, row, sums, views, steps=0, content=content)
            for row, draft in enumerate(drafts)
        }

    def _keep(self, draft: Draft, row: int, sums: Sums, views: Views, *, steps: int, content: Content) -> Profile:
        """One profile with its views; what they were made of is remembered."""
        profile, known = draft.profile, draft.known
        awaits, mark = content.missing, content.mark
        if awaits:
            awaits = awaits.intersection(map(item_of, profile.state.signals))
        if known is not None:
            mark = mark.along(known.mark)
        self._known.put(
            profile.user, Known(state=profile.state, awaits=awaits, mark=mark, sums=sums.of(row), steps=steps)
        )
        short, long, interest = views.vectors[row].copy()  # nothing of the others is kept in memory by it
        return Profile(
            user=profile.user,
            state=profile.state,
            told=profile.told,
            version=profile.version,
            token=profile.token,
            awaits=awaits,
            short=short,
            long=long,
            interest=interest,
            rho=float(views.rho[row]),
        )


def change_of(before: ProfileState, after: ProfileState) -> Change:
    """What has joined and left a state's set of signals."""
    strong_added, strong_removed = exchanged(before.strong, after.strong)
    weak_added, weak_removed = exchanged(before.weak, after.weak)
    return Change((*strong_added, *weak_added), (*strong_removed, *weak_removed))


def exchanged(before: tuple[Signal, ...], after: tuple[Signal, ...]) -> tuple[Sequence[Signal], Sequence[Signal]]:
    """What has joined and left a set of one strength, newest first."""
    if after is before:
        return (), ()
    joined, stayed = kept_run(before, after)
    if stayed or not before:
        return after[:joined], before[stayed:]
    kept, now = set(before), set(after)
    return [signal for signal in after if signal not in kept], [signal for signal in before if signal not in now]
