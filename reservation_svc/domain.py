"""Rules of seats and reservations: pure functions.

A seat is a row that names its one reservation. A hold that has run out is given away by changing that row, and
confirming needs the row to name this reservation, so no clock decides who owns a seat.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """A reservation's life."""

    HELD = "HELD"
    CONFIRMED = "CONFIRMED"
    RELEASED = "RELEASED"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A reservation as the rules see it. `given_away`: its seat names another one by now."""

    user_id: str
    price: int
    held_until: datetime
    state: State
    given_away: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: a stable code, and a sentence for the person."""

    reason: str
    detail: str


def hold(holder: Reservation | None, held_until: datetime, *, now: datetime) -> Refusal | None:
    """Why a seat may not be held until then; None if it may. `holder` is whom the seat names now."""
    if held_until <= now:
        return Refusal("hold_in_the_past", f"a hold until {held_until.isoformat()} is already over")
    if holder is not None and not has_run_out(holder, now):
        return Refusal("seat_taken", "the seat is held or sold")
    return None


def has_run_out(reservation: Reservation, now: datetime) -> bool:
    """Whether a hold is over, so that its seat may be given to somebody else."""
    return reservation.state is not State.CONFIRMED and now > reservation.held_until


def confirm(
    reservation: Reservation | None, user_id: str, price: int, *, expires_at: datetime, now: datetime
) -> State | Refusal:
    """The state of a reservation that is being paid for; None is a reservation nobody made."""
    if now > expires_at:
        return Refusal("deadline_passed", f"the payment had to be done by {expires_at.isoformat()}")
    if reservation is None:
        return Refusal("unknown_reservation", "nobody made this reservation")
    if reservation.user_id != user_id:
        return Refusal("not_your_reservation", "the reservation belongs to another user")
    if reservation.state is State.CONFIRMED:
        return Refusal("reservation_taken", "another payment has confirmed this reservation")
    if reservation.given_away:
        return Refusal("seat_given_away", "the hold ran out and the seat was given to somebody else")
    if reservation.state is State.RELEASED or has_run_out(reservation, now):
        return Refusal("hold_expired", f"the seat was held until {reservation.held_until.isoformat()}")
    if reservation.price != price:
        return Refusal("price_mismatch", f"the seat costs {reservation.price} points, not {price}")
    return State.CONFIRMED


def revert(held_until: datetime, *, now: datetime) -> State:
    """The state of a confirmed reservation whose payment is undone."""
    return State.RELEASED if now > held_until else State.HELD
