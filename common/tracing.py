"""Traces, switched on by OpenTelemetry's own variables: `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_TRACES_EXPORTER`.

Off, nothing of OpenTelemetry is imported, and its packages need not be there. On, whatever is wrong with them or
with the collector costs traces and nothing else. What the spans are is written in `common.spans`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping

from common.history import Observers
from common.telemetry import log, sampled_by

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: For the last spans when the service leaves, if the collector answers.
_SECONDS_TO_FLUSH = 1.0


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces.

    >>> is_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    True
    >>> is_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", "OTEL_TRACES_EXPORTER": "none"})
    False
    """
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter) or any(environment.get(name, "").strip() for name in _ENDPOINTS)


@contextlib.asynccontextmanager
async def traced(service: str, observers: Observers) -> AsyncIterator[None]:
    """Make spans of what the observers are told, while the context is open and if the environment wants it."""
    with contextlib.ExitStack() as stack:
        close = _open(service, observers, stack) if is_wanted(os.environ) else None
        try:
            yield
        finally:
            if close is not None:
                await _within(_SECONDS_TO_FLUSH, close)


def _open(service: str, observers: Observers, stack: contextlib.ExitStack) -> Callable[[], None] | None:
    """Begin to make spans, and give what sends the last of them; None, and a line in the log, if it cannot be."""
    try:
        from common import spans  # noqa: PLC0415 - OpenTelemetry is optional, and costs a third of a second

        tracer = spans.Spans(service, spans.exporting(service, os.environ))
    except ModuleNotFoundError as missing:
        log.warning("OTEL_* asks for traces, but a package is missing; there are none", missing=missing.name)
        return None
    except Exception as error:  # noqa: BLE001 - a wrong setting, or a package of another version
        log.warning("OTEL_* asks for traces that cannot be; there are none", error=str(error)[:200])
        return None
    stack.enter_context(observers.joined_by(tracer.observe))
    stack.enter_context(sampled_by(tracer.is_sampled))
    log.info("traces are sent", exporter=os.environ.get("OTEL_TRACES_EXPORTER") or "otlp")
    return tracer.close


async def _within(seconds: float, work: Callable[[], None]) -> None:
    """Run what blocks in a thread for which nobody waits any longer, not even the interpreter when it ends."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            work()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="last spans", daemon=True).start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await done.wait()
