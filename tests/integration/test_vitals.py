"""What a service knows of its own state for those who look on: open payments, unsent notices, unheard events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from common.history import Entry
from common.outbox import GRACE, OutboxRow, Relay
from notify_svc import sender
from notify_svc.models import Notice
from payment_svc import unsettled
from payment_svc.models import Payment
from tests.support import bodies
from tests.support.bench import Bench, failure, forward
from tests.support.hand_fed import HandFedInbox


async def test_a_payment_is_open_until_it_is_completed_or_cancelled(payment: Bench) -> None:
    """A saga that got stuck is found by the age of the oldest."""
    await payment.do(forward("payment", "p-1"), forward("payment", "p-2"), forward("payment", "p-3"))
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    await Payment.filter(payment_id="p-2").update(paid_at=long_ago)
    await unsettled.count(payment.life.health)
    assert payment.life.health.open_sagas == 3
    assert payment.life.health.oldest_open_saga == long_ago
    await payment.do(forward("notify", "p-2"), failure("p-1"))
    await unsettled.count(payment.life.health)
    assert payment.life.health.open_sagas == 1
    await payment.do(failure("p-3"))
    await unsettled.count(payment.life.health)
    assert payment.life.health.open_sagas == 0
    assert payment.life.health.oldest_open_saga is None


@pytest.mark.parametrize("end", ["queue.expired", "point.failed"])
async def test_where_a_saga_ends_it_is_told_how_long_it_took(payment: Bench, end: str) -> None:
    """Once: what comes again ends nothing."""
    await payment.do(forward("payment"))
    await Payment.filter(payment_id="p-1").update(paid_at=datetime.now(UTC) - timedelta(seconds=90))
    told: list[Entry] = []
    with payment.observers.joined_by(lambda record: told.extend(record.entries)):
        for _ in range(2):
            inbox = HandFedInbox("payment.events")
            inbox.deliver(end, bodies.failure("p-1", "point") if end == "point.failed" else bodies.forward(end))
            await payment.consume(inbox)
    assert told[0].lasted_ms == pytest.approx(90_000, abs=20_000)
    assert told[1].lasted_ms == 0


async def test_an_event_that_nobody_heard_is_known_by_its_age(payment: Bench) -> None:
    """Also after it has left this process's memory: an event that finds no route stays in the table."""
    relay = Relay(10_000, payment.life)
    await relay.sweep()
    assert relay.oldest is None
    await payment.do(forward("payment"))
    (fresh,) = await OutboxRow.all()
    assert payment.relay.oldest == fresh.staged_at, "what this process has in hand"
    await relay.sweep()
    assert relay.oldest is None, "what another process has in hand is its own to tell"
    long_ago = datetime.now(UTC) - 10 * GRACE
    await OutboxRow.all().update(staged_at=long_ago)
    await relay.sweep()
    assert relay.oldest == long_ago
    await OutboxRow.all().delete()
    await relay.sweep()
    assert relay.oldest is None


async def test_notices_that_are_not_sent_are_counted(notify: Bench) -> None:
    """A parked one is a user who was never told."""
    await notify.do(failure("p-1"), failure("p-2"), failure("p-3"))
    await Notice.filter(saga_id="p-2").update(state="PARKED")
    await Notice.filter(saga_id="p-3").update(state="SENT")
    assert await sender.count() == {"pending": 1, "parked": 1}
