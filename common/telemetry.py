"""What a service tells: structured logs, one line per event of interest and none per healthy message."""

from __future__ import annotations

import logging
import re
import secrets
import sys

import structlog

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def configure(service: str, level: str, form: str) -> None:
    """Send this process's logs to standard error, for people (`console`) or for programs (`json`)."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Never the pretty kind: it shows local variables, and they may hold a password.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    exceptions: list[structlog.typing.Processor] = [structlog.processors.format_exc_info] if form == "json" else []
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    # Libraries speak up only when something is wrong that we do not tell ourselves.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)


def alarm(event: str, **facts: object) -> None:
    """Log something that a person must look at."""
    log.error(event, alarm=True, **facts)


def valid_traceparent(header: object) -> str | None:
    """A W3C trace context as a stranger sent it; None if it is none."""
    return header if isinstance(header, str) and _TRACEPARENT.fullmatch(header) else None


def next_traceparent(incoming: str | None) -> str:
    """A W3C trace context for a message that follows `incoming`: the same trace, or a new one."""
    match = _TRACEPARENT.fullmatch(incoming or "")
    trace = match[1] if match else secrets.token_hex(16)
    return f"00-{trace}-{secrets.token_hex(8)}-01"
