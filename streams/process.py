"""A worker's process: tuned, run until a signal asks it to stop, and ended at last whatever hangs."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

import structlog
from threadpoolctl import threadpool_limits

from penchant.settings import Settings
from penchant.streams.worker import LANES, serve

__all__ = ["run_worker", "tune_process"]

log = structlog.get_logger()

LEFT_TASKS_S = 2.0
SWITCH_S = 0.001  # until a thread that waits for the interpreter gets it
# Of objects made, before the collector looks for cycles among them; and of such looks, before it looks at older ones.
COLLECT_AT = (50_000, 20, 50)
FORCE_AFTER_S = 10.0  # behind the deadline for what is in hand: for closing the store, and models that still load


def run_worker(settings: Settings, lanes: Sequence[str] = LANES) -> None:
    """Runs a worker until SIGINT or SIGTERM.

    Args:
        settings: of this process.
        lanes: which of `LANES` it runs.

    Raises:
        PenchantError: something that waiting does not heal.
    """
    tune_process()
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        try:
            loop.run_until_complete(serve_until_signalled(settings, lanes))
        finally:
            loop.run_until_complete(ended())


def tune_process() -> None:
    """Sets what holds for all of the process: how numpy, the collector of cycles and threads use the machine.

    Products here are small and come by the thousand: a second thread would spin between them and take a core from
    those who work. (What encodes has threads of its own.) And profiles by the thousand are no garbage: to look through
    all of them again and again took a fifth of the time. A click crosses from thread to thread half a dozen times, and
    each waits for the interpreter as long as another is busy: for less than the usual 5 ms, it is a third sooner there.
    """
    threadpool_limits(1, user_api="blas")
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(*COLLECT_AT)


async def ended() -> None:
    """Cancels the tasks that others have left, and does not wait for those that take no notice, as Faust's may."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=LEFT_TASKS_S)


async def serve_until_signalled(settings: Settings, lanes: Sequence[str]) -> None:
    """Serves until a signal asks to stop, which it may do before broker and store have answered."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    started = asyncio.Event()
    serving = asyncio.create_task(serve_until(stop, settings, lanes, started))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if stopping.done() and not started.is_set():
        serving.cancel()
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def serve_until(stop: asyncio.Event, settings: Settings, lanes: Sequence[str], started: asyncio.Event) -> None:
    """Serves until `stop` or a failure; says when it has started."""
    with contextlib.ExitStack() as at_last:
        async with serve(settings, lanes) as failed:
            started.set()
            stopping = asyncio.create_task(stop.wait())
            failing = asyncio.ensure_future(failed())
            await asyncio.wait({stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping", lanes=list(lanes))
            for others in ("asyncio", "mode", "faust", "aiokafka"):  # which complain of being stopped while they start
                logging.getLogger(others).setLevel(logging.CRITICAL + 1)
            error = failing.exception() if failing.done() else None
            if error is not None:
                log.error("cannot go on", error=str(error))
            status = 0 if error is None else getattr(error, "exit_code", 1)
            at_last.enter_context(ending_at_last(settings.worker.stop_timeout_s + FORCE_AFTER_S, status=status))
            stopping.cancel()
            if failing.done():
                failing.result()
            failing.cancel()


@contextlib.contextmanager
def ending_at_last(after_s: float, *, status: int) -> Iterator[None]:
    """Ends the process if the block takes too long, whatever hangs: a crash does no harm, and a stop has a deadline."""

    def end() -> None:
        log.warning("some part did not end in time: the process ends without it")
        os._exit(status)

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
