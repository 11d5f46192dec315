"""The rules of the five services: pure functions, so every branch is a line here."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import notify_svc.domain as notify
import payment_svc.domain as payment
import point_svc.domain as point
import queue_svc.domain as queue
import reservation_svc.domain as reservation
from common import saga
from common.messages import TYPES

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
TICK = timedelta(microseconds=1)
LATER = NOW + timedelta(minutes=10)
RULES = payment.Rules(limit=1000, deadline=timedelta(minutes=10), repeatable=timedelta(days=27))

Refused = payment.Refusal | reservation.Refusal | point.Refusal | queue.Refusal


def reason(result: object) -> str:
    """The reason code of a refusal; fails for anything that is none."""
    assert isinstance(result, Refused), result
    assert result.detail, "a person wants to know why"
    return result.reason


def held(
    *,
    user_id: str = "ann",
    price: int = 30,
    held_until: datetime = LATER,
    state: reservation.State = reservation.State.HELD,
    given_away: bool = False,
) -> reservation.Reservation:
    """Ann's reservation of a seat for 30 points, held for ten minutes."""
    return reservation.Reservation(user_id, price, held_until, state, given_away=given_away)


@pytest.mark.parametrize("service", saga.SERVICES)
def test_every_refusal_of_a_domain_is_in_the_saga_table_and_the_other_way_round(service: str) -> None:
    """A reason code is a promise to outsiders: none may appear that the table does not list, none may vanish."""
    source = (ROOT / f"{service}_svc" / "domain.py").read_text()
    given_by_domain = set(re.findall(r'Refusal\(\s*"([a-z_]+)"', source))
    commands = (command for command in saga.COMMANDS if command.service == service)
    listed = set(saga.step_of(service).refusals).union(*(command.refusals for command in commands))
    assert given_by_domain == listed


# --- payment


def test_a_payment_gets_the_default_deadline() -> None:
    """A client that does not care still gets a saga that ends."""
    assert payment.pay(30, None, rules=RULES, now=NOW) == NOW + RULES.deadline


def test_a_payment_keeps_the_deadline_of_its_command() -> None:
    """Who knows how long a seat is held says so."""
    assert payment.pay(30, LATER, rules=RULES, now=NOW) == LATER


@pytest.mark.parametrize(("amount", "refused"), [(999, False), (1000, False), (1001, True)])
def test_a_payment_above_the_limit_is_refused(amount: int, *, refused: bool) -> None:
    """The limit itself may be paid, one point more may not."""
    result = payment.pay(amount, None, rules=RULES, now=NOW)
    assert (reason(result) == "over_limit") if refused else isinstance(result, datetime)


@pytest.mark.parametrize(("deadline", "refused"), [(NOW + TICK, False), (NOW, False), (NOW - TICK, True)])
def test_a_payment_after_its_deadline_is_refused(deadline: datetime, *, refused: bool) -> None:
    """The deadline is the last moment at which a step may still be done."""
    result = payment.pay(30, deadline, rules=RULES, now=NOW)
    assert (reason(result) == "deadline_passed") if refused else isinstance(result, datetime)


def test_a_payment_is_completed_unless_it_was_undone() -> None:
    """The pivot completes a provisional payment, again and again, and never a cancelled one."""
    assert payment.complete(payment.State.PAID) is payment.State.COMPLETED
    assert payment.complete(payment.State.COMPLETED) is payment.State.COMPLETED
    assert payment.complete(payment.State.CANCELLED) is None


def test_a_payment_is_cancelled_unless_it_is_complete() -> None:
    """No failure exists after the pivot; one that claims to breaks the protocol."""
    assert payment.cancel(payment.State.PAID) is payment.State.CANCELLED
    assert payment.cancel(payment.State.CANCELLED) is payment.State.CANCELLED
    assert payment.cancel(payment.State.COMPLETED) is None


# --- reservation


def test_a_free_seat_is_held() -> None:
    """Nobody has it, so nothing stands against it."""
    assert reservation.hold(None, LATER, now=NOW) is None


@pytest.mark.parametrize("until", [NOW, NOW - TICK])
def test_a_hold_that_is_over_before_it_begins_is_refused(until: datetime) -> None:
    """Such a hold would be given away by the very next one."""
    assert reason(reservation.hold(None, until, now=NOW)) == "hold_in_the_past"


@pytest.mark.parametrize("state", [reservation.State.HELD, reservation.State.CONFIRMED])
def test_a_seat_that_is_held_or_sold_is_refused(state: reservation.State) -> None:
    """One seat, one holder."""
    assert reason(reservation.hold(held(state=state), LATER, now=NOW)) == "seat_taken"


def test_a_seat_is_given_away_when_its_hold_has_run_out() -> None:
    """The last moment of a hold is still held; the next one is free for others."""
    assert reason(reservation.hold(held(held_until=NOW), LATER, now=NOW)) == "seat_taken"
    assert reservation.hold(held(held_until=NOW - TICK), LATER, now=NOW) is None


def test_a_sold_seat_is_never_given_away() -> None:
    """Its hold runs out some day, its sale does not."""
    sold = held(held_until=NOW - TICK, state=reservation.State.CONFIRMED)
    assert reason(reservation.hold(sold, LATER, now=NOW)) == "seat_taken"


@pytest.mark.parametrize(
    ("mine", "code"),
    [
        (None, "unknown_reservation"),
        (held(user_id="bob"), "not_your_reservation"),
        (held(state=reservation.State.CONFIRMED), "reservation_taken"),
        (held(given_away=True), "seat_given_away"),
        (held(given_away=True, held_until=NOW - TICK), "seat_given_away"),
        (held(state=reservation.State.RELEASED), "hold_expired"),
        (held(held_until=NOW - TICK), "hold_expired"),
        (held(price=31), "price_mismatch"),
    ],
)
def test_a_reservation_is_refused_with_its_own_reason(mine: reservation.Reservation | None, code: str) -> None:
    """Each cause has its own code, because each is put right in another way."""
    assert reason(reservation.confirm(mine, "ann", 30, expires_at=LATER, now=NOW)) == code


@pytest.mark.parametrize("held_until", [LATER, NOW])
def test_a_held_reservation_is_confirmed(held_until: datetime) -> None:
    """Up to the last moment of its hold."""
    state = reservation.confirm(held(held_until=held_until), "ann", 30, expires_at=NOW, now=NOW)
    assert state is reservation.State.CONFIRMED


def test_a_reservation_is_not_confirmed_after_the_deadline_of_its_payment() -> None:
    """The holder of the baton that finds the deadline passed refuses; here it holds the baton."""
    assert reason(reservation.confirm(held(), "ann", 30, expires_at=NOW - TICK, now=NOW)) == "deadline_passed"


def test_a_confirmed_reservation_goes_back_to_held_or_is_released() -> None:
    """The user keeps the seat for as long as the hold lasts, and not a moment longer."""
    assert reservation.revert(NOW, now=NOW) is reservation.State.HELD
    assert reservation.revert(NOW - TICK, now=NOW) is reservation.State.RELEASED


# --- point


@pytest.mark.parametrize(
    ("balance", "deadline", "code"),
    [
        (None, LATER, "no_wallet"),
        (0, LATER, "balance_too_low"),
        (29, LATER, "balance_too_low"),
        (100, NOW - TICK, "deadline_passed"),
        (None, NOW - TICK, "deadline_passed"),
    ],
)
def test_points_are_refused_with_their_own_reason(balance: int | None, deadline: datetime, code: str) -> None:
    """An empty wallet and no wallet are two things to tell a user."""
    assert reason(point.deduct(balance, 30, expires_at=deadline, now=NOW)) == code


def test_the_last_point_may_be_spent_at_the_last_moment() -> None:
    """Both bounds are inside."""
    assert point.deduct(30, 30, expires_at=NOW, now=NOW) == 0


@given(balance=st.integers(0, point.MAX_BALANCE), amount=st.integers(1, 10**9))
def test_what_is_deducted_is_restored_exactly(balance: int, amount: int) -> None:
    """Undone means as it was before, for every balance and every amount."""
    after = point.deduct(balance, amount, expires_at=LATER, now=NOW)
    if isinstance(after, int):
        assert after >= 0
        assert point.restore(after, amount) == balance
    else:
        assert amount > balance


def test_a_top_up_opens_a_wallet_and_fills_it_to_the_brim() -> None:
    """The first one opens it; a full wallet takes no more; no balance leaves what every JSON reader can hold."""
    assert point.top_up(None, 5) == 5
    assert point.top_up(5, 5) == 10
    assert point.top_up(point.MAX_BALANCE - 5, 5) == point.MAX_BALANCE
    assert reason(point.top_up(point.MAX_BALANCE - 4, 5)) == "wallet_full"
    assert point.MAX_BALANCE < 2**53


# --- queue


@pytest.mark.parametrize(
    ("token", "deadline", "code"),
    [
        (None, LATER, "unknown_token"),
        (queue.Token("bob", queue.State.ACTIVE), LATER, "not_your_token"),
        (queue.Token("bob", queue.State.EXPIRED), LATER, "not_your_token"),
        (queue.Token("ann", queue.State.EXPIRED), LATER, "token_not_active"),
        (queue.Token("ann", queue.State.ACTIVE), NOW - TICK, "deadline_passed"),
    ],
)
def test_a_token_is_refused_with_its_own_reason(token: queue.Token | None, deadline: datetime, code: str) -> None:
    """The last step that may refuse, so the last chance to be right about why."""
    assert reason(queue.expire(token, "ann", expires_at=deadline, now=NOW)) == code


def test_an_active_token_is_used_up() -> None:
    """The pivot: up to and including the deadline."""
    token = queue.Token("ann", queue.State.ACTIVE)
    assert queue.expire(token, "ann", expires_at=NOW, now=NOW) is queue.State.EXPIRED


# --- notify


def test_a_notice_says_how_it_ended_and_names_the_payment() -> None:
    """It is all that a user ever sees of the saga."""
    assert "p-1" in notify.completed("p-1", "r-1", 30)
    assert "r-1" in notify.completed("p-1", "r-1", 30)
    told = notify.failed("p-1", "the wallet holds 5 points")
    assert "p-1" in told
    assert "the wallet holds 5 points" in told


def test_a_notice_waits_longer_after_each_attempt_and_is_then_parked() -> None:
    """A channel that is down for a while is not hammered, and one that is down for good does not hide."""
    waits = [notify.wait_after(attempts) for attempts in range(1, len(notify.WAITS) + 1)]
    assert waits == sorted(set(notify.WAITS))
    assert notify.wait_after(len(notify.WAITS) + 1) is None
    assert notify.wait_after(len(notify.WAITS) + 2) is None


def test_the_kinds_of_notices_are_those_of_the_published_language() -> None:
    """`notification.sent` is read by observers; a kind it does not know could not even be published."""
    kinds = TYPES["notification.sent"].model_fields["kind"].annotation
    assert set(getattr(kinds, "__args__", ())) == {str(kind) for kind in notify.Kind}
