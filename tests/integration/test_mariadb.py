"""What is MariaDB's own: its sessions, its errors, and migrations that no transaction undoes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tortoise import connections

from common import db, rows
from common.barrier import SagaStep
from common.db import Fault
from common.outbox import OutboxRow
from common.rows import Writes
from common.vendors import mariadb_migrations, mariadb_rows
from payment_svc.models import Payment
from tests.support.bench import SERVICES, Bench, forward
from tests.support.databases import Server, ask

pytestmark = pytest.mark.mariadb_only

NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)


def step(saga_id: str, **changes: object) -> SagaStep:
    """A saga's row."""
    fields: dict[str, object] = {"state": "done", "answer_type": "", "answer": "", "created_at": NOW}
    return rows.new(SagaStep, saga_id=saga_id, **fields | {"changed_at": NOW} | changes)


async def inserted(*steps: SagaStep) -> None:
    """Write sagas' rows in a unit of their own."""
    writes = Writes()
    writes.insert(SagaStep, steps)
    async with db.unit():
        await writes.flush()


async def fault_of(work: Callable[[], Awaitable[object]]) -> Fault:
    """What the error means that `work` ends in, in a transaction of its own."""
    try:
        async with db.transaction():
            await work()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is classified
        return db.classify(error)
    return pytest.fail("it did not fail")


async def told(query: str) -> Any:  # noqa: ANN401 - any value
    """The one value that a query gives, in the session of the current unit or of the pool."""
    (row,) = await connections.get("default").execute_query_dict(query)
    return next(iter(row.values()))


# --- sessions


@pytest.mark.usefixtures("payment")
async def test_every_session_of_the_pool_is_set_up_alike() -> None:
    """Tortoise sets up the first connection only; what is lax elsewhere would show under load alone."""
    seen, all_here = [], asyncio.Barrier(5)

    async def look() -> None:
        async with db.unit():
            await all_here.wait()
            wanted = "@@tx_isolation, @@sql_mode, @@time_zone, @@collation_connection, @@innodb_lock_wait_timeout"
            seen.append(await told(f"SELECT CONCAT_WS(' ', {wanted}, @@max_statement_time)"))

    async with asyncio.timeout(20):
        await asyncio.gather(*(look() for _ in range(5)))
    (alike,) = set(seen)
    assert alike.startswith("READ-COMMITTED STRICT_ALL_TABLES,")
    assert alike.endswith(" +00:00 utf8mb4_nopad_bin 10 25.000000")


@pytest.mark.usefixtures("payment")
async def test_a_unit_begins_its_transaction_only_when_it_must() -> None:
    """A batch of repetitions reads and writes nothing: it needs no way to the server for BEGIN and COMMIT."""

    async def is_in_transaction() -> bool:
        return bool(await told("SELECT @@in_transaction"))

    async with db.unit():
        assert await rows.find(SagaStep, ["p-1"]) == []
        assert not await is_in_transaction()
        await rows.find(SagaStep, ["p-1"], lock=True)
        assert await is_in_transaction()
    async with db.unit():
        writes = Writes()
        writes.insert(SagaStep, [step("p-1")])
        await writes.flush()
        assert await is_in_transaction()


@pytest.mark.usefixtures("payment")
async def test_a_statement_that_the_server_ends_is_no_outage() -> None:
    """It took too long, and will again: taken for an outage it would stop the service."""

    async def slow() -> None:
        await connections.get("default").execute_query(
            "SET STATEMENT max_statement_time = 0.1 FOR "
            "SELECT COUNT(*) FROM seq_1_to_1000000 AS a, seq_1_to_1000000 AS b WHERE (a.seq * b.seq) % 7 = 8"
        )

    assert await fault_of(slow) is Fault.OTHER


# --- ids, texts, times


@pytest.mark.usefixtures("payment")
async def test_ids_that_differ_by_case_accent_or_a_blank_are_different() -> None:
    """A database whose own collation ignores all three: two clients' payments would be one."""
    ids = ["A", "a", "a ", "a-", "aa", "\u00e1", "\u00e4"]
    await inserted(*(step(saga_id) for saga_id in ids))
    assert [row.saga_id for row in await rows.find(SagaStep, [*reversed(ids), "A ", "AA"])] == ids
    assert [row.saga_id for row in await rows.find(SagaStep, ["a"], lock=True)] == ["a"]
    assert await SagaStep.filter(saga_id="a").count() == 1
    writes = Writes()
    (row,) = await rows.find(SagaStep, ["a "])
    row.state = "undone"
    writes.update(SagaStep, [row], "state")
    writes.delete(SagaStep, ["a", "A "])
    async with db.unit():
        await writes.flush()
    left = {found.saga_id: found.state for found in await SagaStep.all()}
    assert left == {saga_id: "undone" if saga_id == "a " else "done" for saga_id in ids if saga_id != "a"}


@pytest.mark.usefixtures("payment")
async def test_texts_of_any_script_and_any_quote_come_back_as_they_were() -> None:
    """The driver writes values into the statement: each of these has ended a string somewhere, some day."""
    texts = [
        "'",
        '"',
        "\\",
        "\\'",
        "%s",
        "%",
        "%%",
        "a\0b",
        "\x1a",
        "\u20ac 한 \U0001f39f",
        "'; DROP TABLE x; --",
        "",
    ]
    await inserted(*(step(f"p-{number:02}", answer=text) for number, text in enumerate(texts)))
    found = await rows.find(SagaStep, [f"p-{number:02}" for number in range(len(texts))])
    assert [row.answer for row in found] == texts
    for row, text in zip(found, reversed(texts), strict=True):
        row.answer = text
    writes = Writes()
    writes.update(SagaStep, found, "state", "answer", only_if="state")
    async with db.unit():
        await writes.flush()
    assert [row.answer for row in await SagaStep.all().order_by("saga_id")] == texts[::-1]


@pytest.mark.usefixtures("payment")
async def test_a_time_is_kept_to_the_microsecond_and_in_whatever_offset_it_came() -> None:
    """A column without an offset would take ten o'clock in Seoul for ten o'clock."""
    seoul = NOW.astimezone(timezone(timedelta(hours=9)))
    await inserted(step("p-1", created_at=seoul), step("p-2", created_at=NOW.replace(microsecond=0)))
    first, second = await rows.find(SagaStep, ["p-1", "p-2"])
    assert (first.created_at, second.created_at) == (NOW, NOW.replace(microsecond=0))
    assert await SagaStep.filter(created_at=seoul).count() == 1


@pytest.mark.usefixtures("payment")
async def test_an_update_that_changes_nothing_finds_its_row() -> None:
    """MariaDB counts changed rows unless it is asked for found ones: what is the same would be a lost race."""
    await inserted(step("p-1"), step("p-2"))
    writes = Writes()
    writes.update(SagaStep, await rows.find(SagaStep, ["p-1", "p-2"]), "state", "changed_at", only_if="state")
    async with db.unit():
        await writes.flush()


@pytest.mark.usefixtures("payment")
async def test_a_batch_larger_than_one_statement_is_written_read_and_deleted() -> None:
    """Neither the number of rows nor their size has a limit that a service could run into."""
    many = [step(f"p-{number:05}", answer="x" * 3000) for number in range(1700)]
    await inserted(*many)
    ids = [row.saga_id for row in many]
    found = await rows.find(SagaStep, ids, lock=False)
    assert [row.saga_id for row in found] == ids
    for row in found:
        row.answer = "y" * 3000
    writes = Writes()
    writes.update(SagaStep, found, "answer", "state")
    async with db.unit():
        await writes.flush()
    assert await SagaStep.filter(answer="y" * 3000).count() == 1700
    writes.delete(SagaStep, ids[1:])
    async with db.unit():
        await writes.flush()
    assert await SagaStep.all().count() == 1


@pytest.mark.usefixtures("payment")
@pytest.mark.parametrize("count", [1, 20])
async def test_a_small_table_is_never_read_as_a_whole(count: int) -> None:
    """It would wait for every row that another replica has locked, and lock those of everybody else."""
    await inserted(*(step(f"p-{number}") for number in range(20)))
    keys = [f"p-{number}" for number in range(count)]
    plans: list[dict[str, Any]] = []
    connection = connections.get("default")

    class Explaining:
        """Asks for the plan of what it is to run."""

        async def execute_query(self, query: str, values: list[Any]) -> tuple[int, list[Any]]:
            plans.extend(await connection.execute_query_dict(f"EXPLAIN {query}", values))
            return 0, []

        async def execute_query_dict(self, query: str, values: list[Any]) -> list[Any]:
            return (await self.execute_query(query, values))[1]

    explaining: Any = Explaining()
    place = ("saga_step", "saga_id")
    await mariadb_rows.find(explaining, place, ["state"], keys, lock=True)
    await mariadb_rows.update(
        explaining, place, ["state", "saga_id"], [["a", key, "b"] for key in keys], compare=True
    )
    await mariadb_rows.delete(explaining, place, keys)
    assert {plan["type"] for plan in plans if plan["table"] == "old"} <= {"eq_ref", "const"}
    assert sum(plan["table"] == "old" for plan in plans) == 3


# --- what errors mean


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE payment SET amount = 9223372036854775808", Fault.DATA),
        ("UPDATE payment SET amount = 9223372036854775807 + amount", Fault.DATA),
        ("UPDATE payment SET user_id = REPEAT('x', 65)", Fault.DATA),
        ("UPDATE payment SET user_id = X'80'", Fault.DATA),
        ("UPDATE payment SET paid_at = 'tomorrow'", Fault.DATA),
        ("SIGNAL SQLSTATE '45000'", Fault.OTHER),
        ("SELECT * FROM nowhere", Fault.OTHER),
        ("KILL QUERY CONNECTION_ID()", Fault.OTHER),
        ("KILL CONNECTION_ID()", Fault.AWAY),
    ],
)
async def test_what_the_server_says_is_told_apart(payment: Bench, statement: str, fault: Fault) -> None:
    """Bad data must not be waited for, and an outage must not cost an attempt."""
    await payment.do(forward("payment"))
    assert await fault_of(lambda: connections.get("default").execute_query(statement)) is fault


@pytest.mark.usefixtures("payment")
async def test_a_transaction_that_may_only_read_is_a_database_that_is_away() -> None:
    """A replica of the database takes no changes: a person mends the address."""

    async def write() -> None:
        async with db.unit() as connection:
            await connection.execute_query_dict("SET SESSION TRANSACTION READ ONLY")
            try:
                await Payment.all().update(amount=1)
            finally:
                await connection.execute_script("ROLLBACK; ")
                await connection.execute_script("SET SESSION TRANSACTION READ WRITE")

    with pytest.raises(Exception, match="1792") as caught:
        await write()
    assert db.classify(caught.value) is Fault.AWAY


@pytest.mark.usefixtures("payment")
async def test_a_table_without_room_is_a_database_that_is_away() -> None:
    """A full disk is mended by a person while the messages wait."""

    async def fill() -> None:
        connection = connections.get("default")
        await connection.execute_query("SET SESSION max_heap_table_size = 16384")
        await connection.execute_query("CREATE TEMPORARY TABLE small (x CHAR(200)) ENGINE=MEMORY")
        await connection.execute_query("INSERT INTO small SELECT 'x' FROM seq_1_to_100000")

    assert await fault_of(fill) is Fault.AWAY


@pytest.mark.usefixtures("payment")
async def test_a_lock_that_is_never_let_go_is_a_lost_race() -> None:
    """Another replica holds it, frozen perhaps: whoever waits is told to do it again, and never hangs."""
    await inserted(step("p-1"))

    async def waiting() -> None:
        await connections.get("default").execute_query("SET SESSION innodb_lock_wait_timeout = 1")
        try:
            await rows.find(SagaStep, ["p-1"], lock=True)
        finally:
            await connections.get("default").execute_query("SET SESSION innodb_lock_wait_timeout = 10")

    locked, release = asyncio.Event(), asyncio.Event()

    async def holding() -> None:
        async with db.transaction():
            await rows.find(SagaStep, ["p-1"], lock=True)
            locked.set()
            await release.wait()

    holder = asyncio.create_task(holding())
    await locked.wait()
    try:
        async with asyncio.timeout(20):
            assert await fault_of(waiting) is Fault.RACE
    finally:
        release.set()
        await holder


# --- migrations


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_a_migration_that_was_cut_short_is_finished_by_the_next_start(
    server: Server, prefix: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """A change of a table ends its transaction, so half of a migration stays: nobody should have to clean up."""
    url = server.create(f"{prefix}half")
    service = SERVICES["payment"]
    run = mariadb_migrations._SchemaEditor._run_sql
    done: list[str] = []

    async def stumbling(self: Any, sql: str) -> None:  # noqa: ANN401 - Tortoise's own
        await run(self, sql)
        done.append(sql)
        if len(done) == count + 1:
            raise ConnectionResetError("the server is gone")

    async def open_it() -> None:
        async with db.open_database(url, service.modules, service.migrations):
            assert await SagaStep.all().count() == 0
            assert await OutboxRow.all().count() == 0

    try:
        with monkeypatch.context() as broken:
            broken.setattr(mariadb_migrations._SchemaEditor, "_run_sql", stumbling)
            with pytest.raises(ConnectionResetError):
                asyncio.run(open_it())
        asyncio.run(open_it())
    finally:
        server.drop(f"{prefix}half")


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("CREATE TABLE `x` (", "CREATE TABLE IF NOT EXISTS `x` ("),
        ("CREATE TABLE IF NOT EXISTS `x` (", "CREATE TABLE IF NOT EXISTS `x` ("),
        ("CREATE INDEX `i` ON `x` (`a`);", "CREATE INDEX IF NOT EXISTS `i` ON `x` (`a`);"),
        ("CREATE UNIQUE INDEX `i` ON", "CREATE UNIQUE INDEX IF NOT EXISTS `i` ON"),
        ("ALTER TABLE `x` ADD COLUMN `a` INT", "ALTER TABLE `x` ADD COLUMN IF NOT EXISTS `a` INT"),
        ("ALTER TABLE `x` ADD UNIQUE KEY `i` (", "ALTER TABLE `x` ADD UNIQUE KEY IF NOT EXISTS `i` ("),
        ("ALTER TABLE `x` DROP COLUMN `a`", "ALTER TABLE `x` DROP COLUMN IF EXISTS `a`"),
        ("DROP INDEX `i` ON `x`", "DROP INDEX IF EXISTS `i` ON `x`"),
        ("DROP TABLE `x`", "DROP TABLE IF EXISTS `x`"),
        ("UPDATE x SET a = 'CREATE TABLE y'", "UPDATE x SET a = 'CREATE TABLE y'"),
    ],
)
def test_each_change_of_a_table_can_be_done_again(change: str, again: str) -> None:
    """Every kind that Tortoise writes, as it writes it."""
    assert mariadb_migrations.repeatable(change) == again


async def test_tables_bear_the_collation_whatever_the_database_has(payment: Bench) -> None:
    """An operator's CREATE DATABASE must not decide whether two ids are one."""
    query = (
        "SELECT DISTINCT collation_name AS name FROM information_schema.columns "
        "WHERE table_schema = DATABASE() AND collation_name IS NOT NULL"
    )
    assert await ask(payment.url, query) == [{"name": "utf8mb4_nopad_bin"}]
