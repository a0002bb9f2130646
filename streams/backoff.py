"""Pauses between attempts: they grow, and differ, so that those who wait for the same thing do not all come at once."""

import random

__all__ = ["Backoff"]

FIRST_S, LONGEST_S = 0.1, 5.0


class Backoff:
    """The pauses of one thing that is tried again."""

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def pause(self) -> float:
        """How long to wait before the next attempt, seconds; twice as long each time, give or take a half."""
        pause_s = self._next_s * (0.5 + random.random())  # noqa: S311  jitter
        self._next_s = min(2 * self._next_s, LONGEST_S)
        return pause_s

    def reset(self) -> None:
        """It has succeeded."""
        self._next_s = FIRST_S
