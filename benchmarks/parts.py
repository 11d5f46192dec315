"""What single parts of a message's way cost in the processor, measured alone: reading, checking, writing, naming.

They have no switch in production, because nothing may go unchecked; so each is run by itself, many times.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from benchmarks import orders
from benchmarks.bench import Bench
from benchmarks.results import Figure
from benchmarks.roster import OURS
from common.messages import Deducted, decode
from common.outbox import message_id
from common.telemetry import next_traceparent

_TIMES = 2_000
_REPEATS = 7


def parts(bench: Bench) -> None:
    """Microseconds of each part, the best of some repeats: what is above the best was other people's time."""
    now = datetime.now(UTC)
    pay = json.loads(orders.command(orders.order(1)))
    event = Deducted.model_validate(
        pay | {"expires_at": now, "paid_at": now, "confirmed_at": now, "deducted_at": now}
    )
    body = event.encode().encode()
    traceparent = next_traceparent(None)
    what: dict[str, Callable[[], object]] = {
        "read JSON, nothing checked": lambda: json.loads(body),
        "read an event, checked": lambda: decode("point.deducted", body),
        "write an event": event.encode,
        "name a message (UUIDv5)": lambda: message_id("pay-1", "point.deducted"),
        "continue a trace": lambda: next_traceparent(traceparent),
        "fingerprint of a command": event.fingerprint,
    }
    values = {name: _microseconds(part) for name, part in what.items()}
    bench.note(Figure("parts", OURS, 1, values=values))


def _microseconds(part: Callable[[], object]) -> float:
    best = min(_once(part) for _ in range(_REPEATS))
    return round(1e6 * best / _TIMES, 2)


def _once(part: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(_TIMES):
        part()
    return time.thread_time() - began
