"""The sender of notices: outside of any transaction, at least once, patient, and in the end a person's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from common import topology
from common.life import Life
from common.outbox import Outbox, OutboxRow
from notify_svc import domain, sender
from notify_svc.handover import LEASE, SECONDS_PER_NOTICE, Handover
from notify_svc.models import Notice
from tests.support.bench import Bench, failure, forward
from tests.support.eventually import eventually


class Channel:
    """A channel that keeps what it is given, and fails as often as it is told to."""

    def __init__(self, *, fails: int = 0, error: Exception | None = None) -> None:
        self.sent: list[str] = []
        self.tried = 0
        self._fails = fails
        self._error = error

    async def __call__(self, notice: Notice) -> bool:
        """Send one notice."""
        self.tried += 1
        if self.tried <= self._fails:
            if self._error:
                raise self._error
            return False
        self.sent.append(notice.text)
        return True


async def due_again() -> None:
    """Let the waits and leases be over."""
    await Notice.filter(state="PENDING").update(due_at=datetime.now(UTC) - timedelta(seconds=1))


async def wait_of(saga_id: str = "p-1") -> timedelta:
    """How long a notice still waits."""
    return (await Notice.get(saga_id=saga_id)).due_at - datetime.now(UTC)


async def test_both_kinds_of_notices_are_sent_once_and_said(notify: Bench) -> None:
    """The user is told how it ended, and observers are told that the user was."""
    channel = Channel()
    await notify.do(forward("notify"), failure("p-2", detail="nobody was given this token"))
    assert await notify.said() == [], "not before it has gone out"
    assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 2
    assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 0
    assert len(channel.sent) == 2
    assert any("nobody was given this token" in text for text in channel.sent)
    events = {body["payment_id"]: (type_, body["kind"]) for type_, body in await notify.events()}
    assert events == {"p-1": ("notification.sent", "completed"), "p-2": ("notification.sent", "failed")}
    assert {notice.state for notice in await Notice.all()} == {"SENT"}


async def test_a_repeated_pivot_sends_no_second_notice(notify: Bench) -> None:
    """Nobody wants the same mail for every repetition of a message."""
    channel = Channel()
    for _ in range(3):
        await notify.do(forward("notify"), forward("notify"), failure())
        await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers)
    assert len(channel.sent) == 1


@pytest.mark.parametrize("error", [None, RuntimeError("the channel is down"), TimeoutError()])
async def test_a_failing_channel_is_tried_again_after_growing_waits_and_then_parked(
    notify: Bench, error: Exception | None
) -> None:
    """It is retried, then put before a person in the parked queue; the payment is never undone by it."""
    channel = Channel(fails=10**9, error=error)
    await notify.do(forward("notify"))
    waits: list[timedelta] = []
    for _ in domain.WAITS:
        assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 1
        waits.append(await wait_of())
        assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 0
        assert await OutboxRow.all().count() == 0
        await due_again()
    for wait, expected in zip(waits, domain.WAITS, strict=True):
        assert expected - timedelta(seconds=5) < wait <= expected
    assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 1
    notice = await Notice.get(saga_id="p-1")
    assert (notice.state, notice.attempts) == ("PARKED", len(domain.WAITS) + 1)
    (row,) = await OutboxRow.all()
    assert (row.type, row.key, row.parked_because) == ("notification.sent", "p-1", "channel_failed")
    assert row.detail
    assert topology.parked_queue("notify") == "notify.parked"
    assert await notify.said() == []
    await due_again()
    assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 0
    assert await notify.state() == "done"


async def test_a_channel_that_recovers_sends_the_notice(notify: Bench) -> None:
    """A bad hour of a mail server costs an hour, not the mail."""
    channel = Channel(fails=2)
    await notify.do(forward("notify"))
    for _ in range(3):
        await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers)
        await due_again()
    assert len(channel.sent) == 1
    assert await notify.said() == ["notification.sent"]


async def test_one_channel_that_fails_does_not_hold_up_other_notices(notify: Bench) -> None:
    """One user's broken address is no other user's problem."""

    async def picky(notice: Notice) -> bool:
        if notice.user_id == "bob":
            raise RuntimeError("no such mailbox")
        return True

    await notify.do(forward("notify"), forward("notify", "p-2", user_id="bob"), forward("notify", "p-3"))
    await sender.deliver(Life("notify"), notify.unit_of_work, picky, notify.observers)
    states = {notice.saga_id: notice.state for notice in await Notice.all()}
    assert states == {"p-1": "SENT", "p-2": "PENDING", "p-3": "SENT"}


async def test_a_notice_in_hand_is_leased_and_taken_up_again_when_its_sender_died(notify: Bench) -> None:
    """Two senders do not send the same at once, and what a dead one had in hand is not forgotten."""
    await notify.do(forward("notify"))
    leased = await notify.unit_of_work.run(sender._lease)
    assert [notice.saga_id for notice in leased] == ["p-1"]
    assert await notify.unit_of_work.run(sender._lease) == []
    assert LEASE / 2 < await wait_of() <= LEASE
    await due_again()
    channel = Channel()
    await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers)
    assert len(channel.sent) == 1


async def test_no_transaction_is_open_while_a_notice_is_sent(notify: Bench) -> None:
    """A mail server that takes half a minute must not hold a connection, nor SQLite's only writer."""

    async def slow(_: Notice) -> bool:
        await notify.do(forward("notify", "p-2"))
        return True

    await notify.do(forward("notify"))
    async with asyncio.timeout(20):
        await sender.deliver(Life("notify"), notify.unit_of_work, slow, notify.observers)
    assert await notify.state("p-2") == "done"


async def test_a_sender_whose_lease_ran_out_does_not_undo_what_another_has_settled(notify: Bench) -> None:
    """Slow and failing, it would turn SENT into PENDING, and the user would be told again."""
    await notify.do(forward("notify"))

    async def slow(_: Notice) -> bool:
        await due_again()
        await sender.deliver(Life("notify"), notify.unit_of_work, Channel(), notify.observers)
        return False

    await sender.deliver(Life("notify"), notify.unit_of_work, slow, notify.observers)
    assert (await Notice.get(saga_id="p-1")).state == "SENT"


def test_a_lease_is_longer_than_the_slowest_round() -> None:
    """Otherwise another replica sends what this one still has in hand."""
    assert LEASE.total_seconds() > SECONDS_PER_NOTICE


async def test_the_sender_works_until_the_service_stops_whatever_happens(
    notify: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stumble of the sender costs a moment, and stopping is heard."""
    monkeypatch.setattr(sender, "_IDLE_SECONDS", 0.01)
    real, stumbles = sender.deliver, iter([True])

    async def stumbling(*arguments: object) -> int:
        if next(stumbles, False):
            raise RuntimeError("boom")
        return await real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sender, "deliver", stumbling)
    channel = Channel()
    await notify.do(forward("notify"))
    running = asyncio.create_task(
        sender.run(notify.life, notify.unit_of_work, notify.observers, channel=channel, handover=Handover())
    )
    await eventually(lambda: channel.sent, seconds=10)
    await notify.do(forward("notify", "p-2"))
    await eventually(lambda: len(channel.sent) == 2, seconds=10)
    notify.life.stop()
    async with asyncio.timeout(10):
        await running


@pytest.mark.server_only
async def test_a_sender_takes_what_another_has_not_in_hand_and_waits_for_nobody(notify: Bench) -> None:
    """Two replicas look at the same moment: the second must neither wait for the first nor send the same."""
    await notify.do(*(forward("notify", f"p-{number}") for number in range(sender._AT_ONCE + 50)))
    leased, done = asyncio.Event(), asyncio.Event()

    async def slowly(now: datetime, outbox: Outbox) -> list[Notice]:
        notices = await sender._lease(now, outbox)
        leased.set()
        await done.wait()
        return notices

    first = asyncio.create_task(notify.unit_of_work.run(slowly))
    await leased.wait()
    try:
        async with asyncio.timeout(10):
            second = await notify.unit_of_work.run(sender._lease)
    finally:
        done.set()
        taken = await first
    assert (len(taken), len(second)) == (sender._AT_ONCE, 50)
    assert not {notice.saga_id for notice in taken} & {notice.saga_id for notice in second}


async def test_the_log_is_a_channel(notify: Bench) -> None:
    """Where no channel is set, the notice is in the database and counts as told."""
    await notify.do(forward("notify"))
    await sender.deliver(Life("notify"), notify.unit_of_work, sender.to_log, notify.observers)
    assert (await Notice.get(saga_id="p-1")).state == "SENT"
