"""Notices on their straight way: from the batch that notes them down to the sender of the same process."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from common.outbox import Outbox
from common.unit_of_work import Batch
from notify_svc import step
from notify_svc.handover import LEASE, Handover
from notify_svc.models import Notice
from tests.support.bench import Bench, failure, forward


async def note(notify: Bench, handover: Handover) -> datetime:
    """Let a batch note down two notices; the time of its transaction."""
    times: list[datetime] = []

    async def unit(now: datetime, outbox: Outbox) -> None:
        times.append(now)
        batch = Batch([forward("notify"), failure("p-2")], now, outbox)
        await step.handle(batch, handover)
        assert handover.take(10, now) == [], "not before its row is committed"

    await notify.unit_of_work.run(unit)
    return times[-1]


async def test_a_notice_says_what_it_is_about(notify: Bench) -> None:
    """It is all that the user reads: which payment, which seat, how much, and why not."""
    await notify.do(forward("notify", reservation_id="r-7", amount=77), failure("p-2", detail="no such seat"))
    completed, failed = [(await Notice.get(saga_id=saga)).text for saga in ("p-1", "p-2")]
    for fact in ("p-1", "r-7", "77"):
        assert fact in completed
    for fact in ("p-2", "no such seat"):
        assert fact in failed


async def test_a_sender_that_is_there_gets_the_notices_of_a_batch_once_they_are_committed(notify: Bench) -> None:
    """Without a look at the table, as the first attempt, and leased, so that no other sender takes them too."""
    handover = Handover()
    handover.open(has_sender=True)
    now = await note(notify, handover)
    taken = handover.take(10, datetime.now(UTC))
    assert sorted(notice.saga_id for notice in taken) == ["p-1", "p-2"]
    for row in await Notice.all():
        assert (row.state, row.attempts) == ("PENDING", 1)
        assert row.due_at == now + LEASE


async def test_without_a_sender_a_notice_is_due_at_once_for_whoever_looks(notify: Bench) -> None:
    """This process may be starting or leaving; another replica's sender finds it in the table."""
    handover = Handover()
    now = await note(notify, handover)
    assert handover.take(10, datetime.now(UTC)) == []
    for row in await Notice.all():
        assert (row.state, row.attempts, row.due_at) == ("PENDING", 0, now)


async def test_a_batch_that_is_undone_hands_nothing_over(notify: Bench) -> None:
    """A user who is told of what never was cannot be told otherwise."""
    handover = Handover()
    handover.open(has_sender=True)

    async def broken(now: datetime, outbox: Outbox) -> None:
        await step.handle(Batch([forward("notify")], now, outbox), handover)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await notify.unit_of_work.run(broken)
    assert handover.take(10, datetime.now(UTC)) == []
    assert await Notice.all().count() == 0


async def test_a_sender_that_waits_is_woken_by_a_batch(notify: Bench) -> None:
    """It does not wait for the next look at the table."""
    handover = Handover()
    handover.open(has_sender=True)
    waiting = asyncio.create_task(handover.wait(60))
    await note(notify, handover)
    async with asyncio.timeout(10):
        await waiting
