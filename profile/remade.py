"""Stores that are made from another one: whether they are whole, and whether a worker has them.

Embedding a catalogue anew takes a while and may be cut short. A note in the new store says how far that has come; it is
written by compare and set. While the store is half made no worker takes it, and once a worker has taken it nobody makes
anything of it any more: one of the two has it, never both.
"""

import hashlib
from collections.abc import Collection
from enum import StrEnum
from uuid import UUID

from penchant.errors import ConfigurationError
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, Store, Write, new_token

__all__ = ["HalfMade", "Remade", "State"]

POINT = UUID(bytes=hashlib.blake2b(b"remade", digest_size=16).digest())
STATE = "state"


class State(StrEnum):
    """Who has a store."""

    HALF_MADE = "half-made"
    WHOLE = "whole"
    IN_USE = "in-use"


class HalfMade(ConfigurationError):
    """The store was to be made from another one, which was cut short."""

    def __init__(self) -> None:
        super().__init__(
            "The store was left half made by `penchant reindex`",
            hint="Run that again, to its end: it goes on where it was. Then start this.",
        )


class Remade:
    """The note of a store.

    Args:
        store: opened.
        layout: of the collection that the note is kept in.
    """

    def __init__(self, store: Store, layout: CollectionLayout) -> None:
        self._store = store
        self._collection = layout.name

    async def state(self) -> State | None:
        """What the note says; None in a store that nobody has had yet.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        return (await self._read())[0]

    async def move(self, to: State, *, among: Collection[State | None]) -> bool:
        """Notes a state where the one before is among some; says whether it was.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        while True:
            state, token = await self._read()
            if state not in among:
                return False
            note = Point(id=POINT, payload={STATE: to, TOKEN: new_token()})
            if await self._store.write(self._collection, [Write(point=note, expected=token)]):
                return True

    async def claim(self) -> None:
        """Takes the store for a worker.

        Raises:
            HalfMade: it is not whole.
            StoreUnavailable: the store does not answer.
        """
        if not await self.move(State.IN_USE, among=(None, State.WHOLE)):
            await self.check()

    async def check(self) -> None:
        """Makes sure that the store is whole.

        Raises:
            HalfMade: it is not.
            StoreUnavailable: the store does not answer.
        """
        if await self.state() is State.HALF_MADE:
            raise HalfMade

    async def _read(self) -> tuple[State | None, int | None]:
        """What the note says, and its write token."""
        found = await self._store.retrieve(self._collection, [POINT])
        if POINT not in found:
            return None, None
        return State(found[POINT].payload[STATE]), found[POINT].token
