"""Valid messages, headers and records: where a search for hostile ones begins."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from pamqp import encode

from common.messages import TYPES

_TIME = "2026-11-22T10:00:00Z"
_SPECIAL: Mapping[str, object] = {
    "user_id": "ann",
    "amount": 300,
    "price": 300,
    "balance": 700,
    "attempts": 1,
    "service": "point",
    "reason": "no_wallet",
    "detail": "the user has no wallet",
    "seat": "A-1",
    "payment_ids": ["p-1", "p-2"],
}
#: The bits of the properties, and those that are short strings (AMQP 0-9-1, the basic class).
FLAGS: Mapping[str, int] = {
    "content_type": 15,
    "content_encoding": 14,
    "headers": 13,
    "delivery_mode": 12,
    "priority": 11,
    "correlation_id": 10,
    "reply_to": 9,
    "expiration": 8,
    "message_id": 7,
    "timestamp": 6,
    "message_type": 5,
    "user_id": 4,
    "app_id": 3,
    "cluster_id": 2,
}


def fields(type_: str) -> dict[str, Any]:
    """The content of a valid message of a type."""
    model = TYPES[type_]
    return {name: _sample(name) for name in model.model_fields} | _choices(type_)


def body(type_: str, **changes: object) -> bytes:
    """A valid message of a type, or one with other fields."""
    return json.dumps(fields(type_) | changes).encode()


def _sample(name: str) -> object:
    if name in _SPECIAL:
        return _SPECIAL[name]
    return _TIME if name.endswith(("_at", "_until")) else "p-1"


def _choices(type_: str) -> dict[str, Any]:
    """Fields that take one of a few words."""
    words = {"reservation.reverted": {"state": "HELD"}, "notification.sent": {"kind": "completed"}}
    return dict(words.get(type_, {}))


def short(value: bytes) -> bytes:
    """AMQP's short string; what is too long is cut."""
    return bytes([min(len(value), 255)]) + value[:255]


def long(value: bytes) -> bytes:
    """AMQP's long string; a table or an array, too, whose length is told alike."""
    return struct.pack(">I", len(value)) + value


def properties(headers: Mapping[str, Any] | bytes | None = None, **given: bytes) -> bytes:
    """Flags and properties as a content header holds them: `headers` as a table, all others as they are given."""
    flags, written = 0, b""
    for name, bit in FLAGS.items():
        if name == "headers" and headers is not None:
            table = long(headers) if isinstance(headers, bytes) else encode.field_table(dict(headers))
            flags, written = flags | 1 << bit, written + table
        elif name in given:
            value = given[name]
            raw = name in {"delivery_mode", "priority", "timestamp"}
            flags, written = flags | 1 << bit, written + (value if raw else short(value))
    return struct.pack(">H", flags) + written


def entry(name: bytes, kind: bytes, value: bytes) -> bytes:
    """One entry of a table of headers, whatever it holds."""
    return short(name) + kind + value


def record(**changes: object) -> dict[str, Any]:
    """A record of the history, as JSON."""
    told: dict[str, Any] = {
        "v": 1,
        "service": "point",
        "replica": "host-1",
        "at": "2026-11-22T10:00:00+00:00",
        "took_ms": 1.5,
        "entries": [
            {
                "saga": "p-1",
                "type": "payment.pay",
                "became": "done",
                "deed": "did",
                "said": [["payment.paid", "t"]],
            },
            {
                "saga": "p-1",
                "type": "reservation.confirmed",
                "became": "retry",
                "reason": "error",
                "detail": "boom",
            },
            {
                "saga": "p-1",
                "type": "queue.failed",
                "became": "done",
                "deed": "undid",
                "attempt": 2,
                "waited_ms": 3,
            },
        ],
    }
    return told | changes
