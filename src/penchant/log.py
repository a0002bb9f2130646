"""Logging: one line an event, never a payload, never a raw user id.

Log what happened to how many, and where (topic, partition, offset).
"""

import logging
import sys
import time
from collections.abc import Callable

import structlog

__all__ = ["Sparing", "configure_logging"]

REPEAT_AFTER_S = 10.0


class Sparing(logging.Filter):
    """Lets what others say through once in a while: some clients repeat themselves a hundred times a second.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._said: dict[tuple[str, int, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line that says this has not said the same, but for its figures, lately."""
        if record.name.startswith("penchant"):
            return True
        line, now = (record.pathname, record.lineno, str(record.msg)), self._clock()
        if now - self._said.get(line, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        self._said[line] = now
        return True


def configure_logging(level: str, *, json: bool) -> None:
    """Sends structlog's and the standard library's records to standard error, as text or as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Sparing())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # These narrate what penchant says better itself.
    # And what fetches media would say from where.
    for chatty in (
        "faust",
        "mode",
        "aiokafka",
        "httpx",
        "httpcore",
        "botocore",
        "aiobotocore",
        "s3fs",
        "qdrant_client",
        "uvicorn",
        "transformers",
        "matplotlib",
    ):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
