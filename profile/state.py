"""The state of a user: two bounded sets of signals and the items seen. All of it joins; none of it counts."""

from array import array
from collections.abc import Iterable, Sequence
from functools import cached_property

import msgspec
from cramjam import lz4
from msgspec import Struct

from penchant.profile.seen import SeenItems
from penchant.profile.signals import WEAK_ACTIONS, Signal, joined, kept_run

__all__ = ["Limits", "ProfileState", "UnknownStateVersion"]

STATE_VERSION = 2  # of 1 the filter of items seen is always compressed, and the whole never; all else is the same
READABLE = frozenset({1, 2})
COMPRESSED = b"L"  # before LZ4: what is not compressed is a msgpack array, and begins otherwise
WORTH_COMPRESSING = (
    1_024  # bytes; of full sets it leaves a half, and a byte that is not written saves more than that takes
)


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
        strong: list[Signal] = []
        weak: list[Signal] = []
        for signal in signals:
            (weak if signal.action in WEAK_ACTIONS else strong).append(signal)
        return ProfileState(
            strong=joined(self.strong, strong, limit=limits.strong),
            weak=joined(self.weak, weak, limit=limits.weak),
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

    @property
    def as_of(self) -> int:
        """The time of the newest signal, epoch milliseconds: 0 where there is none.

        Views are computed as of this time, so that they are functions of the set and of nothing else. A later
        moment scales each horizon's vector and turns none of them.
        """
        return max((part[0].time for part in (self.strong, self.weak) if part), default=0)

    def pack(self) -> bytes:
        """The state as bytes, with the version of their layout; larger ones compressed, for they are written often."""
        seen = msgspec.msgpack.encode(self.seen.pack())
        plain = b"".join((HEAD, *(part for packed in self.packed for part in (packed.head, packed.data)), seen))
        return plain if len(plain) < WORTH_COMPRESSING else COMPRESSED + bytes(lz4.compress_block(plain))

    @cached_property
    def packed(self) -> tuple["Packed", "Packed"]:
        """The signals as bytes, by strength."""
        return Packed.of(self.strong), Packed.of(self.weak)

    def take_over(self, before: "ProfileState") -> None:
        """Takes over the bytes of the signals that this state shares with one before it, if that has them."""
        if before is not self and "packed" in before.__dict__:
            strong, weak = before.packed
            self.__dict__["packed"] = (
                strong.followed(before.strong, self.strong),
                weak.followed(before.weak, self.weak),
            )

    @classmethod
    def unpack(cls, packed: bytes) -> "ProfileState":
        """The inverse of `pack`.

        Raises:
            UnknownStateVersion: a newer penchant wrote it.
        """
        plain = bytes(lz4.decompress_block(packed[1:])) if packed.startswith(COMPRESSED) else packed
        version, strong, weak, seen = DECODER.decode(plain)
        if version not in READABLE:
            raise UnknownStateVersion(f"stored state of version {version}; this penchant reads {STATE_VERSION}")
        return cls(strong=strong, weak=weak, seen=SeenItems.unpack(seen))


class Packed(Struct, frozen=True, eq=False, gc=False):
    """Signals as bytes, one behind the other. Those of one who is active hardly differ from one time to the next.

    Attributes:
        data: the bytes.
        sizes: how many each signal has of them.
    """

    data: bytes
    sizes: "array[int]"

    @classmethod
    def of(cls, signals: Iterable[Signal]) -> "Packed":
        """Encodes all."""
        parts = [ENCODER.encode(signal) for signal in signals]
        return cls(b"".join(parts), array("I", map(len, parts)))

    def followed(self, before: tuple[Signal, ...], after: tuple[Signal, ...]) -> "Packed":
        """Those of the signals `after`, where these are of those `before`: encodes what has joined."""
        if after is before:
            return self
        joined, stayed = kept_run(before, after)
        gone = sum(self.sizes[stayed:])
        front = Packed.of(after[:joined])
        return Packed(front.data + self.data[: len(self.data) - gone], front.sizes + self.sizes[:stayed])

    @property
    def head(self) -> bytes:
        """What comes before them where they are a msgpack array."""
        count = len(self.sizes)
        return bytes([0x90 | count]) if count < 16 else b"\xdd" + count.to_bytes(4, "big")  # noqa: PLR2004  its two forms


ENCODER = msgspec.msgpack.Encoder()
HEAD = ENCODER.encode((STATE_VERSION, None, None, None))[:2]  # of an array of four, of which this is the first
DECODER = msgspec.msgpack.Decoder(tuple[int, tuple[Signal, ...], tuple[Signal, ...], bytes])
