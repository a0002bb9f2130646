"""Which users are verified: all, some by name, or a sample."""

import hashlib
import heapq
from collections.abc import Iterable
from typing import Protocol

__all__ = ["Choice", "Everyone", "Named", "Sample", "choose"]


class Choice(Protocol):
    """Chooses users as they are met, in the store and in the log."""

    def may(self, user: str) -> bool:
        """Whether a user may be chosen, so that a record with this key is worth reading."""

    def admit(self, user: str) -> bool:
        """Whether a user is chosen as far as one can tell now."""

    def stands(self, user: str) -> bool:
        """Whether a user who was admitted is still chosen now that all have been met."""


class Everyone:
    """All users."""

    def may(self, user: str) -> bool:  # noqa: ARG002  the protocol's signature
        """Anybody."""
        return True

    admit = stands = may


class Named:
    """The users named."""

    def __init__(self, users: Iterable[str]) -> None:
        self.users = frozenset(users)

    def may(self, user: str) -> bool:
        """Those named."""
        return user in self.users

    admit = stands = may


class Sample:
    """The `size` users whose hashes are smallest: the same ones in whatever order users are met, one pass and no list.

    So a user whom the store has lost altogether is as likely to be looked at as any other.

    Args:
        size: of the sample.
        seed: another one samples others.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.key = seed.to_bytes(8, "big", signed=True)
        self.ranks: dict[str, int] = {}
        self.largest: list[tuple[int, str]] = []  # a heap of negated ranks

    def rank(self, user: str) -> int:
        """Where a user stands among all."""
        return int.from_bytes(hashlib.blake2b(user.encode(), digest_size=8, key=self.key).digest(), "big")

    def may(self, user: str) -> bool:
        """Whether a user is in the sample, or would come into it."""
        return user in self.ranks or len(self.ranks) < self.size or self.rank(user) < -self.largest[0][0]

    def admit(self, user: str) -> bool:
        """Takes a user into the sample if that is where it belongs."""
        if not self.may(user):
            return False
        if user not in self.ranks:
            self.ranks[user] = self.rank(user)
            heapq.heappush(self.largest, (-self.ranks[user], user))
            if len(self.ranks) > self.size:
                del self.ranks[heapq.heappop(self.largest)[1]]
        return user in self.ranks

    def stands(self, user: str) -> bool:
        """Whether a user is in the sample."""
        return user in self.ranks


def choose(users: Iterable[str] | None, sample: int | None, seed: int) -> Choice:
    """Those named, else a sample, else everyone."""
    if users is not None:
        return Named(users)
    return Everyone() if sample is None else Sample(sample, seed)
