"""Reading what strangers write: properties that break AMQP's rules must not break the connection.

aiormq decodes a message's properties with pamqp while it reads the connection. An error there closes the
connection, the message is delivered again, and so on for ever: one header with a time outside the calendar, or a
text that is not UTF-8, would stop a service and burn its neighbours' deliveries. So the three decoders that can
fail are made tolerant; `common.consumer` then parks what could not be read.
"""

from __future__ import annotations

from typing import Any

from pamqp import decode

#: What a table of headers becomes that cannot be read.
UNREADABLE = "x-unreadable"

_strict_table = decode.field_table
_strict_time = decode.timestamp


def tolerate_strangers() -> None:
    """Make pamqp, in this whole process, read any bytes without an error. Doing it again changes nothing."""
    decode.METHODS |= {"shortstr": _short_string, "timestamp": _timestamp, "table": _table}
    decode.TABLE_MAPPING |= {b"T": _timestamp, b"F": _table}


def _short_string(value: bytes) -> tuple[int, str]:
    length = value[0]
    return length + 1, value[1 : length + 1].decode("utf-8", "replace")


def _timestamp(value: bytes) -> tuple[int, Any]:
    try:
        return _strict_time(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def _table(value: bytes) -> tuple[int, Any]:
    try:
        return _strict_table(value)
    except (ValueError, OverflowError, OSError, IndexError, KeyError, RecursionError):
        return 4 + int.from_bytes(value[:4], "big"), {UNREADABLE: True}
