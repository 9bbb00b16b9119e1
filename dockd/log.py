"""Logging: structlog to stderr, JSON unless stderr is a terminal; the standard library's loggers end there too."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

# Libraries that tell of each request or file event: their own business below a warning.
_CHATTY = ("httpx", "httpcore", "watchdog", "uvicorn.access", "asyncio", "aiofiles")


class _Stderr:
    """Whatever sys.stderr is when a line is written: tests and terminals exchange it.

    No io.TextIOBase: the end of the program would flush it when nothing of this module is left.
    """

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def set_up(level: str = "info", format: str = "auto") -> None:  # noqa: A002  the key's name in the configuration
    """Send events of `level` and above to stderr. May be called again: the later call holds.

    `format` is "json", "console" or "auto": JSON unless stderr is a terminal.
    """
    stderr = cast("TextIO", _Stderr())
    number = logging.getLevelNamesMapping()[level.upper()]
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    rendering: list[Processor] = (
        # The prettier tracebacks print local variables, and with them keys, tokens and clip content.
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True, default=str)]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stderr),
        cache_logger_on_first_use=False,  # a reload has to reach loggers that were used before
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(capture=True)
