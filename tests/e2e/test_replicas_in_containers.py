"""Two replicas of every service on one PostgreSQL: neither may win twice, whatever both are told."""

from __future__ import annotations

import asyncio

import pytest

from common import saga
from containers.books import FAILED_AT
from containers.recipes import USER
from containers.system import System
from tests.e2e.load import load
from tests.e2e.sales import PRICE, Sales
from tests.support.eventually import eventually

pytestmark = pytest.mark.container


async def _twins(system: System) -> None:
    await asyncio.gather(*(system.replica(service) for service in saga.SERVICES))
    for service in saga.SERVICES:
        assert await system.consumers(f"{service}.events") == 2


async def test_two_replicas_of_each_service_keep_every_wallet_exact(system: System, sales: Sales) -> None:
    """Many payments on few wallets, many of them told twice, and rivals for a seat or a token among them."""
    await _twins(system)
    good = sales.good(180, users=6)
    no_token = [sales.payment(user=f"user{number % 6}", issued=False) for number in range(30)]
    # Ten can be paid of what these thirty have.
    poor = [sales.payment(user="poor", points=PRICE if number < 10 else 0) for number in range(30)]
    first = [sales.payment(user=f"rival{number}") for number in range(15)]
    for_the_seat = [
        sales.payment(user=f"rival{number}", held=False, reservation_id=rival.reservation_id)
        for number, rival in enumerate(first)
    ]
    second = [sales.payment(user=f"other{number}") for number in range(15)]
    for_the_token = [
        sales.payment(user=f"other{number}", issued=False, token=rival.token)
        for number, rival in enumerate(second)
    ]
    assert len(sales.payments) == 300
    await sales.prepared()
    async with load(sales, sales.payments, twice=3):
        pass
    books = await sales.settled()
    assert len(books.completed(sales.ids(good))) == len(good)
    assert {books.states(key) for key in sales.ids(no_token)} == {FAILED_AT["queue"]}
    assert len(books.completed(sales.ids(poor))) == 10
    for one, other in [*zip(first, for_the_seat, strict=True), *zip(second, for_the_token, strict=True)]:
        assert len(books.completed(sales.ids([one, other]))) == 1
    done = set(books.completed(sales.ids()))
    sales.assert_exact(books, [payment for payment in sales.payments if payment.payment_id in done])


async def test_one_of_two_replicas_killed_under_load_is_not_missed(system: System, sales: Sales) -> None:
    """That is what a second replica is for."""
    await _twins(system)
    payments = sales.good(200, users=5)
    await sales.prepared()
    async with load(sales, payments):
        for node in system.services.values():
            await node.kill()
    await system.let_leases_run_out()
    sales.assert_exact(await sales.settled(), payments)


async def test_two_replicas_that_start_at_once_make_the_tables_once(system: System, mark: str) -> None:
    """Whoever scales to two from the beginning must not find a schema that is made twice, or by halves."""
    # A virtual host of their own, or they would take the messages of the others into these databases.
    await system.call("PUT", f"vhosts/{mark}")
    await system.call("PUT", f"permissions/{mark}/{USER}", configure=".*", write=".*", read=".*")
    for service in saga.SERVICES:
        await system.administer(f"CREATE DATABASE {mark}_{service} OWNER {service}")
    twins = await asyncio.gather(
        *(
            system.replica(service, database=f"{mark}_{service}", vhost=mark, waiting=False)
            for service in (*saga.SERVICES, *saga.SERVICES)
        )
    )

    def all_take_messages() -> None:
        for twin in twins:
            assert twin.state["Running"], twin.logs()
            assert "taking messages" in twin.logs(), twin.logs()

    await eventually(all_take_messages, seconds=60)
    for service in saga.SERVICES:
        told = [twin.logs().count('"event": "migration"') for twin in twins if twin.name == service]
        assert min(told) == 0, "both replicas made the tables"
        assert max(told) > 0, "neither replica made the tables"
    await system.remove_replicas()
    for service in saga.SERVICES:
        await system.administer(f"DROP DATABASE {mark}_{service} WITH (FORCE)")
    await system.call("DELETE", f"vhosts/{mark}")
