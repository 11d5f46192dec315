"""What strikes at a boundary of the simulated broker does what it says there, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiormq.exceptions import AMQPConnectionError

from proof.broker import SECONDS_TO_RETRY, Boundary, Delay, Fault, SimulatedBroker
from tests.support.broker_grounds import Simulated, virtually
from tests.support.broker_scenarios.base import bound, mortal
from tests.support.broker_stage import Client, Stage


class Once:
    """Strikes once, at the first message to pass a boundary on the breakable connection or out of a queue."""

    def __init__(self, boundary: Boundary, fault: Fault | Delay) -> None:
        self.passed: list[tuple[Boundary, str, str]] = []
        self._boundary = boundary
        self._fault: Fault | Delay | None = fault

    def at(self, boundary: Boundary, where: str, what: str) -> Fault | Delay | None:
        """Strike, if it is here and has not been."""
        if where == "steady":
            return None
        self.passed.append((boundary, where, what))
        if boundary is not self._boundary:
            return None
        fault, self._fault = self._fault, None
        return fault


Scene = Callable[[Stage, SimulatedBroker], Awaitable[None]]


def with_fault(boundary: Boundary, fault: Fault | Delay, scene: Scene) -> Once:
    """Play a scene on a broker in which this strikes."""
    once = Once(boundary, fault)

    async def on_it() -> None:
        broker = SimulatedBroker(faults=once)
        stage = Stage(Simulated(broker))
        await scene(stage, broker)
        await stage.leave()

    virtually(on_it())
    return once


def ready(broker: SimulatedBroker, queue: str = "q") -> list[str]:
    """The bodies that are ready in a queue."""
    return [message.body.decode() for message in broker.core.contents().get(queue, [])]


async def _publishes(stage: Stage) -> str:
    steady, client = await stage.client(), await stage.client(breakable=True)
    await bound(steady, "q")
    return await client.publish("ex", "q", "one", mandatory=True)


@pytest.mark.parametrize(
    ("boundary", "fault", "outcome", "stored"),
    [
        (Boundary.PUBLISH_SENT, Fault.LOSE, "closed: AMQPConnectionError", []),
        (Boundary.PUBLISH_STORED, Fault.LOSE, "closed: AMQPConnectionError", ["one"]),
        (Boundary.CONFIRM_SENT, Fault.LOSE, "closed: AMQPConnectionError", ["one"]),
        (Boundary.PUBLISH_SENT, Fault.REFUSE, "refused", []),
        (Boundary.PUBLISH_SENT, Delay(5), "confirmed", ["one"]),
        (Boundary.CONFIRM_SENT, Delay(5), "confirmed", ["one"]),
    ],
)
def test_a_publish_is_lost_stored_refused_or_late(
    boundary: Boundary, fault: Fault | Delay, outcome: str, stored: list[str]
) -> None:
    """A publisher that hears of a lost connection cannot know whether its message is there: both are possible."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        before = broker.core.clock.time()
        assert await _publishes(stage) == outcome
        assert ready(broker) == stored
        took = broker.core.clock.time() - before
        assert took == pytest.approx(5 if isinstance(fault, Delay) else 0, abs=0.01)

    with_fault(boundary, fault, scene)


async def _consumes(stage: Stage) -> tuple[Client, Client]:
    steady, client = await stage.client(), await stage.client(breakable=True)
    await bound(steady, "q")
    await steady.publish("ex", "q", "one")
    reader = await client.consume("q")
    await reader.ack(await reader.next())
    return steady, client


@pytest.mark.parametrize(
    ("boundary", "again"), [(Boundary.ACK_SENT, ["one"]), (Boundary.ACK_DONE, []), (Boundary.CONFIRM_SENT, [])]
)
def test_an_ack_is_lost_or_just_not_answered(boundary: Boundary, again: list[str]) -> None:
    """Lost before the broker took it, the message comes again and is counted; afterwards it is gone."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        steady, _ = await _consumes(stage)
        await steady.waits("q", len(again))
        assert ready(broker) == again
        assert broker.core.outstanding() == len(again)
        if again:
            reader = await steady.consume("q")
            await reader.next()
            assert stage.seen[-1][2]["headers"] == {"x-delivery-count": 1}

    with_fault(boundary, Fault.LOSE, scene)


def test_a_delivery_that_is_lost_comes_to_somebody_else() -> None:
    """It was out when the connection broke: it goes back, and counts as delivered once."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        steady, client = await stage.client(), await stage.client(breakable=True)
        await bound(steady, "q")
        reader = await client.consume("q")
        await steady.publish("ex", "q", "one")
        await client.ends()
        assert reader.unread == 0
        assert ready(broker) == ["one"]
        assert broker.core.queues["q"].consumers == 0

    with_fault(Boundary.DELIVERY_SENT, Fault.LOSE, scene)


def test_a_repeated_delivery_is_another_message() -> None:
    """As a publisher makes one that did not hear the confirm: not marked, with a tag of its own."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        steady, client = await stage.client(), await stage.client(breakable=True)
        await bound(steady, "q")
        reader = await client.consume("q")
        await steady.publish("ex", "q", "one")
        one, two = await reader.some(2)
        assert one.body == two.body
        assert one.tag != two.tag
        assert stage.seen[-1] == stage.seen[-2]
        await reader.ack(two, multiple=True)
        await client.waits("q", 0)
        assert broker.core.outstanding() == 0

    with_fault(Boundary.DELIVERY_SENT, Fault.REPEAT, scene)


@pytest.mark.parametrize(("fault", "at"), [(Fault.LOSE, [3 * 60 + 1]), (Fault.REPEAT, [1, 3 * 60 + 1])])
def test_a_dead_letter_is_sent_again_after_a_while(fault: Fault, at: list[float]) -> None:
    """At least once: what the broker did not see arrive it sends again after three minutes, even if it did."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        client = await stage.client()
        await mortal(client, message_ttl=1000)
        reader = await (await client.sibling()).consume("dead")
        before = broker.core.clock.time()
        await client.publish("ex", "work", "one")
        for seconds in at:
            await asyncio.sleep(before + seconds - 0.01 - broker.core.clock.time())
            assert not reader.unread
            await asyncio.sleep(0.02)
            await reader.ack(await reader.next())
        await asyncio.sleep(2 * SECONDS_TO_RETRY)
        assert broker.core.outstanding() == 0

    with_fault(Boundary.DEAD_LETTER_SENT, fault, scene)


def test_what_is_late_holds_up_its_own_connection_only() -> None:
    """A connection is one stream: nothing overtakes in it, and nobody else waits for it."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        steady, slow = await stage.client(), await stage.client(breakable=True)
        await bound(steady, "q")
        first = asyncio.create_task(slow.publish("ex", "q", "late"))
        second = asyncio.create_task(slow.publish("ex", "q", "behind it"))
        await asyncio.sleep(1)
        await steady.publish("ex", "q", "by another way")
        assert ready(broker) == ["by another way"]
        await asyncio.gather(first, second)
        assert ready(broker) == ["by another way", "late", "behind it"]

    with_fault(Boundary.PUBLISH_SENT, Delay(5), scene)


def test_every_boundary_is_asked_once_and_in_order() -> None:
    """Whoever counts boundaries to strike at the n-th must find the same ones each time."""

    async def scene(stage: Stage, broker: SimulatedBroker) -> None:
        steady, client = await stage.client(), await stage.client(breakable=True)
        await bound(steady, "q")
        await client.publish("ex", "q", "one")
        reader = await client.consume("q")
        await reader.ack(await reader.next())
        await client.waits("q", 0)
        del broker

    once = with_fault(Boundary.DEAD_LETTER_SENT, Fault.LOSE, scene)
    boundaries = [boundary for boundary, where, what in once.passed if (where, what) == ("breakable", "q")]
    assert boundaries == list(Boundary)[:-1]


def test_a_killed_service_loses_what_bears_its_name() -> None:
    """A service has two connections, named after it; its neighbours keep theirs."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        stage = Stage(Simulated(broker))
        steady, one, two = [await stage.client(breakable=breakable) for breakable in (False, True, True)]
        await bound(steady, "q")
        await steady.publish("ex", "q", "one")
        reader = await one.consume("q")
        await reader.next()
        broker.kill("breakable")
        for client in (one, two):
            await client.ends()
        assert ready(broker) == ["one"]
        await steady.waits("q", 1)
        await stage.leave()

    virtually(on_it())


def test_each_end_may_notice_a_lost_connection_later() -> None:
    """A half-open connection: nothing gets through, and whoever has not noticed waits."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        stage = Stage(Simulated(broker))
        steady, client = await stage.client(), await stage.client(breakable=True)
        await bound(steady, "q")
        await steady.publish("ex", "q", "one")
        reader = await client.consume("q")
        delivered = await reader.next()
        broker.kill("breakable", client_after=15, broker_after=10)
        await reader.ack(delivered)
        publishing = asyncio.create_task(client.publish("ex", "q", "into the void"))
        await asyncio.sleep(9.9)
        assert broker.core.queues["q"].out == 1
        await asyncio.sleep(0.2)
        assert ready(broker) == ["one"]
        assert not publishing.done()
        assert await publishing == "closed: AMQPConnectionError"
        assert broker.core.clock.time() == pytest.approx(15, abs=0.1)
        await stage.leave()

    virtually(on_it())


def test_a_restart_keeps_what_is_durable() -> None:
    """Queues, bindings and messages are there again; connections are not, and what was out is counted."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        stage = Stage(Simulated(broker))
        client = await stage.client()
        await bound(client, "q")
        for body in ("one", "two"):
            await client.publish("ex", "q", body)
        reader = await client.consume("q", prefetch=1)
        await reader.next()
        broker.stop()
        with pytest.raises(AMQPConnectionError):
            await stage.client()
        await client.ends()
        broker.start()
        again = await stage.client()
        await again.publish("ex", "q", "three", mandatory=True)
        await again.read("q", 3)
        told: list[Any] = [entry[2] for entry in stage.seen if entry[:2] == ["delivered", "q"]]
        assert [(it["body"], it["headers"].get("x-delivery-count")) for it in told] == [
            ("one", 1),
            ("two", None),
            ("three", None),
        ]
        await stage.leave()

    virtually(on_it())


def test_who_goes_down_together_counts_once() -> None:
    """What one of them gives back must not be delivered to the next, only to be lost and counted again."""

    async def on_it() -> None:
        broker = SimulatedBroker()
        stage = Stage(Simulated(broker))
        clients = [await stage.client(breakable=True) for _ in range(3)]
        await bound(clients[0], "q")
        readers = [await client.consume("q", prefetch=5) for client in clients]
        await clients[0].publish("ex", "q", "one")
        await readers[0].arrived(1)
        broker.restart()
        again = await stage.client()
        await again.publish("ex", "q", "two")
        await again.read("q", 2)
        assert stage.seen[-2][2]["headers"] == {"x-delivery-count": 1}
        broker.kill("steady")
        assert broker.core.outstanding() == 0
        await stage.leave()

    virtually(on_it())
