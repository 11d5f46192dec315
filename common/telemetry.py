"""What a service tells: structured logs, one line per event of interest and none per healthy message."""

from __future__ import annotations

import contextlib
import logging
import re
import secrets
import sys
from collections.abc import Callable, Iterator

import structlog

from common.personal import Masks

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
#: What W3C's flags mean so far: sampled, and that the trace's id is random. All others are sent as zero.
_KNOWN_FLAGS = 0b11


def configure(service: str, level: str, form: str) -> None:
    """Send this process's logs to standard error, for people (`console`) or for programs (`json`).

    Logs go far and are kept long: what is about a person is masked, by the same mask while the process lives.
    """
    masks = Masks()
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
            lambda _, __, facts: masks.line(facts),
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


class _Sampling:
    """Who decides whether a new trace is sampled: nobody, so that all are, or `common.spans`."""

    def __init__(self) -> None:
        self.decide: Callable[[str], bool] = lambda _: True


_sampling = _Sampling()


@contextlib.contextmanager
def sampled_by(decide: Callable[[str], bool]) -> Iterator[None]:
    """Let `decide` say by its id whether a trace that begins here is sampled, while the context is open."""
    before, _sampling.decide = _sampling.decide, decide
    try:
        yield
    finally:
        _sampling.decide = before


def next_traceparent(incoming: str | None) -> str:
    """A W3C trace context for a message that follows `incoming`: the same trace, or a new one.

    Whether the trace is sampled is passed on as it came, and decided once, where a trace begins.
    """
    match = _TRACEPARENT.fullmatch(incoming or "")
    if match:
        trace, flags = match[1], int(match[3], 16) & _KNOWN_FLAGS
    else:
        trace = secrets.token_hex(16)
        flags = int(_sampling.decide(trace))
    return f"00-{trace}-{secrets.token_hex(8)}-{flags:02x}"


def trace_facts(traceparent: str | None) -> dict[str, str]:
    """By what a line of the log is found from a trace, and the trace from the line."""
    match = _TRACEPARENT.fullmatch(traceparent or "")
    return {"trace_id": match[1], "span_id": match[2]} if match else {}
