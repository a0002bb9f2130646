"""The exceptions that penchant raises: what went wrong, and what to do about it.

Third parties' exceptions are mapped to these where they cross into penchant, so that a caller handles two
questions only: can waiting heal it, and what should a person do.
"""

__all__ = ["ConfigurationError", "PenchantError", "Unavailable"]


class PenchantError(Exception):
    """Something a person must act on.

    Args:
        message: what is wrong, in one sentence.
        hint: what to do about it; shown below the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n{self.hint}" if self.hint else message


class ConfigurationError(PenchantError):
    """The settings, or what they point at, cannot be used as they are. Retrying heals nothing."""

    exit_code = 2


class Unavailable(PenchantError):
    """A part (broker, store) does not answer now. Waiting may heal it: workers retry with backoff."""

    exit_code = 3
