"""A command as an operator writes it, read as strictly as its service will: a slip is told before it is sent."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from common import messages
from common.messages import Body, Malformed

_AGE = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class SlipError(ValueError):
    """The command cannot be meant like this; the text says what is wrong with which field."""


def write(type_: str, fields: Mapping[str, str | int | None]) -> Body:
    """The command of this type with these fields, those that are None left out; raises SlipError."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        body = json.dumps(given).encode()
        return messages.decode(type_, body)
    except Malformed as error:
        raise SlipError(error.detail) from None


def new_id(kind: str) -> str:
    """An id that nobody used before."""
    return f"{kind}-{secrets.token_hex(6)}"


def moment(text: str | None, *, now: datetime | None = None) -> str | None:
    """A time as messages write it: RFC 3339 is taken as it is, `90s`, `10m`, `2h` and `1d` count from now.

    >>> moment("10m", now=datetime(2026, 11, 22, 10, tzinfo=UTC))
    '2026-11-22T10:10:00+00:00'
    """
    length = _AGE.fullmatch(text or "")
    if not length:
        return text
    ahead = timedelta(seconds=int(length[1]) * _UNITS[length[2]])
    return ((now or datetime.now(UTC)) + ahead).isoformat()


def ago(text: str, *, now: datetime | None = None) -> datetime:
    """A moment in the past: RFC 3339, or how long ago; ValueError for anything else.

    >>> ago("2h", now=datetime(2026, 11, 22, 10, tzinfo=UTC)).hour
    8
    """
    length = _AGE.fullmatch(text)
    if length:
        return (now or datetime.now(UTC)) - timedelta(seconds=int(length[1]) * _UNITS[length[2]])
    told = None
    with contextlib.suppress(ValueError):
        told = datetime.fromisoformat(text.upper())
    if told is None or told.tzinfo is None:
        raise ValueError(
            f"{text!r} is neither a time like 2026-11-22T10:00:00Z nor a length like 90s, 10m, 2h, 1d"
        )
    return told
