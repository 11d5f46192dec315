"""Services that crash, stop and come back in the middle: what was begun is finished or undone, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from common import saga
from common.messages import Pay
from tests.support.eventually import eventually
from tests.support.saga import Theatre, Visit, theatre, visit
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker

#: Of each service: the message it does its part on, and what it says then.
_STEPS = {step.service: (step.on, step.emits) for step in saga.SAGA}


@contextlib.contextmanager
def mended(house: Theatre, service: str) -> Iterator[None]:
    """Afterwards the service runs again without a fault."""
    try:
        yield
    finally:
        # One that still runs hangs in its fault.
        house.stack.kill(service)
        house.let_the_grace_pass(service)
        house.faults(service).mend()
        house.start(service, sabotaged=True, ready=False)


@pytest.mark.parametrize("service", saga.SERVICES)
async def test_what_a_killed_service_committed_is_published_after_its_restart(
    here: Visit, house: Theatre, service: str
) -> None:
    """Killed after the commit, before the publish: the event is in the outbox, and the sweeper finds it."""
    pays = await here.paying(5)
    _, emits = _STEPS[service]
    with mended(house, service):
        house.faults(service).make(mutes=["everything"])
        await here.send(*pays)
        await eventually(lambda: _left(house, service, emits) == {pay.payment_id for pay in pays})
        house.stack.kill(service)
        assert not any(here.event(pay.payment_id, emits) for pay in pays)
    await here.completed(*pays)


async def test_an_unpublished_compensation_survives_a_kill(here: Visit, house: Theatre) -> None:
    """The failure that undoes a saga is as safe as the events that drive it."""
    pay = here.pay()
    await here.prepare(pay, token=False)
    before = here.belongings(pay)
    with mended(house, "queue"):
        house.faults("queue").make(mutes=["everything"])
        await here.send(pay)
        await eventually(lambda: _left(house, "queue", "queue.failed") == {pay.payment_id})
        house.stack.kill("queue")
    await here.undone(pay, at="queue", reason="unknown_token")
    assert here.belongings(pay) == before


def _left(house: Theatre, service: str, type_: str) -> set[str]:
    return {key for (key,) in house.rows(service, "SELECT key FROM outbox WHERE type = ?", type_)}


@pytest.mark.parametrize("service", saga.SERVICES)
async def test_a_service_killed_before_its_ack_does_its_part_only_once(
    here: Visit, house: Theatre, service: str
) -> None:
    """Killed after the publish, before the ack: the message comes again, and only the answer is repeated."""
    (pay,) = await here.paying()
    _, emits = _STEPS[service]
    with mended(house, service):
        house.faults(service).make(never_acks=[pay.payment_id])
        await here.send(pay)
        await here.hears(pay.payment_id, emits)
    # The notify service repeats nothing: a notice that went out is not sent again.
    await here.hears(pay.payment_id, emits, times=1 if service == "notify" else 2)
    await here.completed(pay)
    assert here.events(pay.payment_id).count("notification.sent") == 1


async def test_a_service_killed_before_its_dead_letter_was_acked_fails_the_saga_once(
    here: Visit, house: Theatre
) -> None:
    """The dead-letter handler is a consumer like any other: it may die between commit and ack, too."""
    pay = here.pay()
    await here.prepare(pay, token=False)
    before = here.belongings(pay)
    with mended(house, "queue"):
        house.faults("queue").make(never_acks=[pay.payment_id])
        await here.send(pay)
        await here.recovers(pay.payment_id, "queue.dead")
        # The original hangs unacked; its copy is in the dead queue, where the handler decides and hangs as well.
        await here.hears(pay.payment_id, "queue.failed")
    await here.undone(pay, at="queue", reason="unknown_token")
    assert here.belongings(pay) == before
    assert here.events(pay.payment_id).count("point.restored") == 1


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_services_that_leave_in_the_middle_of_a_load_lose_nothing(
    here: Visit, house: Theatre, how: str
) -> None:
    """Each of the five goes away under load and comes back: every payment settles, by SIGTERM or by SIGKILL."""
    pays = await here.paying(100)
    refused = [here.pay() for _ in range(10)]
    await here.prepare(*refused, token=False)
    load = [*pays, *refused]
    sending = asyncio.create_task(_send_slowly(here, load))
    for service in saga.SERVICES:
        await asyncio.to_thread(_leave_and_return, house, service, how)
    await sending
    await here.completed(*pays, seconds=60)
    for pay in refused:
        await here.undone(pay, at="queue", reason="unknown_token")


async def _send_slowly(here: Visit, pays: list[Pay]) -> None:
    for pay in pays:
        await here.send(pay)
        await asyncio.sleep(0.05)


def _leave_and_return(house: Theatre, service: str, how: str) -> None:
    if how == "killed":
        house.stack.kill(service)
        house.let_the_grace_pass(service)
    else:
        assert not house.stack.stop(service, seconds=10)
    house.start(service, sabotaged=True)


async def test_services_start_in_any_order(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Last one first, and payments before the last is there: whoever is up keeps what the others will need."""
    with theatre(node, tmp_path_factory.mktemp("backwards")) as opened:
        opened.start("notify")
        async with visit(opened) as here:
            for service in ("queue", "point", "reservation"):
                opened.start(service)
            pay = here.pay()
            await here.prepare(pay)
            await here.send(pay)
            opened.start("payment", ready=False)
            await here.completed(pay)
            await here.settled()
