"""The state of a user: two bounded sets of signals and the items seen. All of it joins; none of it counts."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import msgspec
from msgspec import Struct

from penchant.profile.seen import SeenItems
from penchant.profile.signals import Signal, Strength, joined

__all__ = ["Limits", "ProfileState", "UnknownStateVersion", "of_strength"]

STATE_VERSION = 1


class UnknownStateVersion(ValueError):
    """A stored state was written by a newer penchant."""


class Limits(Struct, frozen=True, kw_only=True):
    """The bounds of a state: newest signals kept by strength, and bits of the filter of seen items."""

    strong: int
    weak: int
    seen_bits: int


class ProfileState(Struct, frozen=True, kw_only=True, dict=True):
    """What is known of a user. Signals are newest first, by (time, event id)."""

    strong: tuple[Signal, ...] = ()
    weak: tuple[Signal, ...] = ()
    seen: SeenItems

    @classmethod
    def empty(cls, limits: Limits) -> "ProfileState":
        """The state of a user of whom nothing is known."""
        return cls(seen=SeenItems(limits.seen_bits))

    def adding(self, signals: Sequence[Signal], limits: Limits) -> "ProfileState":
        """This state joined with further signals."""
        return ProfileState(
            strong=joined(self.strong, of_strength(signals, Strength.STRONG), limit=limits.strong),
            weak=joined(self.weak, of_strength(signals, Strength.WEAK), limit=limits.weak),
            seen=self.seen.adding(signal.item_id for signal in signals),
        )

    def cut(self, limits: Limits) -> "ProfileState":
        """The newest signals of this state."""
        return ProfileState(strong=self.strong[: limits.strong], weak=self.weak[: limits.weak], seen=self.seen)

    def joined(self, other: "ProfileState", limits: Limits) -> "ProfileState":
        """This state joined with another."""
        return ProfileState(
            strong=joined(self.strong, other.strong, limit=limits.strong),
            weak=joined(self.weak, other.weak, limit=limits.weak),
            seen=self.seen.union(other.seen),
        )

    @cached_property
    def signals(self) -> tuple[Signal, ...]:
        """All signals, strong ones first."""
        return self.strong + self.weak

    def newest_first(self) -> Iterator[Signal]:
        """All signals, newest first; of two of one moment the weak one."""
        strong, weak = iter(self.strong), iter(self.weak)
        one, other = next(strong, None), next(weak, None)
        while one is not None and other is not None:
            if one.time > other.time or (one.time == other.time and one.event_id > other.event_id):
                yield one
                one = next(strong, None)
            else:
                yield other
                other = next(weak, None)
        yield from (signal for signal in (one, other) if signal is not None)
        yield from strong
        yield from weak

    @property
    def as_of(self) -> int:
        """The time of the newest signal, epoch milliseconds: 0 where there is none.

        Views are computed as of this time, so that they are functions of the set and of nothing else. A later
        moment scales each horizon's vector and turns none of them.
        """
        return max((part[0].time for part in (self.strong, self.weak) if part), default=0)

    def pack(self) -> bytes:
        """The state as bytes, with the version of their layout."""
        return msgspec.msgpack.encode((STATE_VERSION, self.strong, self.weak, self.seen.pack()))

    @classmethod
    def unpack(cls, packed: bytes) -> "ProfileState":
        """The inverse of `pack`.

        Raises:
            UnknownStateVersion: a newer penchant wrote it.
        """
        version, strong, weak, seen = DECODER.decode(packed)
        if version != STATE_VERSION:
            raise UnknownStateVersion(f"stored state of version {version}; this penchant reads {STATE_VERSION}")
        return cls(strong=strong, weak=weak, seen=SeenItems.unpack(seen))


DECODER = msgspec.msgpack.Decoder(tuple[int, tuple[Signal, ...], tuple[Signal, ...], bytes])


def of_strength(signals: Iterable[Signal], strength: Strength) -> list[Signal]:
    """Those of one strength."""
    return [signal for signal in signals if signal.strength is strength]
