"""A refusal goes through the whole handler as a value: it has its reason, spoils nobody, and touches nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.messages import Message
from common.outbox import OutboxRow
from common.recovery import Dead
from reservation_svc.models import Reservation
from tests.support import bodies
from tests.support.bench import Bench, Opens, enter, forward, hold, top_up


@pytest.mark.parametrize(
    ("name", "given", "changes", "reason"),
    [
        ("payment", None, {"amount": 1_000_001}, "over_limit"),
        ("payment", None, {"expires_at": bodies.LONG_AGO}, "deadline_passed"),
        ("reservation", None, {}, "unknown_reservation"),
        ("reservation", hold(user_id="bob"), {}, "not_your_reservation"),
        ("reservation", hold(price=31), {}, "price_mismatch"),
        ("reservation", hold(), {"expires_at": bodies.LONG_AGO}, "deadline_passed"),
        ("point", None, {}, "no_wallet"),
        ("point", top_up(amount=29), {}, "balance_too_low"),
        ("point", top_up(), {"expires_at": bodies.LONG_AGO}, "deadline_passed"),
        ("queue", None, {}, "unknown_token"),
        ("queue", enter(user_id="bob"), {}, "not_your_token"),
        ("queue", enter(), {"expires_at": bodies.LONG_AGO}, "deadline_passed"),
    ],
)
async def test_a_refused_step_changes_nothing_and_is_dead_with_its_reason(
    opened: Opens, name: str, given: Message | None, changes: dict[str, object], reason: str
) -> None:
    """The dead-letter handler ends the saga afterwards, in a transaction of its own."""
    async with opened(name) as service:
        if given is not None:
            await service.do(given)
        before, said = await service.holds(), await OutboxRow.all().count()
        (outcome,) = await service.do(forward(name, "p-1", **changes))
        assert isinstance(outcome, Dead)
        assert outcome.reason == reason
        assert outcome.detail
        assert await service.holds() == before
        assert await OutboxRow.all().count() == said


async def test_a_seat_that_somebody_else_was_given_meanwhile_is_refused_as_that(reservation: Bench) -> None:
    """Not as unknown: the user did hold it, and can see from the reason that paying faster would have helped."""
    await reservation.do(hold())
    await Reservation.all().update(held_until=datetime.now(UTC) - timedelta(seconds=1))
    await reservation.do(hold("r-2", user_id="bob"))
    (outcome,) = await reservation.do(forward("reservation"))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "seat_given_away"
