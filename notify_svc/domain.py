"""Rules of notices: pure functions. What the user is told, and how long delivery is tried."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum


class Kind(StrEnum):
    """How a saga ended."""

    COMPLETED = "completed"
    FAILED = "failed"


class State(StrEnum):
    """A notice's life. PARKED: a person must look."""

    PENDING = "PENDING"
    SENT = "SENT"
    PARKED = "PARKED"


#: Waits between attempts to deliver a notice; when they are used up, it is parked.
WAITS = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
)


def completed(payment_id: str, reservation_id: str, amount: int) -> str:
    """What a user is told whose seat is paid."""
    return f"Your seat is confirmed: payment {payment_id}, reservation {reservation_id}, {amount} points."


def failed(payment_id: str, detail: str) -> str:
    """What a user is told whose payment was undone."""
    return f"Payment {payment_id} was not made: {detail}. Nothing was charged."


def wait_after(attempts: int) -> timedelta | None:
    """How long to wait after so many failed attempts; None: park it.

    >>> wait_after(1)
    datetime.timedelta(seconds=5)
    >>> wait_after(6) is None
    True
    """
    return WAITS[attempts - 1] if attempts <= len(WAITS) else None
