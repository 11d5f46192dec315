"""Five services on three vendors: no transaction could span them, and still all of a payment happens, or none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from containers.books import ALL_DONE, FAILED_AT, audit
from containers.mixed import VENDORS, MixedSystem
from ops.doctor import databases as doctor
from tests.e2e.load import load
from tests.e2e.sales import Sales
from tests.support.eventually import eventually
from tools.images import Images

pytestmark = pytest.mark.container

_SECONDS_FROZEN = 3


@pytest.fixture(scope="module")
def mixed_system(stand: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MixedSystem]:
    """Broker, PostgreSQL, MariaDB, a folder for SQLite's files, and five services."""
    folder: Path = tmp_path_factory.mktemp("sqlite")
    # The services run as a user of their own.
    folder.chmod(0o777)
    with MixedSystem(stand, folder).running() as running:
        yield running


@pytest.fixture
async def system(mixed_system: MixedSystem, mark: str) -> AsyncIterator[MixedSystem]:
    """The system, whole again after the test; and nothing that the test did is done by half."""
    yield mixed_system
    await mixed_system.heal()

    async def whole() -> None:
        found = await audit(mixed_system, mark)
        assert not found, "\n".join(found)

    await eventually(whole)


async def test_a_saga_over_three_vendors_ends_in_every_way_that_it_can(system: MixedSystem, sales: Sales) -> None:
    """The same payments, the same books and the same audit as where all five are on PostgreSQL."""
    good = sales.good(40, users=4)
    too_much = sales.payment(price=1_000_001, points=0)
    not_held = sales.payment(held=False)
    too_poor = sales.payment(points=1)
    no_token = sales.payment(issued=False)
    await sales.prepared()
    await system.publish(*good, too_much, not_held, too_poor, no_token, *good[:10])
    books = await sales.settled()
    assert {books.states(pay.payment_id) for pay in good} == {ALL_DONE}
    assert books.states(too_much.payment_id) == FAILED_AT["payment"]
    assert books.states(not_held.payment_id) == FAILED_AT["reservation"]
    assert books.states(too_poor.payment_id) == FAILED_AT["point"]
    assert books.states(no_token.payment_id) == FAILED_AT["queue"]
    sales.assert_exact(books, good)


async def test_a_mariadb_that_fails_in_every_way_under_load_loses_nothing(
    system: MixedSystem, sales: Sales
) -> None:
    """Whatever its errors are called: it is away, no attempt is counted, and what was written is written once."""
    payments = sales.good(300, users=6)
    await sales.prepared()
    before = _retries(system)
    async with load(sales, payments):
        await _kill_connections(system)
        await system.mariadb.kill()
        await system.mariadb.start()
        await system.mariadb.ready()
        await _kill_connections(system)
        await system.mariadb.pause()
        await asyncio.sleep(_SECONDS_FROZEN)  # the fault itself, not a hope
        await system.mariadb.unpause()
        await system.mariadb.restart()
    await system.let_leases_run_out()
    sales.assert_exact(await sales.settled(), payments)
    assert _retries(system) - before == set()


async def _kill_connections(system: MixedSystem) -> None:
    """Kill what the services have open, in the middle of whatever it is."""
    users = ", ".join(f"'{service}'" for service, vendor in VENDORS.items() if vendor == "mariadb")
    listed = await system.administer_mariadb(
        f"SELECT id FROM information_schema.processlist WHERE user IN ({users})"
    )
    for row in listed:
        try:
            await system.administer_mariadb(f"KILL {row['id']}")
        except AssertionError as gone:
            assert "1094" in str(gone), "it has ended by itself"  # noqa: PT017 - any other is a failure


def _retries(system: MixedSystem) -> set[str]:
    """What the services have told of attempts that failed, and of messages that died."""
    told = ("will be tried again", "still not done; never given up", "dead letter", "a batch failed")
    lines = [line for node in system.services.values() for line in node.logs().splitlines()]
    return {line for line in lines if any(f'"event": "{event}' in line for event in told)}


async def test_the_doctor_reads_each_vendor(system: MixedSystem) -> None:
    """One command for the operator, whatever the databases are."""
    found = await doctor.look({service: system.database_url(service) for service in VENDORS})
    assert {service: (look.refusal, look.vendor) for service, look in found.items()} == {
        "payment": ("", "PostgreSQL"),
        "reservation": ("", "MariaDB"),
        "point": ("", "PostgreSQL"),
        "queue": ("", "SQLite"),
        "notify": ("", "MariaDB"),
    }
    for look in found.values():
        assert look.applied == look.wanted
        assert not look.read_only
