"""Which events have been told of already, so that each makes one transition: no more, whoever sends it again.

A profile's signals need no such memory, for they join; a count does. A record is the *first* of its event unless one
of the last `MEMORY` first ones of the same user told of it. That is a rule about the log and about nothing else, not
about the newest signals by time, nor about batches: whoever reads the log anew from anywhere decides as before.

A crash makes a lane read records again of which the store already knows. Whether such a record was a first one cannot
be found out by the rule any more, for others have come since; it is looked up. Therefore a first one is remembered
for as long as the group has not committed it, beyond `MEMORY` where need be. What was committed was published.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import msgspec
from msgspec import Struct

from penchant.profile.signals import Signal

__all__ = ["MEMORY", "Origin", "Telling", "Told", "telling_of"]

MEMORY = 128

Origin = tuple[str, int]  # topic, partition


class Telling(Struct, frozen=True, array_like=True, gc=False):
    """A record that tells of an event.

    Attributes:
        event: stands for the event's id, 64 bits.
        topic: of the record; so are
        partition: and
        offset.
    """

    event: int
    topic: str
    partition: int
    offset: int

    @property
    def origin(self) -> Origin:
        """Where its offset counts."""
        return self.topic, self.partition


class Told(Struct, frozen=True, gc=False):
    """What a user's records have told of.

    Attributes:
        heard: by origin, the offset behind the last record that was heard.
        firsts: the last first records, in the order of hearing.
    """

    heard: Mapping[Origin, int] = {}
    firsts: tuple[Telling, ...] = ()

    def hearing(self, tellings: Sequence[Telling], settled: Mapping[Origin, int]) -> tuple["Told", set[Telling]]:
        """What has been told of after further records.

        Args:
            tellings: in order within each origin; from any offset on, whether heard before or not.
            settled: by origin, the offset behind the last record that the group has committed.

        Returns:
            It, and those of `tellings` that are the first of their event.
        """
        heard, firsts = dict(self.heard), list(self.firsts)
        latest = {one.event: number for number, one in enumerate(firsts)} if tellings else {}
        found: set[Telling] = set()
        known: set[Telling] = set()  # looked at where something is heard again
        for telling in tellings:
            origin = telling.origin
            if telling.offset < heard.get(origin, 0):
                known = known or set(self.firsts)
                if telling in known:
                    found.add(telling)
                continue
            heard[origin] = telling.offset + 1
            before = latest.get(telling.event)
            if before is None or before < len(firsts) - MEMORY:
                latest[telling.event] = len(firsts)
                firsts.append(telling)
                found.add(telling)
        if heard == self.heard:
            return self, found
        old = max(0, len(firsts) - MEMORY)
        owed = [one for one in firsts[:old] if one.offset >= settled.get(one.origin, 0)]
        return Told(heard, (*owed, *firsts[old:])), found

    def pack(self) -> bytes:
        """It as bytes."""
        numbers = {origin: number for number, origin in enumerate(self.heard)}
        origins = [(*origin, offset) for origin, offset in self.heard.items()]
        if len(origins) == 1:  # as it is for nearly everybody
            return msgspec.msgpack.encode((origins, [(one.event, 0, one.offset) for one in self.firsts]))
        return msgspec.msgpack.encode((origins, [(one.event, numbers[one.origin], one.offset) for one in self.firsts]))

    @classmethod
    def unpack(cls, packed: bytes) -> "Told":
        """The inverse of `pack`."""
        origins, firsts = DECODER.decode(packed)
        return cls(
            {(topic, partition): offset for topic, partition, offset in origins},
            tuple(Telling(event, *origins[number][:2], offset) for event, number, offset in firsts),
        )


DECODER = msgspec.msgpack.Decoder(tuple[tuple[tuple[str, int, int], ...], tuple[tuple[int, int, int], ...]])


def telling_of(signal: Signal, origin: Origin, offset: int) -> Telling:
    """The record that told of a signal."""
    event = int.from_bytes(blake2b(signal.event_id.encode(), digest_size=8, person=b"event").digest(), "little")
    return Telling(event, *origin, offset)
