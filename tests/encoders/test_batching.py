"""Batches: what they hold, that nobody waits in vain, and what becomes of them where memory runs out."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.encoders.base import FixedEncoder, Host, Undecodable
from penchant.encoders.batching import Batcher, Passes, micro_batches


class Spelled(FixedEncoder[str, str, np.ndarray]):
    """Words as the codes of their first two letters: an encoder that remembers its passes.

    Args:
        memory: largest padded size of a pass; more is out of memory.
    """

    dimension = 2
    fingerprint = "spelled"
    budget = 16
    ahead = 64

    def __init__(self, memory=1_000, error=MemoryError):
        self.memory, self.error, self.passes = memory, error, []

    def prepare(self, one):
        """A word as it is."""
        if not one:
            raise Undecodable("nothing", reason="empty")
        return one

    def size(self, prepared):
        """Letters."""
        return len(prepared)

    def forward(self, batch):
        """Codes of the letters."""
        self.passes.append(list(batch))
        if len(batch) * max(map(len, batch)) > self.memory:
            raise self.error("DefaultCPUAllocator: not enough memory")
        return np.array([[ord(word[0]), ord(word[-1])] for word in batch], np.float32)

    def finish(self, raw):
        """As they are."""
        return raw


def expected(words):
    """What `Spelled` gives for words."""
    return [[ord(word[0]), ord(word[-1])] for word in words]


@pytest.fixture
def batched():
    """Builds a batcher of an encoder, with threads of its own."""
    pools = [ThreadPoolExecutor(2), ThreadPoolExecutor(1)]
    yield lambda encoder, wait_s=0.0: Batcher(encoder, Host(), pool=pools[0], device=pools[1], wait_s=wait_s)
    for pool in pools:
        pool.shutdown()


@given(sizes=st.lists(st.integers(1, 256)), budget=st.integers(1, 2_000))
@settings(deadline=None)
def test_micro_batches_hold_every_input_once_and_keep_the_budget(sizes, budget):
    """Micro-batches are a partition, smallest first, none padded beyond the budget unless it is one input."""
    batches = list(micro_batches(sizes, budget))
    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(sizes)))
    assert [sizes[place] for place in places] == sorted(sizes)
    assert all(len(batch) * sizes[batch[-1]] <= budget or len(batch) == 1 for batch in batches)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_out_of_memory_halves_the_batch(error):
    """All inputs have their vectors, in order, in smaller passes; what comes later is not tried as large again."""
    encoder = Spelled(memory=5, error=error)
    passes = Passes(encoder, Host())
    words = ["ab", "c", "defg", "hi", "j", "kl"]
    assert passes(words).tolist() == expected(words)
    encoder.passes.clear()
    assert passes(words).tolist() == expected(words)
    assert all(len(batch) * max(map(len, batch)) <= 5 for batch in encoder.passes)


def test_one_input_that_does_not_fit_is_an_error():
    """What cannot be halved any more fails as it failed; nothing loops."""
    with pytest.raises(MemoryError):
        Passes(Spelled(memory=2), Host())(["ab", "c", "defg"])


def test_other_failures_are_not_tried_again():
    """A pass that fails for another reason is not halved."""

    class Broken(Spelled):
        def forward(self, batch):
            self.passes.append(batch)
            raise RuntimeError("the device is lost")

    encoder = Broken()
    with pytest.raises(RuntimeError, match="the device is lost"):
        Passes(encoder, Host())(["ab", "cd"])
    assert len(encoder.passes) == 1


@pytest.mark.parametrize("count", [0, 1, 7, 64, 500])
async def test_outcomes_come_in_order(batched, count):
    """Each input has its own outcome, refused ones among them, however many there are."""
    words = ["" if number % 5 == 3 else f"{chr(97 + number % 26)}{'x' * (number % 9)}" for number in range(count)]
    outcomes = await batched(Spelled()).encode(words)
    assert [None if isinstance(one, Undecodable) else one.tolist() for one in outcomes] == [
        expected([word])[0] if word else None for word in words
    ]


async def test_events_at_one_time_share_passes(batched):
    """Inputs of many who ask at once are forwarded together, within a wait that is bounded."""
    encoder = Spelled()
    batcher = batched(encoder, wait_s=0.5)
    outcomes = await asyncio.gather(
        *(batcher.encode([word]) for word in ("ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"))
    )
    assert [one.tolist() for [one] in outcomes] == expected(["ab", "cd", "ef", "gh", "ij", "kl", "mn", "op"])
    assert len(encoder.passes) == 1


async def test_a_failed_pass_fails_those_in_it_and_no_one_after(batched):
    """Who waits for a failed pass is told; the next who ask are served."""
    encoder = Spelled(memory=3)
    batcher = batched(encoder)
    with pytest.raises(MemoryError):
        await batcher.encode(["abcdef"])
    assert [one.tolist() for one in await batcher.encode(["ab"])] == expected(["ab"])


async def test_what_fails_beside_a_pass_leaves_nobody_waiting(batched):
    """Whoever waits is told what failed, or served; there is room for the next who ask."""

    class Unmeasured(Spelled):
        def size(self, prepared):
            if "?" in prepared:
                raise ZeroDivisionError("no size")
            return len(prepared)

    batcher = batched(Unmeasured(), wait_s=0.2)
    async with asyncio.timeout(10):
        for _ in range(Unmeasured.ahead):
            asked = [batcher.encode([word]) for word in ("ab", "?", "cd")]
            _, unmeasured, _ = await asyncio.gather(*asked, return_exceptions=True)
            assert isinstance(unmeasured, ZeroDivisionError)
        assert [one.tolist() for one in await batcher.encode(["ab"])] == expected(["ab"])


async def test_who_waits_for_passes_that_end_is_told(batched):
    """Where the task of the passes is cancelled, so are those who wait for it."""
    measured = asyncio.Event()

    class Watched(Spelled):
        def size(self, prepared):
            measured.set()
            return len(prepared)

    batcher = batched(Watched(), wait_s=60)
    asking = asyncio.create_task(batcher.encode(["ab"]))
    await measured.wait()
    batcher._passing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asking, 10)


async def test_no_more_is_prepared_than_may_wait(batched):
    """While a pass runs, at most `ahead` inputs are prepared beside those in it."""
    held = []

    class Watched(Spelled):
        ahead = 16
        taken = 0

        def prepare(self, one):
            held.append(one)
            return one

        def forward(self, batch):
            assert len(held) - self.taken <= 2 * self.ahead
            self.taken += len(batch)
            return super().forward(batch)

    encoder = Watched()
    assert len(await batched(encoder).encode([f"word{number}" for number in range(300)])) == 300
    assert encoder.taken == 300
