"""The sweeper and the relay in company, at their limits, and what they tell of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, MutableMapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from common.outbox import GRACE, Confirmation, Confirmed, Event, OutboxRow, Relay, Unconfirmed, Unroutable
from tests.support.bench import Bench, forward


class Broker:
    """In the broker's place: answers what it is told to."""

    def __init__(self, answer: Callable[[Event], Confirmation]) -> None:
        self.answer = answer
        self.forgets = 0

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Answer for each row, but for so many as are forgotten; that takes a moment."""
        await asyncio.sleep(0)
        return [self.answer(row) for row in events[self.forgets :]]


async def overdue() -> None:
    """Let the grace of every row be over."""
    await OutboxRow.all().update(due_at=datetime.now(UTC) - timedelta(seconds=1))


async def publish(relay: Relay, broker: Broker) -> None:
    """Let the relay say once what it has in hand."""
    running = asyncio.create_task(relay.run(broker))
    flushed = asyncio.create_task(relay.flushed())
    async with asyncio.timeout(10):
        await asyncio.wait((running, flushed), return_when=asyncio.FIRST_COMPLETED)
    for task in (running, flushed):
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def one(told: list[MutableMapping[str, Any]], event: str) -> MutableMapping[str, Any]:
    """The one line of the log in which these words appear."""
    (line,) = [line for line in told if event in line["event"]]
    return line


async def test_a_row_that_one_sweeper_took_is_left_alone_by_the_others(payment: Bench) -> None:
    """Else every replica would publish every row that a crash left, each time."""
    await payment.do(forward("payment"))
    await overdue()
    first, second = Relay(1000, payment.life), Relay(1000, payment.life)
    await first.sweep()
    assert first.depth == 1
    row = await OutboxRow.get(key="p-1")
    assert row.due_at > datetime.now(UTC) + GRACE / 2
    await second.sweep()
    assert second.depth == 0


async def test_rows_in_hand_that_are_overdue_are_counted_once(payment: Bench) -> None:
    """An outbox that seems twice as full as it is would stop the service at half its limit."""
    await payment.do(forward("payment"), forward("payment", "p-2"))
    await overdue()
    await payment.relay.sweep()
    assert payment.relay.depth == 2


async def test_an_empty_outbox_is_not_behind(payment: Bench) -> None:
    """With nothing to do there is nothing to wait for."""
    relay = Relay(1, payment.life)
    await relay.sweep()
    assert relay.depth == 0
    assert await relay.has_room(seconds=0)


async def test_a_row_without_an_answer_is_never_taken_for_published(payment: Bench) -> None:
    """A publisher that answers for fewer events than it was given has lost count: nothing may be forgotten."""
    await payment.do(forward("payment"), forward("payment", "p-2"))
    broker = Broker(lambda _: Confirmed())
    broker.forgets = 1
    with pytest.raises(ValueError, match="shorter"):
        await publish(payment.relay, broker)
    assert await OutboxRow.all().count() == 2


async def test_an_event_that_has_nowhere_to_go_raises_an_alarm_that_names_it(payment: Bench) -> None:
    """A person must mend the binding, and needs to know which."""
    await payment.do(forward("payment"))
    with structlog.testing.capture_logs() as told:
        await publish(payment.relay, Broker(lambda _: Unroutable()))
    line = one(told, "nowhere to go")
    assert (line["alarm"], line["type"], line["saga"]) == (True, "payment.paid", "p-1")


async def test_an_event_that_is_not_confirmed_is_told_with_its_cause(payment: Bench) -> None:
    """It will be said again, so nobody is alarmed; but whoever looks for a delay finds it."""
    await payment.do(forward("payment"))
    with structlog.testing.capture_logs() as told:
        await publish(payment.relay, Broker(lambda _: Unconfirmed("nacked")))
    line = one(told, "not confirmed")
    assert (line["log_level"], line["type"], line["saga"], line["why"]) == (
        "warning",
        "payment.paid",
        "p-1",
        "nacked",
    )


async def test_a_sweep_that_finds_something_tells_how_much_and_how_old_it_is(payment: Bench) -> None:
    """Rows that a crash left are the trace of the crash."""
    await payment.do(forward("payment"), forward("payment", "p-2"))
    await overdue()
    reborn = Relay(1000, payment.life)
    with structlog.testing.capture_logs() as told:
        await reborn.sweep()
        await reborn.sweep()
    line = one(told, "sweeping")
    staged = (await OutboxRow.get(key="p-1")).staged_at
    assert (line["rows"], datetime.fromisoformat(line["oldest"])) == (2, staged)


async def test_an_outbox_that_is_too_far_behind_raises_one_alarm(payment: Bench) -> None:
    """One, when it begins: not one for every message while it lasts."""
    relay = Relay(2, payment.life)
    payment.unit_of_work._relay = relay
    with structlog.testing.capture_logs() as told:
        for number in range(4):
            await payment.do(forward("payment", f"p-{number}"))
    line = one(told, "too far behind")
    assert (line["alarm"], line["depth"]) == (True, 2)
