"""The profiles' collection: each user's state with its views beside it, and how far the store covers the log."""

import base64
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from uuid import UUID

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from penchant.profile.fusion import Space
from penchant.profile.identity import Identity
from penchant.profile.state import Limits, ProfileState
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, SearchFilter, Store, Write, new_token
from penchant.profile.told import Told

__all__ = ["Profile", "Profiles", "Waiting"]

Vector = NDArray[np.float32]

SHORT, LONG, INTEREST = "short", "long", "interest"
USER, STATE, TOLD, VERSION, AWAITS, WAITING, AS_OF, RHO = (
    "user", "state", "told", "version", "awaits", "waiting", "as_of", "rho",
)  # fmt: skip


class Profile(Struct, frozen=True, kw_only=True, gc=False):
    """A user's profile as stored.

    Attributes:
        told: which records were the first of their events.
        version: counts the writes of this profile.
        token: the write token it is stored under; None before the first write.
        awaits: items of its signals that are not in the store yet.
        short: view of the short horizon, shape (d,); so `long` and the mix `interest`.
        rho: the short view's share of the mix.
    """

    user: str
    state: ProfileState
    told: Told = Told()
    version: int = 0
    token: int | None = None
    awaits: frozenset[str] = frozenset()
    short: Vector
    long: Vector
    interest: Vector
    rho: float = 0.0


class Waiting(Struct, frozen=True, kw_only=True):
    """A user whose profile has signals on items that were not in the store when it was written."""

    user: str
    awaits: frozenset[str]


class Profiles:
    """The profiles of a store.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
        space: of the interest vectors.
        identity: hashes user ids.
        limits: of the states.
    """

    def __init__(self, store: Store, collection: str, space: Space, identity: Identity, limits: Limits) -> None:
        self._store = store
        self._collection = collection
        self._space = space
        self._identity = identity
        self._limits = limits

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(
            name=self._collection,
            vectors=dict.fromkeys((SHORT, LONG, INTEREST), self._space.dimension),
            indexes={WAITING: "bool"},
            fingerprint=f"{self._space.fingerprint};key={self._identity.fingerprint};seen={self._limits.seen_bits}",
        )

    def empty(self, user: str) -> Profile:
        """The profile of a user of whom nothing is known."""
        nothing = np.zeros(self._space.dimension, np.float32)
        state = ProfileState.empty(self._limits)
        return Profile(user=user, state=state, short=nothing, long=nothing, interest=nothing)

    def owns(self, user: str, item_id: str) -> bool:
        """Whether an item is one that a user's own post or upload has made."""
        return self._identity.owns(user, item_id)

    async def load(self, users: Iterable[str]) -> dict[str, Profile]:
        """The profiles that exist among `users`."""
        wanted = {self._identity.user_point(user): user for user in users}
        found = await self._store.retrieve(self._collection, list(wanted), vectors=(SHORT, LONG, INTEREST))
        return {wanted[key]: self._profile(point) for key, point in found.items()}

    async def write(self, profiles: Sequence[Profile]) -> dict[str, Profile]:
        """Compares and sets profiles on their tokens; gives those that stand, as they are now stored."""
        written: dict[UUID, Profile] = {}
        writes: list[Write] = []
        for profile in profiles:
            token = new_token()
            point = Point(
                id=self._identity.user_point(profile.user),
                payload={
                    USER: profile.user,
                    STATE: base64.b64encode(profile.state.pack()).decode(),
                    TOLD: base64.b64encode(profile.told.pack()).decode(),
                    VERSION: profile.version + 1,
                    AWAITS: sorted(profile.awaits),
                    WAITING: bool(profile.awaits),
                    AS_OF: profile.state.as_of,
                    RHO: profile.rho,
                    TOKEN: token,
                },
                vectors={SHORT: profile.short, LONG: profile.long, INTEREST: profile.interest},
            )
            writes.append(Write(point=point, expected=profile.token))
            written[point.id] = Profile(
                user=profile.user,
                state=profile.state,
                told=profile.told,
                version=profile.version + 1,
                token=token,
                awaits=profile.awaits,
                short=profile.short,
                long=profile.long,
                interest=profile.interest,
                rho=profile.rho,
            )
        stands = await self._store.write(self._collection, writes)
        return {written[key].user: written[key] for key in stands}

    async def waiting(self) -> AsyncIterator[Waiting]:
        """Users with signals on items that were missing when their profile was written."""
        where = SearchFilter(equal={WAITING: True})
        async for point in self._store.scroll(self._collection, where, payload=(USER, AWAITS)):
            yield Waiting(user=point.payload[USER], awaits=frozenset(point.payload[AWAITS]))

    async def all(self, *, views: bool = True) -> AsyncIterator[Profile]:
        """Every profile of the store, in no particular order; once each, even while others write them.

        Args:
            views: false: without them, as if they were zero.
        """
        vectors = (SHORT, LONG, INTEREST) if views else ()
        async for point in self._store.scroll(self._collection, SearchFilter(), vectors=vectors):
            if USER in point.payload:  # positions are kept beside the profiles
                yield self._profile(point)

    def _profile(self, point: Point) -> Profile:
        payload: Mapping[str, object] = point.payload
        nothing = np.zeros(self._space.dimension, np.float32)
        return Profile(
            user=str(payload[USER]),
            state=ProfileState.unpack(base64.b64decode(str(payload[STATE]))),
            told=Told.unpack(base64.b64decode(str(payload[TOLD]))) if TOLD in payload else Told(),
            version=point.payload[VERSION],
            token=point.token,
            awaits=frozenset(point.payload[AWAITS]),
            short=point.vectors.get(SHORT, nothing),
            long=point.vectors.get(LONG, nothing),
            interest=point.vectors.get(INTEREST, nothing),
            rho=point.payload[RHO],
        )
