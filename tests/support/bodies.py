"""Messages as tests write them: a whole valid one for every type, and the few that stories are told with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from common import saga
from common.messages import TYPES, Message

#: A moment of the distant past as JSON; deadlines in tests are relative to the real time, so this has passed.
LONG_AGO = "2020-01-01T10:00:00Z"


def soon(minutes: float = 10) -> str:
    """A deadline that lies ahead, as JSON."""
    return (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat()


#: When payments in tests were made: lately, or their messages would be too old to be handled.
PAID_AT = soon(-1)


def command(payment_id: str = "p-1", **changes: object) -> dict[str, object]:
    """The body of `payment.pay`."""
    body: dict[str, object] = {
        "payment_id": payment_id,
        "user_id": "ann",
        "reservation_id": "r-1",
        "token": "t-1",
        "amount": 30,
    }
    return body | changes


def baton(payment_id: str = "p-1", **changes: object) -> dict[str, object]:
    """The body of `payment.paid`, and what every later forward event carries on."""
    return command(payment_id) | {"expires_at": soon(), "paid_at": PAID_AT} | changes


def failure(payment_id: str = "p-1", service: str = "queue", **changes: object) -> dict[str, object]:
    """The body of `<service>.failed`."""
    body = {
        "payment_id": payment_id,
        "user_id": "ann",
        "service": service,
        "reason": "unknown_token",
        "detail": "nobody was given this token",
        "attempts": 1,
    }
    return body | changes


def settled(*payment_ids: str) -> dict[str, object]:
    """The body of `payment.settled`."""
    return {"payment_ids": list(payment_ids or ("p-1",))}


def hold(reservation_id: str = "r-1", **changes: object) -> dict[str, object]:
    """The body of `reservation.hold`."""
    return {"reservation_id": reservation_id, "user_id": "ann", "seat": "A-1", "price": 30} | changes


def top_up(top_up_id: str = "u-1", **changes: object) -> dict[str, object]:
    """The body of `point.top_up`."""
    return {"top_up_id": top_up_id, "user_id": "ann", "amount": 100} | changes


def enter(token: str = "t-1", **changes: object) -> dict[str, object]:
    """The body of `queue.enter`."""
    return {"token": token, "user_id": "ann"} | changes


#: When each step says it happened, beside what the baton carries.
_WHEN = {
    "payment.paid": (),
    "reservation.confirmed": ("confirmed_at",),
    "point.deducted": ("deducted_at",),
    "queue.expired": ("expired_at",),
}


def forward(type_: str, payment_id: str = "p-1", **changes: object) -> dict[str, object]:
    """The body of the command or event that a step is done on."""
    if type_ == "payment.pay":
        return command(payment_id, **changes)
    return baton(payment_id, **dict.fromkeys(_WHEN[type_], LONG_AGO)) | changes


def valid(type_: str) -> dict[str, object]:
    """A valid body of any type of the language."""
    if type_ == saga.FIRST.on or type_ in _WHEN:
        return forward(type_, expires_at=soon())
    if type_.endswith(".failed"):
        return failure()
    if type_.endswith(".rejected"):
        return {"id": "x-1", "reason": "seat_taken", "detail": "the seat is held or sold"}
    return _ANSWERS[type_] | {}


_OF_PAYMENT: dict[str, object] = {"payment_id": "p-1", "user_id": "ann"}
_ANSWERS: Mapping[str, dict[str, object]] = {
    "payment.completed": _OF_PAYMENT | {"amount": 30, "completed_at": LONG_AGO},
    "payment.settled": settled(),
    "payment.cancelled": _OF_PAYMENT | {"amount": 30, "cancelled_at": LONG_AGO},
    "reservation.reverted": _OF_PAYMENT
    | {"reservation_id": "r-1", "seat": "A-1", "state": "HELD", "reverted_at": LONG_AGO},
    "point.restored": _OF_PAYMENT | {"amount": 30, "restored_at": LONG_AGO},
    "notification.sent": _OF_PAYMENT | {"kind": "completed", "sent_at": LONG_AGO},
    "reservation.hold": hold(held_until=LONG_AGO),
    "reservation.held": hold(held_until=LONG_AGO),
    "point.top_up": top_up(),
    "point.topped_up": top_up(balance=100),
    "queue.enter": enter(),
    "queue.entered": enter(),
}


def message(type_: str, body: dict[str, object] | None = None) -> Message:
    """A message as a handler sees it; without a body, a valid one."""
    return Message(type_, TYPES[type_].model_validate(valid(type_) if body is None else body))
