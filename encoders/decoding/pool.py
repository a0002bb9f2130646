"""Decodes in processes of its own, so that an input which kills its decoder, or eats memory, takes only itself along.

A thread that asks waits for its answer, without holding the interpreter; there are as many processes as threads that
prepare, each started when it is first needed. One that ends is replaced: what it was at is tried once more, since a
process may be killed for no fault of its input, and refused as "crashed" if that kills the next one too. One that
takes too long is killed, and its input refused as "too-slow".
"""

import os
import queue
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import numpy as np
import structlog
from msgspec.msgpack import Decoder
from numpy.typing import NDArray

from penchant.encoders.base import Undecodable, extra
from penchant.encoders.decoding import wire
from penchant.encoders.decoding.limits import processor_s, samples_of
from penchant.encoders.decoding.wire import Bounds, Ended
from penchant.errors import Unavailable
from penchant.settings import EncoderSettings

__all__ = ["COMMAND", "DecodingPool"]

COMMAND = (sys.executable, "-s", "-P", "-B", "-m", "penchant.encoders.decoding.process")
# What a process is told of the environment; neither secrets nor what else happens to stand there.
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL")
START_S = 60.0
# By default glibc gives memory back after each input, and takes it again page by page, which takes as long as decoding.
ALLOCATION = {"MALLOC_MMAP_THRESHOLD_": str(32 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20)}
# Processor time is what counts, so that a busy machine refuses nothing: this only ends what does not even compute.
PATIENCE = 10
# Decoders leak and fragment memory: after so many inputs a process starts afresh, lest an innocent one find too little.
INPUTS = 1_000
TRIES = 2
REASONS = frozenset({"empty", "unsupported-format", "too-large", "corrupt", "not-finite", "silent"})
MAX_DETAIL = 200
HINT = "Is there memory left, and a limit on processes? `penchant doctor` looks for what is missing."

Expected = TypeVar("Expected", wire.Pixels, wire.Samples)

log = structlog.get_logger()


class DecodingPool:
    """Decodes pictures and sounds in other processes; a context manager. May be asked by many threads at once.

    Args:
        settings: what a picture or a sound may be.
        processes: as many at most.
        command: that starts one; the bounds are added to it.
        wall_s: how long an input may take by the clock; None: far longer than it may compute.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        *,
        processes: int,
        command: Sequence[str] = COMMAND,
        wall_s: float | None = None,
    ) -> None:
        self._bounds = Bounds(
            max_media_bytes=settings.max_media_bytes,
            max_pixels=settings.max_pixels,
            max_audio_s=settings.max_audio_s,
        )
        self._command = command
        self._wall_s = wall_s or PATIENCE * processor_s(self._bounds)
        self._processes = processes
        # None stands for one that is not started. What was used last is used first: under little load one is enough.
        self._idle: queue.LifoQueue[Process | None] = queue.LifoQueue()
        for _ in range(processes):
            self._idle.put(None)

    def picture(self, data: bytes, *, side: int, squeezed: bool = False) -> NDArray[np.uint8]:
        """As `penchant.encoders.image.decode_picture`.

        Raises:
            Undecodable: as that, or the picture ended its process ("crashed"), or took too long ("too-slow").
            Unavailable: no process can be started.
        """
        question = wire.Picture(side=side, squeezed=squeezed)
        most = max(self._bounds.max_pixels, side * side)
        found, content = self._asked(question, data, wire.Pixels, at_most=3 * most)
        return np.frombuffer(content, np.uint8).reshape(found.height, found.width, 3)

    def sound(self, data: bytes) -> tuple[NDArray[np.float64], int]:
        """As `penchant.encoders.audio.decode_sound`.

        Raises:
            Undecodable: as that, or the sound ended its process ("crashed"), or took too long ("too-slow").
            Unavailable: no process can be started.
        """
        most = 8 * samples_of(self._bounds)
        found, content = self._asked(wire.Sound(), data, wire.Samples, at_most=most)
        return np.frombuffer(content, np.float64), found.rate

    def close(self) -> None:
        """Ends all processes, once they have answered what they were asked."""
        for _ in range(self._processes):
            process = self._idle.get()
            if process is not None:
                process.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _asked(
        self, question: wire.Question, data: bytes, expected: type[Expected], *, at_most: int
    ) -> tuple[Expected, bytearray]:
        for _ in range(TRIES):
            process = self._idle.get()
            try:
                if process is None or not process.alive:
                    process = self._renewed(process)
                return process.ask(question, data, expected, at_most=at_most, wall_s=self._wall_s)
            except TimeoutError:
                raise Undecodable("Decoding takes too long", reason="too-slow") from None
            except Ended:
                status = process.end() if process else 0
                if status == -signal.SIGXCPU:
                    raise Undecodable("Decoding takes too long", reason="too-slow") from None
                log.warning("a process that decodes has ended and is replaced", status=status)
            finally:
                if process is not None and not process.fit:
                    process.end()
                    process = None
                self._idle.put(process)
        raise Undecodable("Decoding it ends the process that decodes", reason="crashed")

    def _renewed(self, former: "Process | None") -> "Process":
        if former is not None:
            log.warning("a process that decodes has ended and is replaced", status=former.end())
        return Process(self._command, self._bounds)


class Process:
    """One process that decodes, and the socket to it.

    Attributes:
        fit: to be asked again: it has answered everything, and not yet too much.

    Raises:
        Unavailable: it cannot be started.
    """

    def __init__(self, command: Sequence[str], bounds: Bounds) -> None:
        for module in ("PIL", "soundfile"):
            extra(module)  # says what to install, where the process could say nothing
        self.fit = True
        self._inputs = 0
        self._connection, other = socket.socketpair()
        with other:
            try:
                self._child: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603  this very interpreter, or what a test gives
                    [*command, msgspec.json.encode(bounds).decode()],
                    stdin=other.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # some decoders write there what they make of their input
                    env=environment(),
                    start_new_session=True,  # a terminal's interrupt is the worker's to handle
                )
            except OSError as error:
                self._connection.close()
                raise Unavailable(f"No process can be started to decode ({type(error).__name__})", hint=HINT) from error
        try:
            wire.receive(self._connection, Decoder(wire.Ready), at_most=0, deadline=time.monotonic() + START_S)
        except (Ended, TimeoutError):
            raise Unavailable(f"The process that decodes ends as it starts ({self.end()})", hint=HINT) from None
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._child.poll() is None

    def ask(
        self, question: wire.Question, data: bytes, expected: type[Expected], *, at_most: int, wall_s: float
    ) -> tuple[Expected, bytearray]:
        """Its answer to a question.

        Raises:
            Undecodable: that is the answer.
            Ended: it is there no more, or says what it should not.
            TimeoutError: it says nothing for too long.
        """
        self.fit = False
        deadline = time.monotonic() + wall_s
        wire.send(self._connection, question, data, deadline=deadline)
        answers: Decoder[Any] = Decoder(expected | wire.Refused)
        answer, content = wire.receive(self._connection, answers, at_most=at_most, deadline=deadline)
        if isinstance(answer, wire.Refused):
            self._settled()
            if answer.reason not in REASONS:
                raise Ended
            raise Undecodable(answer.detail[:MAX_DETAIL], reason=answer.reason)
        if not answer.fits(len(content)):
            raise Ended
        self._settled()
        return answer, content

    def end(self) -> int:
        """Kills it, which harms nothing, and gives its exit status: what it had already, if it had ended by itself."""
        self.fit = False
        self._connection.close()
        self._child.kill()
        return self._child.wait()

    def _settled(self) -> None:
        self._inputs += 1
        self.fit = self._inputs < INPUTS


def environment() -> dict[str, str]:
    """What a process is told: where modules are, to compute in one thread, and to keep memory for the next input."""
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    folders = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path if folder)
    return {**kept, **ALLOCATION, "PYTHONPATH": folders, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
