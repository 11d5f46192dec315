"""The orders of a run: how many sagas, how each is meant to end, and which commands are sent twice."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from benchmarks.contender import Order
from benchmarks.driver import SECOND_TIME_BEHIND
from common.messages import Body, Enter, Hold, TopUp

AMOUNT = 1_000
#: Refusals of every step that can refuse, each brought about by what the order lacks or says.
FAILURES = (
    "over_limit",
    "deadline_passed",
    "unknown_reservation",
    "not_your_reservation",
    "price_mismatch",
    "no_wallet",
    "balance_too_low",
    "unknown_token",
    "not_your_token",
)
#: Ids are all of one length, so that a row of one order can become that of another by replacing its number.
DIGITS = 8


def name(number: int, mark: str = "b") -> str:
    """What all ids of an order end in."""
    return f"{mark}{number:0{DIGITS}d}"


def order(number: int, ending: str = "completed", mark: str = "b") -> Order:
    """The order of that number: one user, who buys one seat."""
    mine = name(number, mark)
    return Order(
        number=number,
        payment_id=f"pay-{mine}",
        user_id=f"user-{mine}",
        reservation_id=f"hold-{mine}",
        seat=f"seat-{mine}",
        token=f"token-{mine}",
        amount=AMOUNT,
        ending=ending,
    )


def clean(count: int, *, start: int = 1) -> list[Order]:
    """Orders that all complete."""
    return [order(number) for number in range(start, start + count)]


def mixed(count: int, *, failing: float, start: int = 1) -> list[Order]:
    """Orders of which a part fails, in every way in turn, spread by chance (the same in every run)."""
    chance = random.Random(count)  # noqa: S311 - a spread, no secret
    failures = set(chance.sample(range(count), round(count * failing)))
    endings = iter(FAILURES * (len(failures) // len(FAILURES) + 1))
    return [order(start + index, next(endings) if index in failures else "completed") for index in range(count)]


def repeated(count: int, part: float) -> Sequence[int]:
    """Which commands are sent twice, by their place."""
    chance = random.Random(count + 1)  # noqa: S311 - as above
    return sorted(chance.sample(range(max(count - SECOND_TIME_BEHIND, 0)), round(count * part)))


def command(order: Order) -> bytes:
    """The body of `payment.pay`: what it says is what a failing order fails by, unless it lacks something."""
    body: dict[str, object] = {
        "payment_id": order.payment_id,
        "user_id": order.user_id,
        "reservation_id": order.reservation_id,
        "token": order.token,
        "amount": order.amount,
    }
    return json.dumps(body | dict(_LIES.get(order.ending, {}))).encode()


_LIES: Mapping[str, Mapping[str, object]] = {
    "over_limit": {"amount": 900_000_000},
    "deadline_passed": {"expires_at": "2020-01-01T00:00:00Z"},
    "unknown_reservation": {"reservation_id": "nobody-held-this"},
    "not_your_reservation": {"user_id": "somebody-else"},
    "price_mismatch": {"amount": AMOUNT - 1},
    "unknown_token": {"token": "nobody-issued-this"},
}


def needs(order: Order) -> list[Body]:
    """The commands beside the saga that an order needs before it is put in."""
    held_until = datetime.now(UTC) + timedelta(days=1)
    hold = Hold(
        reservation_id=order.reservation_id,
        user_id=order.user_id,
        seat=order.seat,
        price=order.amount,
        held_until=held_until,
    )
    points = TopUp(
        top_up_id=f"gift-{order.payment_id.removeprefix('pay-')}",
        user_id=order.user_id,
        amount=1 if order.ending == "balance_too_low" else order.amount,
    )
    token = Enter(
        token=order.token, user_id="somebody-else" if order.ending == "not_your_token" else order.user_id
    )
    return [hold, token] if order.ending == "no_wallet" else [hold, points, token]
