"""A process of the harness's own: started, stopped or killed, and started again on the same folder."""

import signal
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

__all__ = ["Child"]

STOP_TIMEOUT_S = 60.0


class Child(ABC):
    """A process, as its harness sees it; a context manager that ends it.

    Args:
        folder: where its data are, and its log.

    Attributes:
        process: the one running; tests stop and continue it by its signals.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @abstractmethod
    def start(self) -> None:
        """Starts it."""

    def stop(self) -> int:
        """Asks it to stop in order, and waits; gives the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def kill(self) -> None:
        """Ends it as a crash does."""
        assert self.process
        self.process.kill()
        self.process.wait()
