"""Stores that were made from another one: whether they are whole, and whether anybody has used them since.

Embedding a catalogue anew takes a while and may be cut short. Until it is done, the new store carries a note that
says so, and no worker opens it. Done, the note says how far the store covered the log then: as long as it covers no
more, no worker has written it, and it may be brought up to date from the old one once more.
"""

import hashlib
from collections.abc import Mapping
from uuid import UUID

from msgspec import Struct

from penchant.errors import ConfigurationError
from penchant.profile.positions import Position
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, Store, new_token

__all__ = ["Covered", "HalfMade", "Remade", "RemadeNote", "digest_of"]

POINT = UUID(bytes=hashlib.blake2b(b"remade", digest_size=16).digest())
WHOLE, COVERS = "whole", "covers"

# By collection and partition (topic, number).
Covered = Mapping[tuple[str, str, int], Position]


class HalfMade(ConfigurationError):
    """The store was to be made from another one, which was cut short."""

    def __init__(self) -> None:
        super().__init__(
            "The store was left half made by `penchant reindex`",
            hint="Run that again, to its end: it goes on where it was. Then start this.",
        )


class RemadeNote(Struct, frozen=True, kw_only=True):
    """What is noted in a store that was made from another one.

    Attributes:
        whole: it was finished.
        covers: digest of how far it covers the log, as it was made.
    """

    whole: bool
    covers: str


class Remade:
    """The note of a store.

    Args:
        store: opened.
        layout: of the collection that the note is kept in.
    """

    def __init__(self, store: Store, layout: CollectionLayout) -> None:
        self._store = store
        self._collection = layout.name

    async def note(self) -> RemadeNote | None:
        """The note; None in a store that was filled from the log.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        found = await self._store.retrieve(self._collection, [POINT])
        if POINT not in found:
            return None
        return RemadeNote(whole=found[POINT].payload[WHOLE], covers=found[POINT].payload[COVERS])

    async def write(self, note: RemadeNote) -> None:
        """Writes the note.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        payload = {WHOLE: note.whole, COVERS: note.covers, TOKEN: new_token()}
        await self._store.put(self._collection, [Point(id=POINT, payload=payload)])

    async def check(self) -> None:
        """Makes sure that the store is whole.

        Raises:
            HalfMade: it is not.
            StoreUnavailable: the store does not answer.
        """
        note = await self.note()
        if note is not None and not note.whole:
            raise HalfMade


def digest_of(covered: Covered) -> str:
    """Stands for how far a store covers the log."""
    digest = hashlib.blake2b(digest_size=8)
    for key, position in sorted(covered.items()):
        digest.update(repr((*key, position.topic_id, position.next_offset)).encode())
    return digest.hexdigest()
