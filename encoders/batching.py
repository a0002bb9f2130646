"""Inputs of several events encoded together: prepared in threads, forwarded on the device in batches of one size.

While a forward pass runs, what arrives is prepared and waits; the next pass takes all of it, the sooner the busier
the device is, and an idle one waits a few milliseconds at most. What waits together is sorted by size (a text's
tokens), and forwarded in micro-batches that a budget bounds, so that little is computed on padding.

Where memory runs out, a batch is halved and tried again, down to a single input; the budget stays halved.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain
from typing import Any, Generic, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from penchant.encoders.base import Encoder, Host, Query, Undecodable, Vectors, extra

__all__ = ["Batcher", "Outcome", "Passes", "micro_batches", "prepare_all"]

# On an accelerator a pass over a thousand tokens is over before the next can be started.
ACCELERATED = 16
JOBS = 8  # that what waits at most is prepared in: few enough that handing them to threads costs nothing

Input = TypeVar("Input")
Prepared = TypeVar("Prepared")
Vector = NDArray[np.float32]
Outcome = Vector | Undecodable
Waiting = tuple[list[Prepared], asyncio.Future[Vectors]]

log = structlog.get_logger()


def micro_batches(sizes: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Places in `sizes`, smallest first, in groups whose padded size keeps within the budget; a larger one is alone."""
    group: list[int] = []
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        if group and (len(group) + 1) * sizes[place] > budget:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


class Passes(Generic[Prepared]):
    """The forward passes of an encoder, for the thread that owns the device.

    Args:
        encoder: whose.
        host: the device, and whether it may compute in half precision.
    """

    def __init__(self, encoder: Encoder[Any, Prepared, Any], host: Host) -> None:
        self._encoder = encoder
        self._host = host
        self._budget = encoder.budget if host.device == "cpu" else ACCELERATED * encoder.budget

    def __call__(self, prepared: Sequence[Prepared]) -> Vectors:
        """Unit vectors of prepared inputs: shape (inputs, dimension)."""
        vectors = np.empty((len(prepared), self._encoder.dimension), np.float32)
        waiting = [list(range(len(prepared)))]
        with self._precision():
            while waiting:
                places = waiting.pop()
                for group in micro_batches([self._encoder.size(prepared[place]) for place in places], self._budget):
                    batch = [places[one] for one in group]
                    found = self._attempt([prepared[place] for place in batch])
                    if found is None:
                        waiting.append(batch)  # in two halves, by the budget that is half of what it was
                    else:
                        vectors[batch] = found
        return vectors

    @property
    def budget(self) -> int:
        """Sizes that a pass takes now."""
        return self._budget

    def filled_by(self, prepared: Iterable[Prepared]) -> bool:
        """Whether these inputs are enough for one micro-batch."""
        return sum(map(self._encoder.size, prepared)) >= self._budget

    def _attempt(self, batch: Sequence[Prepared]) -> Vectors | None:
        """The vectors of a batch; None if memory did not suffice, and a smaller batch may."""
        try:
            return self._encoder.finish(self._encoder.forward(batch))
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not ran_out_of_memory(error):
                raise
            size = sum(map(self._encoder.size, batch))
        # Past the block, whose exception held on to what the pass had taken.
        self._budget = max(1, min(self._budget, size) // 2)
        log.warning("out of memory: batches are halved", inputs=len(batch), budget=self._budget)
        if self._host.device == "cuda":
            extra("torch").cuda.empty_cache()
        return None

    def _precision(self) -> AbstractContextManager[object]:
        if not self._host.autocast or self._host.device == "cpu":
            return nullcontext()
        torch = extra("torch")
        precision: AbstractContextManager[object] = torch.autocast(self._host.device, dtype=torch.float16)
        return precision


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a pass failed for want of memory; torch has an exception for that on accelerators, and words on a CPU."""
    return isinstance(error, MemoryError) or any(
        words in str(error).lower() for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


class Batcher(Generic[Input, Prepared]):
    """Encodes the inputs of whoever asks, those of all who ask at one time together.

    Args:
        encoder: loaded.
        host: of its forward passes.
        pool: threads to prepare in.
        device: the one thread that forwards.
        wait_s: how long less than one micro-batch waits for more.
    """

    def __init__(
        self, encoder: Encoder[Input, Prepared, Any], host: Host, *, pool: Executor, device: Executor, wait_s: float
    ) -> None:
        self._encoder = encoder
        self._passes = Passes(encoder, host)
        self._pool = pool
        self._device = device
        self._wait_s = wait_s
        self._job = max(1, encoder.ahead // JOBS)
        self._room = asyncio.Semaphore(encoder.ahead // self._job)
        self._waiting: list[Waiting[Prepared]] = []
        self._more = asyncio.Event()
        self._passing: asyncio.Task[None] | None = None

    async def encode(self, inputs: Sequence[Input]) -> list[Outcome]:
        """For each input its unit vector, or why it has none.

        A forward pass that fails raises what it failed with, for all whose inputs were in it.
        """
        jobs = [inputs[start : start + self._job] for start in range(0, len(inputs), self._job)]
        return list(chain.from_iterable(await asyncio.gather(*map(self._encode, jobs))))

    async def _encode(self, job: Sequence[Input]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        await self._room.acquire()
        try:
            prepared = await loop.run_in_executor(self._pool, prepare_all, self._encoder, job)
        except BaseException:
            self._room.release()
            raise
        usable = [one for one in prepared if not isinstance(one, Undecodable)]
        if not usable:
            self._room.release()
            return [one for one in prepared if isinstance(one, Undecodable)]
        future: asyncio.Future[Vectors] = loop.create_future()
        self._waiting.append((usable, future))
        self._more.set()
        if self._passing is None:
            self._passing = loop.create_task(self._pass())
        vectors = iter(await future)
        return [one if isinstance(one, Undecodable) else next(vectors) for one in prepared]

    async def _pass(self) -> None:
        """Forwards what waits, all of it at a time, until nothing does. Whatever fails, nobody is left waiting."""
        taken: list[Waiting[Prepared]] = []
        try:
            while self._waiting:
                await self._fill()
                taken = self._take()
                await self._forward(taken)
        except BaseException as error:
            tell([*taken, *self._take()], error)
            if not isinstance(error, Exception):
                raise
        finally:
            self._passing = None

    def _take(self) -> list[Waiting[Prepared]]:
        """All that waits, which makes room for more."""
        taken, self._waiting = self._waiting, []
        for _ in taken:
            self._room.release()
        return taken

    async def _fill(self) -> None:
        """Waits a moment for more than there is, if that is less than one micro-batch."""
        give_up = time.monotonic() + self._wait_s
        while (left := give_up - time.monotonic()) > 0 and not self._passes.filled_by(
            chain.from_iterable(prepared for prepared, _ in self._waiting)
        ):
            self._more.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._more.wait()

    async def _forward(self, taken: Sequence[Waiting[Prepared]]) -> None:
        loop = asyncio.get_running_loop()
        together = [one for prepared, _ in taken for one in prepared]
        try:
            vectors = await loop.run_in_executor(self._device, self._passes, together)
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait are told
            tell(taken, error)
            return
        start = 0
        for prepared, future in taken:
            if not future.done():  # whoever asked may have gone
                future.set_result(vectors[start : start + len(prepared)])
            start += len(prepared)


def tell(waiting: Iterable[Waiting[Any]], error: BaseException) -> None:
    """Fails those who still wait."""
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)


def prepare_all(encoder: Encoder[Any, Prepared, Any], inputs: Sequence[Any]) -> list[Prepared | Undecodable]:
    """Inputs prepared one by one, or why they cannot be."""
    prepared: list[Prepared | Undecodable] = []
    for one in inputs:
        try:
            prepared.append(encoder.prepare_query(one.text) if isinstance(one, Query) else encoder.prepare(one))
        except Undecodable as refusal:
            prepared.append(refusal)
    return prepared
