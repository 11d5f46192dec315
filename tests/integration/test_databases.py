"""Opening, migrating, losing and misusing a real database, and what each of its errors is taken for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tortoise import connections
from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from common import db, rows, saga
from common.barrier import SagaStep
from common.db import Fault
from common.life import Life, patiently
from common.outbox import Outbox, OutboxRow, Relay
from common.recovery import DONE
from common.rows import Writes
from common.unit_of_work import UnitOfWork
from common.vendors import sqlite
from payment_svc.models import Payment
from point_svc.models import Wallet
from tests.support.bench import SERVICES, Bench, Databases, bench, forward, hold, top_up
from tests.support.databases import VENDOR, Server, Wire, ask, empty, wire
from tests.support.eventually import eventually

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def payment_row(**changes: object) -> Payment:
    """A row as the payment service writes it."""
    fields: dict[str, object] = {
        "payment_id": "p-1",
        "user_id": "ann",
        "reservation_id": "r-1",
        "token": "t-1",
        "amount": 30,
        "state": "PAID",
        "expires_at": NOW,
        "paid_at": NOW,
    }
    return Payment(**fields | changes)


async def inserted(payments: Sequence[Payment]) -> None:
    """Insert payments as a batch does."""
    writes = Writes()
    writes.insert(Payment, payments)
    await writes.flush()


async def fault_of(work: Callable[[], Awaitable[object]]) -> Fault:
    """What the error means that `work` ends in, in a transaction of its own."""
    try:
        async with db.transaction():
            await work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is classified
        return db.classify(error)
    return pytest.fail("it did not fail")


# --- what errors mean, on either vendor


@pytest.mark.usefixtures("payment")
async def test_a_row_that_is_there_already_is_a_lost_race() -> None:
    """Another replica was first; looking again gives the answer."""
    await payment_row().save()
    assert await fault_of(lambda: inserted([payment_row()])) is Fault.RACE


@pytest.mark.parametrize(
    "change",
    [{"payment_id": "p" * 65}, {"user_id": "x" * 100_000}, {"state": "x" * 10}],
    ids=["a key", "a field", "a state"],
)
@pytest.mark.usefixtures("payment")
async def test_a_text_that_is_too_long_can_never_be_stored(change: dict[str, str]) -> None:
    """Trying again is in vain, on every vendor: SQLite would not even mind."""
    assert await fault_of(lambda: inserted([payment_row(**change)])) is Fault.DATA
    assert await Payment.all().count() == 0


@pytest.mark.parametrize("amount", [2**63, -(2**63) - 1, 10**30])
@pytest.mark.usefixtures("payment")
async def test_a_number_that_is_out_of_range_can_never_be_stored(amount: int) -> None:
    """Taken for a database that is away, one such number would stop the whole service for ever."""
    assert await fault_of(lambda: inserted([payment_row(amount=amount)])) is Fault.DATA


@pytest.mark.usefixtures("payment")
async def test_a_text_that_cannot_be_encoded_can_never_be_stored() -> None:
    """Messages with such texts are refused before; this is the second net."""
    assert await fault_of(lambda: inserted([payment_row(user_id="\ud800")])) is Fault.DATA


@pytest.mark.postgres_only
@pytest.mark.usefixtures("payment")
async def test_a_null_character_can_never_be_stored() -> None:
    """PostgreSQL has no such character; SQLite keeps it."""
    assert await fault_of(lambda: inserted([payment_row(user_id="a\0b")])) is Fault.DATA


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELEKT 1"])
@pytest.mark.usefixtures("payment")
async def test_a_bug_is_neither_a_lost_database_nor_bad_data(statement: str) -> None:
    """It may pass with the next version, so it is retried, and the service goes on."""
    assert await fault_of(lambda: connections.get("default").execute_query(statement)) is Fault.OTHER


def test_an_error_that_wraps_another_means_what_that_one_means() -> None:
    """Tortoise wraps some errors of its drivers and not others."""
    for cause, fault in (
        (ConnectionResetError(), Fault.AWAY),
        (asyncpg.DeadlockDetectedError("x"), Fault.RACE),
        (asyncpg.NumericValueOutOfRangeError("x"), Fault.DATA),
        (KeyError("x"), Fault.OTHER),
    ):
        wrapped = RuntimeError("outside")
        wrapped.__cause__ = cause
        assert db.classify(wrapped) is fault
        assert db.classify(cause) is fault


# --- servers only


@pytest.mark.postgres_only
@pytest.mark.usefixtures("payment")
async def test_a_unit_begins_its_transaction_only_when_it_must() -> None:
    """Most batches read and write with a statement each, and save the two ways that BEGIN and COMMIT cost."""

    def has_begun() -> bool:
        connection: Any = connections.get("default")
        return bool(connection._connection.is_in_transaction())

    async with db.unit():
        assert await rows.find(Payment, ["p-1"]) == []
        await inserted([payment_row()])
        assert not has_begun()
        await rows.find(Payment, ["p-1"], lock=True)
        assert has_begun()
    async with db.unit():
        assert await Payment.all().count() == 1
        assert has_begun(), "the ORM may need several statements"


@pytest.mark.usefixtures("payment")
@pytest.mark.parametrize("write", [lambda: payment_row().save(), lambda: Payment.bulk_create([payment_row()])])
async def test_what_the_orm_wrote_in_a_unit_that_fails_is_undone(write: Callable[[], Awaitable[object]]) -> None:
    """Whoever writes by other means than ours gets the same promise."""

    async def failing() -> None:
        async with db.unit():
            await write()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await failing()
    assert await Payment.all().count() == 0
    async with db.unit():
        await write()
    assert await Payment.all().count() == 1


@pytest.mark.server_only
@pytest.mark.usefixtures("payment")
async def test_a_deadlock_is_a_lost_race() -> None:
    """The server undoes one of the two; that one simply does it again."""
    await inserted([payment_row(), payment_row(payment_id="p-2")])
    both = asyncio.Barrier(2)
    faults: list[Fault] = []

    async def cross(first: str, second: str) -> None:
        try:
            async with db.transaction():
                await Payment.filter(payment_id=first).update(amount=1)
                await both.wait()
                await Payment.filter(payment_id=second).update(amount=1)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is classified
            faults.append(db.classify(error))

    async with asyncio.timeout(30):
        await asyncio.gather(cross("p-1", "p-2"), cross("p-2", "p-1"))
    assert faults == [Fault.RACE]


@pytest.mark.postgres_only
async def test_a_serialization_failure_is_a_lost_race(payment: Bench) -> None:
    """For those who run their databases in a stricter mode than we ask for."""
    await payment_row().save()

    async def strict() -> None:
        connection = connections.get("default")
        await connection.execute_query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await Payment.get(payment_id="p-1")
        await ask(payment.url, "UPDATE payment SET amount = 31")
        await Payment.filter(payment_id="p-1").update(amount=32)

    assert await fault_of(strict) is Fault.RACE


@pytest.mark.server_only
async def test_a_connection_that_is_killed_is_a_database_that_is_away(payment: Bench) -> None:
    """An operator's restart in the middle of a transaction is nobody's failed attempt."""

    async def killed() -> None:
        await payment_row().save()
        connection = connections.get("default")
        mine, kill = {
            "postgres": ("pg_backend_pid()", "SELECT pg_terminate_backend({})"),
            "mysql": ("connection_id()", "KILL {}"),
        }[connection.capabilities.dialect]
        (row,) = await connection.execute_query_dict(f"SELECT {mine} AS id")
        await ask(payment.url, kill.format(row["id"]))
        await Payment.all().count()

    assert await fault_of(killed) is Fault.AWAY
    assert await Payment.all().count() == 0, "undone, and the pool has replaced the connection"


@pytest.fixture
async def wired(server: Server, prepared: dict[str, str]) -> AsyncIterator[tuple[Wire, str]]:
    """A way to the payment service's database that can be cut, and the URL that leads over it."""
    await empty(prepared["payment"])
    name = prepared["payment"].rpartition("/")[2]
    async with wire(server) as way:
        yield way, server.named(name, port=way.port)


@pytest.mark.server_only
async def test_work_waits_while_the_database_is_away_and_is_done_once_when_it_is_back(
    wired: tuple[Wire, str],
) -> None:
    """No attempt is burnt, health says why, and nothing is done twice."""
    way, url = wired
    async with bench("payment", url) as payment:
        assert await payment.do(forward("payment")) == [DONE]
        await way.cut()
        working = asyncio.create_task(payment.do(forward("payment", "p-2")))
        await eventually(lambda: payment.life.health.database not in {"ok", "opening"}, seconds=10)
        assert not working.done()
        await way.mend()
        async with asyncio.timeout(30):
            assert await working == [DONE]
        assert payment.life.health.database == "ok"
        assert await Payment.all().count() == 2
        assert sorted(await payment.said()) == ["payment.paid", "payment.paid"]


@pytest.mark.server_only
async def test_a_connection_lost_in_the_middle_of_a_batch_undoes_the_batch_and_does_it_again(
    wired: tuple[Wire, str],
) -> None:
    """Half a batch is never committed, and the whole one is done exactly once."""
    way, url = wired
    async with bench("payment", url) as payment:
        runs = 0

        async def unit(now: datetime, outbox: Outbox) -> object:
            nonlocal runs
            runs += 1
            outcomes = await payment._unit(payment.service.handle, [forward("payment")])(now, outbox)
            if runs == 1:
                await way.cut()
                await way.mend()
                await Payment.all().count()
            return outcomes

        async with asyncio.timeout(30):
            assert await payment.unit_of_work.run(unit) == [DONE]
        assert runs == 2
        assert await Payment.all().count() == 1
        assert await payment.said() == ["payment.paid"]


@pytest.mark.server_only
async def test_a_service_that_is_to_stop_does_not_wait_for_its_database(wired: tuple[Wire, str]) -> None:
    """SIGTERM must be heard while the database is away; what was in hand is delivered again."""
    way, url = wired
    async with bench("payment", url) as payment:
        await payment.do(forward("payment"))
        await way.cut()
        working = asyncio.create_task(payment.do(forward("payment", "p-2")))
        await eventually(lambda: payment.life.health.database not in {"ok", "opening"}, seconds=10)
        payment.life.stop()
        async with asyncio.timeout(20):
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                await working
        assert db.classify(caught.value) is Fault.AWAY
        await way.mend()


@pytest.mark.server_only
@pytest.mark.parametrize("what", ["nobody listens", "no such database", "no such host", "no such user"])
async def test_a_database_that_cannot_be_opened_is_away(server: Server, what: str) -> None:
    """The service waits with its messages in the broker until a person has mended it."""
    way = Wire("127.0.0.1", 1)
    url = {
        "nobody listens": server.named("anything", port=way.port),
        "no such database": server.named("nowhere"),
        "no such host": f"{VENDOR}://u:p@no-such-host.invalid:5432/x",
        "no such user": f"{VENDOR}://nobody:wrong@{server.url.rpartition('@')[2]}x",
    }[what]
    service = SERVICES["payment"]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
        async with db.open_database(url, service.modules, service.migrations):
            pass
    assert db.classify(caught.value) is Fault.AWAY


@pytest.mark.server_only
async def test_waiting_for_a_database_that_is_not_there_yet_opens_it_when_it_comes(
    wired: tuple[Wire, str],
) -> None:
    """A service may be started before its database."""
    way, url = wired
    await way.cut()
    service, life = SERVICES["payment"], Life("payment")

    async def opened() -> None:
        async with db.open_database(url, service.modules, service.migrations):
            await SagaStep.all().count()

    opening = asyncio.create_task(patiently(life, opened))
    await eventually(lambda: life.health.database != "opening", seconds=10)
    await way.mend()
    async with asyncio.timeout(30):
        await opening
    assert life.health.database == "ok"


# --- SQLite only


@contextlib.contextmanager
def another_connection(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """Another program that holds the file's only write lock."""
    path = sqlite.path_of(bench.url)
    code = f"import sqlite3, sys; c = sqlite3.connect({str(path)!r}, isolation_level=None)\n"
    code += "c.execute('BEGIN IMMEDIATE'); print('locked', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "locked\n"
        yield other
        assert other.stdin
        other.stdin.close()


@pytest.mark.sqlite_only
async def test_a_locked_file_is_a_database_that_is_away(database: Databases) -> None:
    """A backup that is copying it is waited for."""
    async with bench("payment", database("payment") + "&busy_timeout=10") as payment:
        with another_connection(payment):
            assert await fault_of(lambda: payment_row().save()) is Fault.AWAY
            working = asyncio.create_task(payment.do(forward("payment")))
            await eventually(lambda: payment.life.health.database not in {"ok", "opening"}, seconds=10)
        async with asyncio.timeout(20):
            assert await working == [DONE]


@pytest.mark.sqlite_only
@pytest.mark.parametrize("pragma", ["query_only=ON", "max_page_count=1"])
@pytest.mark.usefixtures("payment")
async def test_a_file_that_cannot_be_written_is_a_database_that_is_away(pragma: str) -> None:
    """A full disk, or one that went read-only, is mended by a person while the messages wait."""
    await connections.get("default").execute_query(f"PRAGMA {pragma}")
    payments = [payment_row(payment_id=f"p-{number}") for number in range(2000)]
    assert await fault_of(lambda: inserted(payments)) is Fault.AWAY


@pytest.mark.sqlite_only
def test_a_second_process_on_the_same_file_is_refused_with_a_clear_line(tmp_path: Path) -> None:
    """Two replicas on one SQLite file would each keep rows in memory that the other one changes."""
    path = tmp_path / "deep" / "payment.sqlite3"
    service = SERVICES["payment"]
    code = f"""
        import asyncio
        from common import db
        async def main():
            async with db.open_database({f"sqlite://{path}"!r}, {service.modules!r}, {service.migrations!r}):
                print("opened", flush=True)
                await asyncio.to_thread(input)
        asyncio.run(main())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, cwd=ROOT, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as first:
        try:
            assert first.stdout
            assert any(line == "opened\n" for line in first.stdout), "it logs its migrations first"
            second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
            assert second.returncode == 1
            (line,) = second.stderr.strip().splitlines()
            assert str(path) in line
            assert "in use by another process" in line
            assert "DATABASE_URL" in line
        finally:
            first.communicate("\n", timeout=10)
    assert first.returncode == 0
    again = subprocess.run(command, cwd=ROOT, input="\n", capture_output=True, text=True, timeout=30, check=False)
    assert again.returncode == 0, "the lock is gone with its process"


@pytest.mark.sqlite_only
async def test_sqlite_syncs_at_every_commit_unless_told_otherwise(tmp_path: Path) -> None:
    """A power cut may not lose what was acked."""
    service = SERVICES["payment"]
    async with db.open_database(f"sqlite://{tmp_path}/x", service.modules, service.migrations):
        rows = await connections.get("default").execute_query_dict("PRAGMA synchronous")
        assert rows == [{"synchronous": 2}]


# --- migrations


@pytest.mark.parametrize("name", saga.SERVICES)
async def test_models_and_migrations_agree(database: Databases, name: str) -> None:
    """A field without its migration would be found by the first message in production."""
    service = SERVICES[name]
    configuration = db.configuration(database(name), service.modules, service.migrations)
    async with TortoiseContext() as context:
        await context.init(config=configuration)
        try:
            assert context.apps is not None
            detector = MigrationAutodetector(context.apps, configuration["apps"])
            assert [writer.operations for writer in await detector.changes()] == []
        finally:
            await connections.close_all(discard=False)


@pytest.mark.parametrize("name", saga.SERVICES)
async def test_opening_an_existing_database_keeps_what_is_in_it(database: Databases, name: str) -> None:
    """Every restart does it."""
    url = database(name)
    key = f"kept-{name}"
    async with bench(name, url) as service:
        await SagaStep.filter(saga_id=key).delete()
        await service.do(forward(name, key))
        held = await service.state(key)
        await OutboxRow.all().delete()
    for _ in range(2):
        async with bench(name, url) as service:
            assert await service.state(key) == held


@pytest.mark.sqlite_only
@pytest.mark.parametrize("name", saga.SERVICES)
async def test_a_new_database_is_made_with_its_folder_and_tables(tmp_path: Path, name: str) -> None:
    """Nothing has to be installed or prepared."""
    async with bench(name, f"sqlite://{tmp_path}/not/there/yet.sqlite3") as service:
        assert await service.state() is None
        assert await service.holds()


@pytest.mark.server_only
@pytest.mark.parametrize("name", saga.SERVICES)
def test_replicas_that_open_a_new_database_at_once_migrate_it_once(server: Server, prefix: str, name: str) -> None:
    """`docker compose up --scale` starts them within the same moment."""
    url = server.create(f"{prefix}new")
    service = SERVICES[name]
    code = f"""
        import asyncio, json
        from common import db
        from common.barrier import SagaStep
        async def main():
            input()
            async with db.open_database({url!r}, {service.modules!r}, {service.migrations!r}):
                print(await SagaStep.all().count())
        asyncio.run(main())
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    replicas = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdin=-1, stdout=-1, stderr=-1, text=True)
        for _ in range(3)
    ]
    try:
        for replica in replicas:
            assert replica.stdin
            replica.stdin.write("\n")
            replica.stdin.flush()
        told = [replica.communicate(timeout=60) for replica in replicas]
        assert [replica.returncode for replica in replicas] == [0, 0, 0], told
    finally:
        for replica in replicas:
            replica.kill()
        server.drop(f"{prefix}new")


# --- what every vendor must do alike


async def test_ids_compare_bytewise(point: Bench) -> None:
    """Two users whose names differ by case are two users, on every vendor."""
    await point.do(top_up("u-1", user_id="ann"), top_up("U-1", user_id="ANN"), top_up("u-2", user_id="Ann"))
    assert await Wallet.all().count() == 3
    assert await point.do(forward("point", user_id="aNN")) != [DONE]


async def test_the_farthest_times_of_the_calendar_can_be_stored(reservation: Bench) -> None:
    """A hold for ever is a strange wish, and no reason to stumble."""
    await reservation.do(hold(held_until="9999-12-31T23:59:59.999999Z"))
    assert await reservation.do(forward("reservation", expires_at="9999-12-31T23:59:59Z")) == [DONE]
    assert await reservation.state() == "done"


async def test_nothing_of_a_transaction_is_left_when_its_unit_fails(payment: Bench) -> None:
    """Neither its rows nor a transaction that the next one would be part of."""
    relay = Relay(1000, payment.life)

    async def unit(now: datetime, outbox: Outbox) -> None:
        await payment._unit(payment.service.handle, [forward("payment")])(now, outbox)
        raise KeyError("boom")

    with pytest.raises(KeyError):
        await UnitOfWork(payment.life, relay).run(unit)
    assert relay.depth == 0, "nothing is published of what was undone"
    assert await payment.state() is None
    assert await payment.do(forward("payment", "p-2")) == [DONE]
    assert await payment.said() == ["payment.paid"]
