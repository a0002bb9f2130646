"""Logging: one line an event, never a payload, never a raw user id.

Log what happened to how many, and where (topic, partition, offset).
"""

import logging
import sys

import structlog

__all__ = ["configure_logging"]


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
    for chatty in ("faust", "mode", "aiokafka", "httpx", "qdrant_client", "uvicorn", "transformers"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
