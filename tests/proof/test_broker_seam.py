"""The production code's own session on the simulated broker: it cannot tell the difference."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import aio_pika
import pytest

from common import bus, topology
from common.outbox import Confirmed, Event, Unconfirmed, Unroutable
from common.settings import Delay
from proof.broker import Boundary, Fault, SimulatedBroker
from tests.support.broker_grounds import virtually

OBJECTS = topology.derive([Delay.parse("1s")])
URL = "amqp://saga:secret@simulated/"


@asynccontextmanager
async def session(broker: SimulatedBroker, patch: pytest.MonkeyPatch) -> AsyncIterator[bus.Session]:
    """A session of the payment service on the simulated broker, the topology declared."""
    patch.setattr(aio_pika, "connect", broker.connect)
    async with bus.open_session(URL, "payment") as opened:
        await opened.declare(OBJECTS)
        await opened.check(OBJECTS)
        yield opened


def event(type_: str, number: int = 0) -> Event:
    """An event in the outbox."""
    now = datetime.now(UTC)
    key = f"saga-{number}"
    return Event(id=uuid.uuid4(), key=key, type=type_, body="{}", traceparent="", staged_at=now, due_at=now)


class RefusesEveryThird:
    """A broker that does not take every third publish."""

    def __init__(self) -> None:
        self._count = 0

    def at(self, boundary: Boundary, where: str, what: str) -> Fault | None:
        """Refuse."""
        del where, what
        self._count += boundary is Boundary.PUBLISH_SENT
        return Fault.REFUSE if boundary is Boundary.PUBLISH_SENT and self._count % 3 == 0 else None


@pytest.mark.parametrize("seed", range(20))
def test_each_event_gets_its_own_word_in_whatever_order(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame may confirm many, and late ones come alone: none may be taken for another."""

    async def on_it() -> None:
        broker = SimulatedBroker(faults=RefusesEveryThird(), chance=random.Random(seed))
        async with session(broker, monkeypatch) as opened:
            channel = await (await broker.connect(URL)).channel()
            await (await channel.get_queue("reservation.events")).unbind(topology.EVENTS, "payment.paid")
            events = [event("payment.paid" if number % 2 else "queue.expired", number) for number in range(50)]
            words = await opened.publish_events(events)
        for number, word in enumerate(words):
            if number % 3 == 2:
                assert isinstance(word, Unconfirmed)
            else:
                assert word == (Unroutable() if number % 2 else Confirmed())

    virtually(on_it())


def test_a_service_takes_acks_and_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery reaches the inbox as it does from RabbitMQ, with user and headers; acked, it is gone."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        async with session(broker, monkeypatch) as opened:
            arrived = asyncio.Event()
            inbox = await opened.consume("payment.events", 100, arrived)
            await opened.publish_events([event("queue.expired", number) for number in range(3)])
            await arrived.wait()
            first, *rest = taken = inbox.take(10)
            assert (first.routing_key, first.user_id, first.correlation_id) == ("queue.expired", "saga", "saga-0")
            assert first.headers["cloudEvents_type"] == "queue.expired"
            assert len(rest) == 2
            await opened.publish_copies([bus.Copy(first, "payment.retry.1s", {"x-attempt": 1}, expires_in=900)])
            await inbox.ack(taken, all_before=True)
            arrived.clear()
            before = broker.core.clock.time()
            await arrived.wait()
            assert broker.core.clock.time() - before == pytest.approx(0.9, abs=0.01)
            (again,) = inbox.take(10)
            assert (again.routing_key, again.headers["x-attempt"]) == ("payment.return", 1)

    virtually(on_it())


def test_a_session_ends_with_either_of_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is lost, the service learns of it, and what it publishes then fails."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        async with session(broker, monkeypatch) as opened:
            (publishing,) = [wire for wire in broker.connections if wire.name.endswith("publish")]
            broker.kill(publishing)
            assert "publishing connection was lost" in await opened.ended()
            with pytest.raises(bus.SessionEnded):
                await opened.publish_events([event("queue.expired")])
        assert not broker.connections

    virtually(on_it())


def test_a_cancelled_consumer_ends_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that somebody deletes: the broker says so, and the next session declares it again."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        async with session(broker, monkeypatch) as opened:
            await opened.consume("payment.events", 100, asyncio.Event())
            broker.core.delete_queue("payment.events")
            assert await opened.ended() == "the broker cancelled payment.events"

    virtually(on_it())
