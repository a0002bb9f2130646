"""The calibration in force: made once, when the catalogue has grown enough to speak for itself, and the same for all.

It is kept in the store, in a collection of its own, and written only where there is none: of several workers that
calibrate at once the first one's stands, and the others take it. It is made anew when a person asks for that, and
whoever compares by it looks now and then whether it is another.
"""

import asyncio
import base64
import hashlib
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Struct

from penchant.errors import PenchantError
from penchant.profile.fusion import Space
from penchant.profile.items import Items
from penchant.profile.ranking.whitening import Calibration, Whitening, calibrate
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, Store, StoreUnavailable, Write, new_token

__all__ = ["Calibrations", "Recalibration", "TooFewItems"]

UNUSED = {"unused": 1}  # the engines want a collection to have a vector, even where no point has one
MOST_ITEMS = 20_000  # that are looked at: many times the components of a slice
SLICES = "slices"
POINT = UUID(bytes=hashlib.blake2b(b"calibration", digest_size=16).digest())


class TooFewItems(PenchantError):
    """No slice has items enough to be calibrated by."""


class Recalibration(Struct, frozen=True, kw_only=True):
    """A calibration that has taken another's place.

    Attributes:
        before: fingerprint of the one before; empty: there was none.
        now: of the one in force.
        items: that it was made of.
        slices: those that are centred and whitened.
    """

    before: str
    now: str
    items: int
    slices: tuple[str, ...]


class Packed(Struct, frozen=True, array_like=True):
    """A slice's whitening as it is stored: float32, little-endian."""

    name: str
    mean: bytes
    map: bytes


class Calibrations:
    """The calibration of a store.

    Args:
        store: holds the collection, opened with `layout`.
        collection: its name.
        items: that it is made of.
    """

    def __init__(self, store: Store, collection: str, items: Items) -> None:
        self._store = store
        self._collection = collection
        self._items = items

    @property
    def layout(self) -> CollectionLayout:
        """What the collection holds."""
        return CollectionLayout(
            name=self._collection, vectors=UNUSED, indexes={}, fingerprint=self._items.space.fingerprint
        )

    async def in_force(self, at_least: int) -> Calibration | None:
        """The calibration; made now if there is none and the catalogue has so many listed items; else None.

        None is made either while no slice has twice as many items as components.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        known = await self.known()
        if known is None and await self._items.count() >= at_least:
            await self._make()
            known = await self.known()
        return known

    async def known(self) -> Calibration | None:
        """The calibration, if there is one.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        found = await self._load()
        return None if found is None else calibration_of(found)

    async def token(self) -> int | None:
        """Changes whenever the calibration does; None: there is none.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        found = await self._store.retrieve(self._collection, [POINT], payload=(TOKEN,))
        return found[POINT].token if POINT in found else None

    async def renew(self) -> Recalibration:
        """Makes a calibration of the catalogue as it is, and puts it in force.

        Raises:
            TooFewItems: no slice has twice as many items as components.
            StoreUnavailable: the store does not answer, or somebody else has just put one in force.
        """
        known = await self._load()
        made, items = await self._made()
        if not made.slices:
            raise TooFewItems(
                f"{items} listed items say too little of a catalogue",
                hint="A slice needs twice as many of them as it has components.",
            )
        if not await self._store.write(self._collection, [written(made, None if known is None else known.token)]):
            raise StoreUnavailable("another calibration was put in force meanwhile", hint="Try again.")
        before = "" if known is None else calibration_of(known).fingerprint
        return Recalibration(before=before, now=made.fingerprint, items=items, slices=tuple(made.slices))

    async def _load(self) -> Point | None:
        return (await self._store.retrieve(self._collection, [POINT])).get(POINT)

    async def _make(self) -> None:
        made, _ = await self._made()
        if made.slices:
            await self._store.write(self._collection, [written(made, None)])

    async def _made(self) -> tuple[Calibration, int]:
        """A calibration of the catalogue as it is, and of how many items."""
        vectors = [vector async for vector in self._items.contents(most=MOST_ITEMS)]
        if not vectors:
            return Calibration(), 0
        return await asyncio.to_thread(calibrated, self._items.space, np.stack(vectors)), len(vectors)


DECODER = msgspec.msgpack.Decoder(tuple[Packed, ...])


def calibration_of(point: Point) -> Calibration:
    """Reads a calibration back."""
    packed = DECODER.decode(base64.b64decode(point.payload[SLICES]))
    return Calibration({one.name: unpacked(one) for one in packed})


def written(made: Calibration, expected: int | None) -> Write:
    """What puts a calibration in the place of the one that has a token; None: in the place of none."""
    packed = [Packed(name, one.mean.tobytes(), one.map.tobytes()) for name, one in made.slices.items()]
    payload = {SLICES: base64.b64encode(msgspec.msgpack.encode(packed)).decode(), TOKEN: new_token()}
    return Write(point=Point(id=POINT, payload=payload), expected=expected)


def calibrated(space: Space, vectors: np.ndarray) -> Calibration:
    """The calibration of stored content, shape (n, d of the space)."""
    return calibrate(Calibration().split(space, vectors))


def unpacked(packed: Packed) -> Whitening:
    """Reads a whitening back."""
    mean = np.frombuffer(packed.mean, "<f4")
    return Whitening(mean=mean, map=np.frombuffer(packed.map, "<f4").reshape(len(mean), -1))
