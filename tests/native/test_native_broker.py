"""A broker that crashes, blocks, cancels and forgets: the services come back without a person."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from common import saga
from tests.support.eventually import eventually
from tests.support.saga import Theatre, Visit, rabbitmqctl, theatre, visit
from tools.broker import PrivateBroker, start_private

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("queue", ["point.events", "point.commands", "point.dead"])
async def test_a_queue_deleted_under_its_consumer_is_made_again(here: Visit, house: Theatre, queue: str) -> None:
    """Whoever deletes a queue in the management UI loses its messages, and nothing else."""
    (pay,) = await here.paying()
    house.api("DELETE", f"/api/queues/{{v}}/{queue}")

    def consumed_again() -> bool:
        queues = {it["name"]: it for it in house.api("GET", "/api/queues/{v}?columns=name,consumers")}
        return queue in queues and house.stack.service("point").ready

    await eventually(consumed_again)
    await here.send(pay)
    await here.completed(pay)
    too_poor = here.pay()
    await here.prepare(too_poor, wallet=1)
    await here.send(too_poor)
    await here.undone(too_poor, at="point", reason="balance_too_low")


async def test_a_connection_closed_by_an_operator_is_opened_again(here: Visit, house: Theatre) -> None:
    """Closing connections is how brokers are drained: every service comes back, in the middle of a load."""
    pays = await here.paying(30)

    def ours() -> list[str]:
        listed = house.api("GET", "/api/vhosts/{v}/connections")
        named = [(it["name"], it.get("client_properties", {}).get("connection_name", "")) for it in listed]
        return [name for name, given in named if given.endswith((" consume", " publish"))]

    names = await eventually(lambda: found if len(found := ours()) >= 2 * len(saga.SERVICES) else [])
    sending = asyncio.create_task(here.send(*pays))
    for name in names:
        # Of a service's two, the second goes with the first.
        with contextlib.suppress(AssertionError):
            house.api("DELETE", f"/api/connections/{quote(name)}")
    await sending
    await here.completed(*pays)


@pytest.fixture
def forgetful(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """A theatre whose bindings a test may spoil."""
    with theatre(node, tmp_path_factory.mktemp("forgetful")) as opened:
        opened.start()
        yield opened


async def test_an_event_that_has_nowhere_to_go_waits_in_the_outbox(forgetful: Theatre) -> None:
    """A lost binding must stop a saga, visibly, and not lose it; any service that starts mends it."""
    async with visit(forgetful, deaf_to=["reservation.confirmed"]) as here:
        (pay,) = await here.paying()
        key = "reservation.confirmed"
        path = f"/api/bindings/{{v}}/e/saga.events/q/point.events/{key}"
        forgetful.api("DELETE", path)
        await here.send(pay)
        waiting = "SELECT key FROM outbox WHERE type = ?"
        await eventually(lambda: forgetful.rows("reservation", waiting, key) == [(pay.payment_id,)])
        await eventually(lambda: "nowhere to go" in forgetful.stack.log("reservation").read_text())
        assert here.states(pay.payment_id)["point"] is None
        assert not forgetful.stack.stop("notify")
        forgetful.start("notify")
        await here.completed(pay)
        await here.settled()


async def test_a_history_that_is_not_as_it_should_be_stops_no_saga(empty: Theatre) -> None:
    """Somebody made a queue of that name: what is only told may not decide whether a payment is done."""
    wrong = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
    empty.api("PUT", "/api/queues/{v}/saga.history", wrong)
    empty.start()
    async with visit(empty) as here:
        pays = await here.paying(2)
        await here.send(*pays)
        await here.completed(*pays)
        await here.settled()
    assert "the sagas go on without" in empty.stack.log("payment").read_text()


async def test_a_blocked_broker_is_survived(here: Visit, house: Theatre, node: PrivateBroker) -> None:
    """Out of memory, the broker takes nothing more from publishers: what is done waits in the outbox."""
    pays = await here.paying(5)
    assert not house.stack.stop("point")
    await here.send(*pays)
    for pay in pays:
        await here.hears(pay.payment_id, "reservation.confirmed")
    rabbitmqctl(node, "set_vm_memory_high_watermark", "0.00001")
    try:
        house.start("point", sabotaged=True, ready=False)
        await eventually(lambda: all(here.states(pay.payment_id)["point"] == "done" for pay in pays), seconds=20)
        assert not any(here.event(pay.payment_id, "point.deducted") for pay in pays)
    finally:
        rabbitmqctl(node, "set_vm_memory_high_watermark", "0.4")
    await here.completed(*pays)


async def test_a_service_leaves_in_time_while_the_broker_is_blocked(
    here: Visit, house: Theatre, node: PrivateBroker
) -> None:
    """SIGTERM during an alarm: what could not be published or copied waits, and the supervisor need not kill."""
    good = await here.paying(3)
    bad = here.pay()
    await here.prepare(bad, wallet=1)
    assert not house.stack.stop("point")
    await here.send(*good, bad)
    for pay in (*good, bad):
        await here.hears(pay.payment_id, "reservation.confirmed")
    rabbitmqctl(node, "set_vm_memory_high_watermark", "0.00001")
    try:
        house.start("point", sabotaged=True, ready=False)
        await eventually(lambda: all(here.states(pay.payment_id)["point"] == "done" for pay in good), seconds=20)
        assert not await asyncio.to_thread(house.stack.stop, "point", seconds=10)
    finally:
        rabbitmqctl(node, "set_vm_memory_high_watermark", "0.4")
        house.start("point", sabotaged=True, ready=False)
    await here.completed(*good)
    await here.undone(bad, at="point", reason="balance_too_low")


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A broker of this module's own, to be stopped and killed."""
    own = start_private(tmp_path_factory.mktemp("mortal"))
    try:
        yield own
    finally:
        own.remove()


@pytest.fixture(scope="module")
def survivors(mortal: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """The services that have to live with it."""
    with theatre(mortal, tmp_path_factory.mktemp("survivors")) as opened:
        yield opened


async def test_services_wait_for_a_broker_that_starts_later(mortal: PrivateBroker, survivors: Theatre) -> None:
    """Nobody has to start things in order: the services wait, and declare what they need when it is there."""
    survivors.stack.down()
    await asyncio.to_thread(mortal.stop)
    survivors.start(ready=False)
    logs = [survivors.stack.log(service) for service in saga.SERVICES]
    await eventually(lambda: all("the broker is away" in log.read_text() for log in logs))
    await asyncio.to_thread(mortal.start)
    await asyncio.to_thread(survivors.stack.wait_ready)
    async with visit(survivors) as here:
        (pay,) = await here.paying()
        await here.send(pay)
        await here.completed(pay)
        await here.settled()


async def test_a_broker_killed_in_the_middle_of_a_hundred_payments_loses_none(
    mortal: PrivateBroker, survivors: Theatre
) -> None:
    """A power cut of the broker: what was confirmed is there again, what was not is published again."""
    await asyncio.to_thread(mortal.start)
    await asyncio.to_thread(survivors.start)
    async with visit(survivors) as here:
        pays = await here.paying(90)
        refused = [here.pay() for _ in range(10)]
        await here.prepare(*refused, token=False)
        await here.send(*pays, *refused)
        await eventually(lambda: len({event.id for event in here.heard if event.key == "point.deducted"}) > 5)
        await asyncio.to_thread(mortal.kill)
    await asyncio.to_thread(mortal.start)
    async with visit(survivors) as again:
        again.mark, again.commands = here.mark, here.commands

        def all_settled() -> None:
            against = [line for pay in again.commands for line in again.violations(pay)]
            assert not against, (len(against), against[:2])

        await eventually(all_settled, seconds=60)
        assert all(again.states(pay.payment_id)["notify"] == "done" for pay in pays)
        await again.settled()
