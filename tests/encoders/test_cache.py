"""The memory of vectors: bounded, and by content."""

import numpy as np
import pytest

from penchant.encoders.cache import VectorCache, keys_of, size


def test_what_was_asked_for_longest_ago_is_dropped_first():
    """The bound holds always, and what is asked for stays."""
    vector = np.zeros(10, np.float32)
    cache = VectorCache(3 * size(vector))
    for key in (b"a", b"b", b"c"):
        cache.put(key, vector)
    assert cache.get(b"a") is not None
    cache.put(b"d", vector)
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.get(key) is not None] == [b"a", b"c", b"d"]
    assert len(cache) == 3


def test_without_room_nothing_is_kept():
    """A capacity of nothing, or less than one vector, is no error."""
    for capacity in (0, 10):
        cache = VectorCache(capacity)
        cache.put(b"a", np.zeros(10, np.float32))
        assert cache.get(b"a") is None


def test_a_vector_kept_holds_nothing_else():
    """A row of a large batch is kept without the batch, and as it was."""
    batch = np.ones((1_000, 4), np.float32)
    cache = VectorCache(10_000)
    cache.put(b"a", batch[0])
    batch[:] = 2
    kept = cache.get(b"a")
    assert kept.base is None
    assert kept == pytest.approx(np.ones(4))


def test_keys_tell_contents_and_modalities_apart():
    """Equal content has one key; another content, or the same bytes of another modality, has another."""
    [text, other] = keys_of("text", ["a", "b"])
    assert keys_of("text", ["a"]) == [text]
    assert len({text, other, *keys_of("image", [b"a"]), *keys_of("audio", [b"a"]), *keys_of("text", ["\ud800"])}) == 5
