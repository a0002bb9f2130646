"""Names: which point stands for a user, which for an item, and which items a user's own events make.

The store never sees a user id as a point id: a keyed hash stands for it, so that ids cannot be guessed from a
copy of the store without the key. Posts and uploads name items in a space of their own, `~<author>/<name>`, so
that no user can overwrite the catalogue or another user's items.
"""

import hashlib
from functools import lru_cache
from uuid import UUID

__all__ = ["OWN_PREFIX", "Identity", "item_point", "position_point"]

OWN_PREFIX = "~"


class Identity:
    """Hashes user ids under one key.

    Args:
        key: any text; whoever knows it can tell which point belongs to a user id.
    """

    def __init__(self, key: str) -> None:
        self._key = hashlib.blake2b(key.encode(), digest_size=32).digest()

    def user_point(self, user: str) -> UUID:
        """The id of the point that holds a user's profile."""
        return UUID(bytes=self._hash(user, 16, b"user"))

    def author(self, user: str) -> str:
        """The name that stands for a user in the ids and payloads of items, which others get to see."""
        return self._hash(user, 9, b"author").hex()

    def own_item(self, user: str, name: str) -> str:
        """The id of an item that a user's own post or upload makes; `name` is unique to that user only."""
        return f"{OWN_PREFIX}{self.author(user)}/{name}"

    def owns(self, user: str, item_id: str) -> bool:
        """Whether an item is one that a user's own post or upload has made."""
        return item_id.startswith(OWN_PREFIX) and item_id.startswith(self.own_item(user, ""))

    @property
    def fingerprint(self) -> str:
        """Stands for the key: a store keyed otherwise holds profiles that this key cannot find."""
        return hashlib.blake2b(self._key, digest_size=4, person=b"fingerprint").hexdigest()

    def _hash(self, user: str, size: int, person: bytes) -> bytes:
        return hashlib.blake2b(user.encode(), key=self._key, digest_size=size, person=person).digest()


@lru_cache(65_536)
def item_point(item_id: str) -> UUID:
    """The id of the point that holds an item; remembered, for a list asks for hundreds of them."""
    return UUID(bytes=hashlib.blake2b(item_id.encode(), digest_size=16, person=b"item").digest())


def position_point(group: str, topic: str, partition: int) -> UUID:
    """The id of the point that holds how far a consumer group's partition is covered by the store."""
    name = f"{group}\0{topic}\0{partition}"
    return UUID(bytes=hashlib.blake2b(name.encode(), digest_size=16, person=b"position").digest())
