"""Which items a user has met, however long ago: a Bloom filter (Bloom, CACM 1970) whose union is bitwise or.

Every signal's item is added when the signal is merged, so what the filter holds does not depend on the order of
events either. A false positive keeps an item from being recommended; nothing else is ever decided by it.
"""

import hashlib
import zlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

__all__ = ["HASHES", "SeenItems", "hashed"]

SPARSE = 32  # bits for each that is set: more than so compress to less than half
AS_IT_IS = b"\0"  # before a filter that is not compressed: what zlib writes begins otherwise
# What zlib makes room for, as exponents. Preparing its usual 256 KB takes ten times as long as compressing a filter, in
# which nothing is to be found but zeros.
WINDOW, MEMORY = 12, 5
HASHES = 7  # 16,384 bits hold 1,700 items at 1% false positives


class SeenItems(Struct, frozen=True):
    """A set of item ids that only grows.

    Attributes:
        size: bits; at most 65,536.
        bits: the filter as one integer.
    """

    size: int
    bits: int = 0

    def adding(self, items: Iterable[str]) -> "SeenItems":
        """This set and `items`."""
        bits = self.bits
        for item in set(items):
            bits |= mask(item, self.size)
        return self if bits == self.bits else SeenItems(self.size, bits)

    def union(self, other: "SeenItems") -> "SeenItems":
        """Both sets; filters of different sizes cannot be joined."""
        if self.size != other.size:
            raise ValueError(f"filters of {self.size} and {other.size} bits cannot be joined")
        return SeenItems(self.size, self.bits | other.bits)

    def __repr__(self) -> str:
        return f"SeenItems(size={self.size}, ones={self.bits.bit_count()})"  # Python refuses to print so long a number

    def __contains__(self, item: str) -> bool:
        wanted = mask(item, self.size)
        return self.bits & wanted == wanted

    def lacking(self, items: NDArray[np.uint32]) -> NDArray[np.bool_]:
        """Which of n items are not in the set.

        Args:
            items: as `hashed` gives them, shape (n, `HASHES`).
        """
        flags = np.unpackbits(np.frombuffer(self.bits.to_bytes(self.size // 8, "little"), np.uint8), bitorder="little")
        found: NDArray[np.bool_] = flags[items % np.uint32(self.size)].min(axis=1) == 0
        return found

    def pack(self) -> bytes:
        """The filter as bytes; mostly empty filters are small, and fuller ones hardly worth compressing."""
        raw = self.bits.to_bytes(self.size // 8, "little")
        if self.bits.bit_count() * SPARSE >= self.size:
            return AS_IT_IS + raw
        packer = zlib.compressobj(1, zlib.DEFLATED, WINDOW, MEMORY, zlib.Z_RLE)
        return packer.compress(raw) + packer.flush()

    @classmethod
    def unpack(cls, packed: bytes) -> "SeenItems":
        """The inverse of `pack`."""
        raw = packed[1:] if packed.startswith(AS_IT_IS) else zlib.decompress(packed)
        return cls(len(raw) * 8, int.from_bytes(raw, "little"))


def hashed(items: Iterable[str]) -> NDArray[np.uint32]:
    """What `SeenItems.lacking` asks of items, shape (n, `HASHES`)."""
    return np.frombuffer(b"".join(map(digest, items)), "<u4").reshape(-1, HASHES)


@lru_cache(maxsize=65_536)
def mask(item: str, size: int) -> int:
    """The bits that stand for an item: `HASHES` positions below `size`, from one digest."""
    bits = 0
    for place in np.frombuffer(digest(item), "<u4").tolist():
        bits |= 1 << place % size
    return bits


@lru_cache(maxsize=65_536)
def digest(item: str) -> bytes:
    """What an item's positions are made of."""
    return hashlib.blake2b(item.encode(), digest_size=4 * HASHES, person=b"seen").digest()
