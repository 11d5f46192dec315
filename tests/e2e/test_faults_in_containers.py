"""Whatever is killed, stopped, frozen or cut off: all of each payment happens, or none of it does."""

from __future__ import annotations

import asyncio
import time

import pytest

from common import saga
from containers.books import ALL_DONE, FAILED_AT, read
from containers.node import Node
from containers.system import System
from tests.e2e.load import load
from tests.e2e.sales import Sales
from tests.support.eventually import eventually

pytestmark = pytest.mark.container


async def test_every_service_killed_under_load_loses_nothing(system: System, sales: Sales) -> None:
    """A crash leaves no time for anything: what was in hand is done again, exactly once."""
    payments = sales.good(300, users=10)
    await sales.prepared()
    async with load(sales, payments):
        for node in system.services.values():
            await node.kill()
            await node.start()
    await system.let_leases_run_out()
    sales.assert_exact(await sales.settled(), payments)


@pytest.mark.parametrize("violent", [False, True], ids=["restarted", "killed"])
async def test_a_broker_that_goes_away_under_load_loses_nothing(
    system: System, sales: Sales, *, violent: bool
) -> None:
    """Sessions are built anew from nothing, what was not confirmed is published again, nobody has to look."""
    payments = sales.good(200, users=10)
    await sales.prepared()
    async with load(sales, payments):
        await _bounce(system.broker, violent=violent)
    books = await sales.settled()
    sales.assert_exact(books, payments)


@pytest.mark.parametrize("violent", [False, True], ids=["restarted", "killed"])
async def test_a_database_that_goes_away_under_load_costs_no_attempt(
    system: System, sales: Sales, *, violent: bool
) -> None:
    """A lost database is nobody's failure: no payment may die of it, however short its retries are."""
    payments = sales.good(200, users=10)
    await sales.prepared()
    before = _retries(system)
    async with load(sales, payments):
        await _bounce(system.database, violent=violent)
    await system.let_leases_run_out()
    sales.assert_exact(await sales.settled(), payments)
    assert _retries(system) - before == set()


async def _bounce(node: Node, *, violent: bool) -> None:
    if violent:
        await node.kill()
        await node.start()
    else:
        await node.restart()


def _retries(system: System) -> set[str]:
    """What the services have told of attempts that failed, and of messages that died."""
    told = ("will be tried again", "still not done; never given up", "dead letter", "a batch failed")
    lines = [line for node in system.services.values() for line in node.logs().splitlines()]
    return {line for line in lines if any(f'"event": "{event}' in line for event in told)}


async def test_a_database_that_stays_away_for_longer_than_all_retries_costs_no_attempt(
    system: System, sales: Sales
) -> None:
    """The retries of one message are spent within seconds; a database may take minutes."""
    payments = sales.good(20)
    await sales.prepared()
    before = _retries(system)
    waiting = "the database is away"
    told = system.services["payment"].logs().count(waiting)
    await system.database.stop()
    stopped_at = time.monotonic()
    await system.publish(*payments)
    await eventually(lambda: system.services["payment"].logs().count(waiting) > told)
    # Three times what all retry levels take together.
    await eventually(lambda: time.monotonic() - stopped_at > 3)
    await system.database.start()
    sales.assert_exact(await sales.settled(), payments)
    assert _retries(system) - before == set()


async def test_a_service_frozen_for_longer_than_the_heartbeat_goes_on(system: System, sales: Sales) -> None:
    """It wakes up with deliveries in hand that are somebody else's by now."""
    payments = sales.good(200, users=10)
    await sales.prepared()
    node = system.services["point"]
    async with load(sales, payments):
        await node.pause()
        # A twin does the work of the frozen one meanwhile, as far as that one holds no lock.
        await system.replica("point")

        async def taken_for_dead() -> None:
            assert await system.consumers("point.events") == 1

        await eventually(taken_for_dead, seconds=60)
    await node.unpause()
    sales.assert_exact(await sales.settled(), payments)


async def test_a_service_cut_off_from_the_network_goes_on_when_it_is_back(system: System, sales: Sales) -> None:
    """Nobody says goodbye when a cable is pulled: whoever waits for an answer must stop waiting by himself."""
    payments = sales.good(150, users=5)
    await sales.prepared()
    node = system.services["point"]
    async with load(sales, payments):
        await node.cut_off(system.network)
        # It takes the address that became free, so that the old connections can never come back to life.
        await system.replica("notify")

        async def taken_for_dead() -> None:
            assert await system.consumers("point.events") == 0

        await eventually(taken_for_dead, seconds=60)
        await node.reconnect(system.network)
    sales.assert_exact(await sales.settled(seconds=90), payments)


@pytest.mark.parametrize("service", saga.SERVICES)
async def test_a_payment_waits_for_a_stopped_service_and_goes_on(
    system: System, sales: Sales, service: str
) -> None:
    """Services come and go; a payment in the middle of it all only takes longer."""
    good, bad = sales.payment(), sales.payment(issued=False)
    await sales.prepared()
    await system.services[service].stop()
    await system.publish(good, bad)

    async def stuck() -> None:
        queue = "payment.commands" if service == "payment" else f"{service}.events"
        assert await system.depth(queue)

    await eventually(stuck)
    await system.services[service].start()
    books = await sales.settled()
    assert books.states(good.payment_id) == ALL_DONE
    assert books.states(bad.payment_id) == FAILED_AT["queue"]
    sales.assert_exact(books, [good])


async def test_a_payment_that_waited_beyond_its_deadline_is_undone(
    system: System, sales: Sales, mark: str
) -> None:
    """The user was promised an answer by then; the seat must be free again for somebody else."""
    soon = await system.now(seconds=3)
    pay = sales.payment(expires_at=soon)
    await sales.prepared()
    await system.services["point"].stop()
    await system.publish(pay)

    async def too_late() -> None:
        books = await read(system, mark)
        assert books.states(pay.payment_id)[1] == "done"
        assert await system.now() > soon

    await eventually(too_late)
    await system.services["point"].start()
    books = await sales.settled()
    assert books.failure(pay.payment_id) == ("point", "deadline_passed")
    assert books.row("reservation", pay.reservation_id)["state"] == "HELD"
    sales.assert_exact(books, [])


@pytest.mark.parametrize("service", saga.SERVICES)
async def test_a_service_asked_to_leave_under_load_leaves_in_time(
    system: System, sales: Sales, service: str
) -> None:
    """A rollout must be no crash: the batch in hand is finished, and the exit code says so."""
    payments = sales.good(60, users=3)
    await sales.prepared()
    async with load(sales, payments):
        assert await system.services[service].stop(seconds=10) == 0
        await system.services[service].start()
    sales.assert_exact(await sales.settled(), payments)


async def test_services_leave_in_time_while_broker_and_database_are_away(system: System) -> None:
    """Whoever shuts down a whole machine cannot know in which order things go."""
    await system.database.stop()
    await system.broker.stop()
    left = await asyncio.gather(*(node.stop(seconds=10) for node in system.services.values()))
    assert left == [0] * len(saga.SERVICES)
