"""Vectors of what was encoded lately, by the content of the inputs: the same picture is encoded once."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penchant.encoders.base import Query, Whole

__all__ = ["VectorCache", "keys_of"]

KEY_BYTES = 16
OVERHEAD_BYTES = 300  # of an entry beside its numbers: the key, the array and their places

Vector = NDArray[np.float32]


def keys_of(modality: str, inputs: Sequence[str | Query | bytes | Whole]) -> list[bytes]:
    """What stands for inputs of a modality: digests, for which nobody finds two contents."""
    return [key_of(modality, one) for one in inputs]


def key_of(modality: str, one: str | Query | bytes | Whole) -> bytes:
    """What stands for an input; for a text that asks something else, since its vector may be another."""
    if isinstance(one, Query):
        return key_of(f"{modality}-query", one.text)
    if isinstance(one, Whole):
        return key_of(modality, b"".join(key_of(part, content) for part, content in one.parts))
    content = one.encode(errors="surrogatepass") if isinstance(one, str) else one
    return hashlib.blake2b(content, digest_size=KEY_BYTES, person=modality.encode()).digest()


class VectorCache:
    """The vectors asked for last, within a bound of memory.

    Args:
        capacity: bytes that they may occupy; 0: nothing is kept.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held = 0
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> Vector | None:
        """The vector of a key, if it is still there."""
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: Vector) -> None:
        """Keeps a vector, at the cost of those not asked for longest."""
        if key in self._vectors:
            return
        # A copy: a row would keep the whole of what it was computed with.
        self._vectors[key] = vector.copy()
        self._held += size(vector)
        while self._held > self._capacity:
            _, dropped = self._vectors.popitem(last=False)
            self._held -= size(dropped)


def size(vector: Vector) -> int:
    """Bytes that a vector takes here."""
    return vector.nbytes + OVERHEAD_BYTES
