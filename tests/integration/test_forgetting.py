"""Confirmed events are forgotten together with what the next batch writes: with it, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from common.outbox import Confirmation, Confirmed, Event, Outbox, OutboxRow, Relay
from tests.support.bench import Bench, forward


class Broker:
    """In the broker's place: confirms everything, and remembers what it was."""

    def __init__(self) -> None:
        self.published: list[str] = []

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Confirm them after a moment."""
        await asyncio.sleep(0)
        self.published += [event.key for event in events]
        return [Confirmed()] * len(events)


async def confirm(relay: Relay, broker: Broker) -> None:
    """Let the relay publish what it has in hand, and stop it before it forgets any of it by itself."""
    running = asyncio.create_task(relay.run(broker))
    async with asyncio.timeout(10):
        while not relay.confirmed:  # noqa: ASYNC110 - the relay has no event for it, and needs none
            await asyncio.sleep(0)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def left() -> list[str]:
    """The keys of the rows that are still there."""
    return sorted(row.key for row in await OutboxRow.all())


async def test_the_next_batch_forgets_what_is_confirmed(payment: Bench) -> None:
    """Its transaction is there anyway, and one of its own would cost as much as the batch."""
    await payment.do(forward("payment"), forward("payment", "p-2"))
    await confirm(payment.relay, Broker())
    assert await left() == ["p-1", "p-2"], "confirmed, and not yet forgotten"
    await payment.do(forward("payment", "p-3"))
    assert await left() == ["p-3"]
    assert payment.relay.confirmed == []
    assert payment.relay.depth == 1


async def test_a_batch_that_is_undone_forgets_nothing(payment: Bench) -> None:
    """What it deleted is there again, and would otherwise be there for ever."""

    async def broken(_: datetime, __: Outbox) -> None:
        raise RuntimeError("no")

    await payment.do(forward("payment"))
    await confirm(payment.relay, Broker())
    confirmed = payment.relay.confirmed
    with pytest.raises(RuntimeError):
        await payment.unit_of_work.run(broken)
    assert await left() == ["p-1"]
    assert payment.relay.confirmed == confirmed != []


async def test_what_is_confirmed_is_never_said_again_although_its_row_is_still_there(payment: Bench) -> None:
    """A quiet hour passes between the confirm and the next batch: the sweeper must know better."""
    broker = Broker()
    await payment.do(forward("payment"))
    await confirm(payment.relay, broker)
    await OutboxRow.all().update(due_at=datetime.now(UTC) - timedelta(seconds=1))
    await payment.relay.sweep()
    assert payment.relay.depth == 0
    await payment.do(forward("payment", "p-2"))
    await confirm(payment.relay, broker)
    assert broker.published == ["p-1", "p-2"]


async def test_two_units_side_by_side_do_not_delete_the_same_rows(payment: Bench) -> None:
    """They would wait for each other, and could do so in a ring."""
    await payment.do(forward("payment"))
    await confirm(payment.relay, Broker())
    with payment.relay.forgetting() as first, payment.relay.forgetting() as second:
        assert (len(first), second) == (1, [])
    assert payment.relay.confirmed == []


async def test_what_is_to_happen_after_a_unit_happens_after_its_commit_and_only_then(payment: Bench) -> None:
    """A sender that is told of a notice before its row is committed could send what never was."""
    done: list[int] = []

    async def unit(_: datetime, outbox: Outbox) -> None:
        outbox.once_committed(lambda: done.append(1))
        assert done == []

    async def broken(now: datetime, outbox: Outbox) -> None:
        await unit(now, outbox)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await payment.unit_of_work.run(broken)
    assert done == []
    await payment.unit_of_work.run(unit)
    assert done == [1]
