"""Keeping views current: what has changed is added to sums that are in memory, and the rest is left as it was.

The views of a profile are functions of its signals and of its items' vectors; so is what is made here, to within single
precision. Beside each profile lie the sums that its views were made of. They are moved on where they still hold: they
are of the state that has changed, none of its items has, and rounding cannot show. Else they are made anew.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

import numpy as np
from msgspec import Struct

from penchant.profile.cache import Bounded, Content, ItemVectors
from penchant.profile.interest import MOST_STEPS, Change, Horizons, Sums, Views, advanced, sums_of, views_of
from penchant.profile.profiles import Profile
from penchant.profile.signals import Signal, kept_run
from penchant.profile.state import ProfileState

__all__ = ["CurrentViews"]

VOID = -1  # the row of an item that is there and has no content
MOST_ITEMS = 2**18  # whose rows are remembered: some 30 MB
MOST_CHANGES = 2**12  # of items, likewise

item_of = attrgetter("item_id")


class Known(Struct, frozen=True, kw_only=True, eq=False, gc=False):
    """What a user's views were made of.

    Attributes:
        state: the user's.
        items: of its signals, with how many each has.
        awaits: those among them that were not in the store.
        sums: of its signals.
        steps: how many times the sums have been moved on since they were made.
        moment: as `ItemRows.moment` was.
    """

    state: ProfileState
    items: Mapping[str, int]
    awaits: frozenset[str]
    sums: Sums
    steps: int
    moment: int


class Draft(Struct, kw_only=True, eq=False, gc=False):
    """A profile whose views are to be made.

    Attributes:
        items: of its signals, with how many each has.
        known: what its views before were made of, and
        change: what has changed since; None where that is not known.
    """

    profile: Profile
    items: Mapping[str, int]
    known: Known | None = None
    change: Change = Change((), ())


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
        self._rows = ItemRows()

    def forget_all(self) -> None:
        """Drops all sums."""
        self._known.drop_where(lambda _: True)

    async def renewed(self, changed: Sequence[tuple[ProfileState, Profile]]) -> list[Profile]:
        """Profiles with views of their states, and with the items that they wait for.

        Args:
            changed: each behind the state that it had before; whatever its views are.
        """
        drafts = [self._draft(before, profile) for before, profile in changed]
        items = set().union(*(draft.items for draft in drafts))
        items.update(signal.item_id for draft in drafts for signal in draft.change.removed)
        content = await self._vectors.gather(items)
        self._rows.see(items, content)
        renewed: dict[str, Profile] = {}
        moving = [draft for draft in drafts if self._holds(draft, content)]
        if moving:
            renewed |= self._moved_on(moving, content)
        anew = [draft for draft in drafts if draft.profile.user not in renewed]
        if anew:
            renewed |= self._made_anew(anew, content)
        return [renewed[profile.user] for _, profile in changed]

    def _draft(self, before: ProfileState, profile: Profile) -> Draft:
        """What is known of a profile."""
        known = self._known.get(profile.user)
        if known is None or known.state is not before:
            return Draft(profile=profile, items=Counter(map(item_of, profile.state.signals)))
        change = change_of(before, profile.state)
        items = dict(known.items)
        for signal in change.added:
            items[signal.item_id] = items.get(signal.item_id, 0) + 1
        for signal in change.removed:
            items[signal.item_id] -= 1
            if not items[signal.item_id]:
                del items[signal.item_id]
        return Draft(profile=profile, items=items, known=known, change=change)

    def _holds(self, draft: Draft, content: Content) -> bool:
        """Whether the sums of a profile's state before can be moved on."""
        known = draft.known
        return (
            known is not None
            and known.steps < MOST_STEPS
            and all(item_id in content.missing for item_id in known.awaits if item_id in draft.items)
            and not self._rows.changed_since(known.moment, draft.items)
            and not self._rows.changed_since(known.moment, map(item_of, draft.change.removed))
        )

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
        profile = draft.profile
        awaits = content.missing.intersection(draft.items) if content.missing else content.missing
        self._known.put(
            profile.user,
            Known(
                state=profile.state,
                items=draft.items,
                awaits=awaits,
                sums=sums.of(row),
                steps=steps,
                moment=self._rows.moment,
            ),
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


class ItemRows:
    """Which row of the items' vectors each item has, and when that changed: an item that says the same keeps its row.

    Attributes:
        moment: counts what has changed.
    """

    def __init__(self) -> None:
        self.moment = 0
        self._forgotten = 0  # the moment before which nothing is known of changes
        self._rows: dict[str, int] = {}
        self._changed: dict[str, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)

    def see(self, items: Iterable[str], content: Content) -> None:
        """Compares what has been gathered with what was.

        Args:
            items: that it was gathered for.
            content: what was found of them.
        """
        moved = not np.may_share_memory(content.vectors, self._vectors)
        if moved or len(self._rows) > MOST_ITEMS or len(self._changed) > MOST_CHANGES:
            self.moment += 1
            self._forgotten = self.moment
            self._rows.clear()
            self._changed.clear()
        found = dict.fromkeys(content.missing.union(items).difference(content.rows), VOID) | content.rows
        changed = [item_id for item_id, row in found.items() if self._rows.get(item_id, row) != row]
        if changed:
            self.moment += 1
            self._changed |= dict.fromkeys(changed, self.moment)
        self._rows |= found
        self._vectors = content.vectors

    def changed_since(self, moment: int, items: Iterable[str]) -> bool:
        """Whether any of the items has changed since a moment, as far as is known."""
        return moment < self._forgotten or (
            moment < self.moment and any(self._changed[item_id] > moment for item_id in self._changed.keys() & items)
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
