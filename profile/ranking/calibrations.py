"""The calibration in force: made once, when the catalogue has grown enough to speak for itself, and the same for all.

It is kept in the store, in a collection of its own, and written only where there is none: of several workers that
calibrate at once the first one's stands, and the others take it.
"""

import asyncio
import base64
import hashlib
from uuid import UUID

import msgspec
import numpy as np
from msgspec import Struct

from penchant.profile.fusion import Space
from penchant.profile.items import Items
from penchant.profile.ranking.whitening import Calibration, Whitening, calibrate
from penchant.profile.store.base import TOKEN, CollectionLayout, Point, Store, Write, new_token

__all__ = ["Calibrations"]

UNUSED = {"unused": 1}  # the engines want a collection to have a vector, even where no point has one
MOST_ITEMS = 20_000  # that are looked at: many times the components of a slice
SLICES = "slices"
POINT = UUID(bytes=hashlib.blake2b(b"calibration", digest_size=16).digest())


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
        found = await self._store.retrieve(self._collection, [POINT])
        if POINT not in found:
            return None
        packed = DECODER.decode(base64.b64decode(found[POINT].payload[SLICES]))
        return Calibration({one.name: unpacked(one) for one in packed})

    async def _make(self) -> None:
        vectors = [vector async for vector in self._items.contents(most=MOST_ITEMS)]
        if not vectors:
            return
        made = await asyncio.to_thread(calibrated, self._items.space, np.stack(vectors))
        if not made.slices:
            return
        packed = [Packed(name, one.mean.tobytes(), one.map.tobytes()) for name, one in made.slices.items()]
        payload = {SLICES: base64.b64encode(msgspec.msgpack.encode(packed)).decode(), TOKEN: new_token()}
        await self._store.write(self._collection, [Write(point=Point(id=POINT, payload=payload), expected=None)])


DECODER = msgspec.msgpack.Decoder(tuple[Packed, ...])


def calibrated(space: Space, vectors: np.ndarray) -> Calibration:
    """The calibration of stored content, shape (n, d of the space)."""
    return calibrate(Calibration().split(space, vectors))


def unpacked(packed: Packed) -> Whitening:
    """Reads a whitening back."""
    mean = np.frombuffer(packed.mean, "<f4")
    return Whitening(mean=mean, map=np.frombuffer(packed.map, "<f4").reshape(len(mean), -1))
