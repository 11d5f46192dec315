"""Repair on the real thing: queues that lose messages, a broker that loses everything, a database set back."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from common import saga, topology
from tests.support.eventually import eventually
from tests.support.saga import Theatre, audited, visit

pytestmark = pytest.mark.broker

#: Short enough for a test, long enough that nothing is offered again while it is on its way.
PATIENCE = "2"


async def settled(theatre: Theatre, *payment_ids: str) -> None:
    """Wait until these sagas are settled in every service that awaits it."""

    def all_settled() -> None:
        for service in filter(saga.awaits_settlement, saga.SERVICES):
            for payment_id in payment_ids:
                rows = theatre.rows(service, "SELECT state FROM saga_step WHERE saga_id = ?", payment_id)
                assert rows == [("settled",)], (service, payment_id, rows)

    await eventually(all_settled)


async def waiting(theatre: Theatre, service: str, count: int) -> None:
    """Wait until so many messages wait for a service that is not there."""
    await eventually(lambda: len(theatre.peek(topology.events_queue(service))) >= count)


def purge(theatre: Theatre, service: str) -> None:
    """Let a service's queue of events lose all that waits in it."""
    theatre.api("DELETE", f"/api/queues/{{v}}/{topology.events_queue(service)}/contents")


@pytest.mark.parametrize("service", ["reservation", "point", "queue"])
async def test_a_saga_whose_message_was_purged_walks_on_by_itself(empty: Theatre, service: str) -> None:
    """Whoever did his part and hears nothing says it again."""
    theatre = empty
    theatre.start(JANITOR_SECONDS=PATIENCE)
    async with visit(theatre) as here:
        pays = await here.paying(3)
        theatre.stack.stop(service)
        await here.send(*pays)
        await waiting(theatre, service, len(pays))
        purge(theatre, service)
        theatre.start(service, JANITOR_SECONDS=PATIENCE)
        await here.completed(*pays)
        await settled(theatre, *(pay.payment_id for pay in pays))
    assert await audited(theatre.stack) == []


async def test_a_failure_that_was_purged_is_brought_again(empty: Theatre) -> None:
    """Reservation and payment have done their parts, and nobody told them that it was in vain."""
    theatre = empty
    theatre.start(JANITOR_SECONDS=PATIENCE)
    async with visit(theatre) as here:
        pay = here.pay()
        await here.prepare(pay, token=False)
        theatre.stack.stop("reservation")
        theatre.stack.stop("point")
        await here.send(pay)
        theatre.start("reservation", JANITOR_SECONDS="1000")
        await eventually(lambda: here.event(pay.payment_id, "reservation.confirmed"))
        theatre.stack.stop("reservation")
        theatre.start("point", JANITOR_SECONDS=PATIENCE)
        await here.hears(pay.payment_id, "queue.failed")
        await waiting(theatre, "reservation", 1)
        purge(theatre, "reservation")
        theatre.start("reservation", JANITOR_SECONDS=PATIENCE)
        await here.undone(pay, at="queue", reason="unknown_token")
    assert await audited(theatre.stack) == []


async def test_a_broker_that_lost_everything_costs_time_and_no_saga(empty: Theatre) -> None:
    """All queues and exchanges are gone; the services declare them anew and say again what is open."""
    theatre = empty
    theatre.start(JANITOR_SECONDS=PATIENCE)
    async with visit(theatre) as here:
        pays = await here.paying(5)
        theatre.stack.stop("point")
        await here.send(*pays)
        await waiting(theatre, "point", len(pays))
    for service in saga.SERVICES:
        for queue in (topology.events_queue(service), topology.dead_queue(service)):
            theatre.api("DELETE", f"/api/queues/{{v}}/{queue}")
    for exchange in (topology.EVENTS, topology.RECOVERY):
        theatre.api("DELETE", f"/api/exchanges/{{v}}/{exchange}")
    theatre.start("point", JANITOR_SECONDS=PATIENCE)
    await settled(theatre, *(pay.payment_id for pay in pays))
    assert await audited(theatre.stack) == []


async def test_the_runbook_mends_a_database_that_was_set_back(empty: Theatre, tmp_path: Path) -> None:
    """docs/operations.md, step by step: the payments since the backup have their points deducted again."""
    theatre = empty
    theatre.start()
    async with visit(theatre) as here:
        pays = await here.paying(4)
        await here.send(pays[0])
        await here.completed(pays[0])
        await settled(theatre, pays[0].payment_id)
        theatre.stack.stop("point")
        file = theatre.stack.database("point")
        backup = tmp_path / file.name
        shutil.copy(file, backup)
        since = datetime.now(UTC) - timedelta(seconds=1)
        theatre.start("point")
        await here.send(*pays[1:])
        await here.completed(*pays[1:])
        await settled(theatre, *(pay.payment_id for pay in pays))

        for service in saga.SERVICES:
            theatre.stack.stop(service)
        for leftover in file.parent.glob(f"{file.name}-*"):
            leftover.unlink()
        shutil.copy(backup, file)
        assert await audited(theatre.stack), "half of the books are gone"

        theatre.start(ready=False)
        theatre.stack.stop("reservation")
        theatre.start("reservation", OFFER_AGAIN_SINCE=since.isoformat())
        await settled(theatre, *(pay.payment_id for pay in pays))
        await here.completed(*pays)
    assert await audited(theatre.stack) == []
