"""The relay and its sweeper on a real table: a row is forgotten when it is confirmed, and never before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

from common.outbox import (
    WINDOW,
    Confirmation,
    Confirmed,
    Event,
    OutboxRow,
    Relay,
    Unconfirmed,
    Unroutable,
    message_id,
)
from tests.support.bench import Bench, forward
from tests.support.eventually import eventually


class Broker:
    """In the broker's place: keeps what is published and answers what it is told to."""

    def __init__(self) -> None:
        self.published: list[str] = []
        self.largest = 0
        self.answer: Callable[[Event], Confirmation] = lambda _: Confirmed()

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Publish one window; that takes a moment, as everything about a broker does."""
        await asyncio.sleep(0)
        self.published += [event.key for event in events]
        self.largest = max(self.largest, len(events))
        return [self.answer(event) for event in events]


@contextlib.asynccontextmanager
async def relaying(relay: Relay, broker: Broker) -> AsyncIterator[None]:
    """Let the relay run with this broker; if it breaks, so does the test, at once."""
    async with asyncio.TaskGroup() as group:
        running = group.create_task(relay.run(broker))
        yield
        running.cancel()


async def left() -> list[str]:
    """The keys of the rows that are still there."""
    return sorted(row.key for row in await OutboxRow.all())


async def overdue() -> None:
    """Let the grace of every row be over."""
    await OutboxRow.all().update(due_at=datetime.now(UTC) - timedelta(seconds=1))


async def flushed(relay: Relay) -> None:
    """Wait until the relay has nothing in hand."""
    async with asyncio.timeout(20):
        await relay.flushed()


async def test_committed_events_are_published_and_then_forgotten(payment: Bench) -> None:
    """The straight way: from memory to the broker, from the broker's word to the delete."""
    broker = Broker()
    async with relaying(payment.relay, broker):
        await payment.do(*(forward("payment", f"p-{number}") for number in range(WINDOW + 100)))
        await flushed(payment.relay)
    assert broker.published == [f"p-{number}" for number in range(WINDOW + 100)]
    assert broker.largest <= WINDOW
    assert await left() == []
    assert payment.relay.depth == 0


async def test_what_is_not_confirmed_stays_and_is_swept_later(payment: Bench) -> None:
    """Nobody knows whether the broker has it, so it is said again; twice is harmless, never is not."""
    broker = Broker()
    broker.answer = lambda row: Unconfirmed("no answer") if row.key == "p-2" else Confirmed()
    async with relaying(payment.relay, broker):
        await payment.do(forward("payment"), forward("payment", "p-2"), forward("payment", "p-3"))
        await flushed(payment.relay)
        assert await left() == ["p-2"]
        await payment.relay.sweep()
        await flushed(payment.relay)
        assert broker.published == ["p-1", "p-2", "p-3"], "not before its time"
        broker.answer = lambda _: Confirmed()
        await overdue()
        await payment.relay.sweep()
        await flushed(payment.relay)
    assert broker.published == ["p-1", "p-2", "p-3", "p-2"]
    assert await left() == []


async def test_what_has_nowhere_to_go_stays_until_the_route_is_mended(payment: Bench) -> None:
    """A missing binding must cost time and an alarm, not a saga."""
    broker = Broker()
    broker.answer = lambda _: Unroutable()
    async with relaying(payment.relay, broker):
        await payment.do(forward("payment"))
        for _ in range(3):
            await flushed(payment.relay)
            assert await left() == ["p-1"]
            await overdue()
            await payment.relay.sweep()
        broker.answer = lambda _: Confirmed()
        await overdue()
        await payment.relay.sweep()
        await flushed(payment.relay)
    assert await left() == []


async def test_a_new_process_finishes_what_a_crash_left(payment: Bench) -> None:
    """Committed and never published: the row is all that is left of it."""
    await payment.do(forward("payment"))
    reborn, broker = Relay(1000, payment.life), Broker()
    async with relaying(reborn, broker):
        await reborn.sweep()
        assert broker.published == [], "another replica may have it in hand"
        await overdue()
        await reborn.sweep()
        await flushed(reborn)
    assert broker.published == ["p-1"]
    assert await left() == []


async def test_rows_that_wait_for_a_broker_are_published_by_the_next_connection(payment: Bench) -> None:
    """The relay outlives its connections."""
    await payment.do(forward("payment"))
    await payment.do(forward("payment", "p-2"))
    broker = Broker()
    async with relaying(payment.relay, broker):
        await flushed(payment.relay)
    assert broker.published == ["p-1", "p-2"]


async def test_a_connection_that_breaks_while_publishing_loses_nothing(payment: Bench) -> None:
    """What was in flight is in flight again."""

    def broken(_: Event) -> Confirmation:
        raise ConnectionError("gone")

    broker = Broker()
    broker.answer = broken
    await payment.do(forward("payment"))
    running = asyncio.create_task(payment.relay.run(broker))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            await running
    assert await left() == ["p-1"]
    broker.answer = lambda _: Confirmed()
    async with relaying(payment.relay, broker):
        await flushed(payment.relay)
    assert broker.published == ["p-1", "p-1"]
    assert await left() == []


async def test_a_service_takes_no_more_when_its_outbox_is_too_far_behind(payment: Bench) -> None:
    """The messages wait in the broker, where they can be seen, and not in this table."""
    relay = Relay(3, payment.life)
    payment.unit_of_work._relay = relay
    assert await relay.has_room(seconds=0)
    await payment.do(forward("payment"), forward("payment", "p-2"))
    assert await relay.has_room(seconds=0)
    await payment.do(forward("payment", "p-3"))
    assert not await relay.has_room(seconds=0.01)
    async with relaying(relay, Broker()):
        assert await relay.has_room(seconds=10)


async def test_rows_that_a_crash_left_count_as_behind(payment: Bench) -> None:
    """A restart must not forget how far behind the service was."""
    number = WINDOW + 50
    await payment.do(*(forward("payment", f"p-{n}") for n in range(number)))
    await overdue()
    reborn = Relay(number - 10, payment.life)
    await reborn.sweep()
    assert reborn.depth >= number - 10
    assert not await reborn.has_room(seconds=0.01)
    broker = Broker()
    async with relaying(reborn, broker):

        async def nothing_is_left() -> bool:
            await reborn.sweep()
            return await left() == []

        await eventually(nothing_is_left, seconds=20)
        assert await reborn.has_room(seconds=1)
    assert set(broker.published) == {f"p-{n}" for n in range(number)}


def test_the_id_of_a_message_is_the_same_however_often_it_is_said() -> None:
    """Observers deduplicate by it; and other sagas and types have others."""
    ids = {message_id(key, type_) for key in ("p-1", "p-2") for type_ in ("payment.paid", "payment.failed")}
    assert len(ids) == 4
    assert message_id("p-1", "payment.paid") == message_id("p-1", "payment.paid")
