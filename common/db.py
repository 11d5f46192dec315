"""One database per service, of any vendor: opening it, one transaction, and what its errors mean.

What one vendor does differently from another is in `common.vendors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from tortoise import connections
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.backends.base.client import BaseDBAsyncClient, TransactionalDBClient
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.context import TortoiseContext
from tortoise.exceptions import (
    DBConnectionError,
    IntegrityError,
    ValidationError,
)
from tortoise.migrations.executor import MigrationExecutor
from tortoise.transactions import in_transaction

from common import tls
from common.telemetry import log
from common.vendors import postgres, sqlite
from common.vendors.fault import Fault as Fault  # noqa: PLC0414 - whoever asks us gets our word for it

if TYPE_CHECKING:
    from common.vendors import mariadb

_APP = "models"
_CONNECTION = "default"
_SECONDS_TO_ANSWER = 5
_MARIADB = "common.vendors.mariadb"


class LostRaceError(Exception):
    """Another replica changed the row first. The transaction is undone; do it again from the start."""


class StillThereError(Exception):
    """The unit of work fails as if the database were away, but the database answers: the work is to blame."""


def classify(error: BaseException) -> Fault:
    """What `error` means; a wrapped error means what its cause means."""
    match error:
        case StillThereError():
            return Fault.OTHER
        case LostRaceError() | IntegrityError():
            return Fault.RACE
        case DBConnectionError():
            return Fault.AWAY
    for vendor in (sqlite, *_servers()):
        fault: Fault | None = vendor.fault(error)
        if fault is not None:
            return fault
    match error:
        case ValidationError() | UnicodeError() | OverflowError():
            return Fault.DATA
        case OSError():
            return Fault.AWAY
    cause = error.__cause__ or error.__context__
    return classify(cause) if cause is not None else Fault.OTHER


def may_be_the_work(error: BaseException) -> bool:
    """Whether `error` says that a connection was lost: by an outage, or by what the work did with it."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if any(vendor.is_cut(error) for vendor in _servers()):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and may_be_the_work(cause)


def _servers() -> list[Any]:
    """The vendors that are servers. MariaDB's driver is loaded only where it is used."""
    return [postgres, *([sys.modules[_MARIADB]] if _MARIADB in sys.modules else [])]


@contextlib.asynccontextmanager
async def open_database(url: str, modules: Sequence[str], migrations: str) -> AsyncIterator[None]:
    """Open the database at `url`, bring its tables up to date, and close it again at the end.

    `modules` hold the models, `migrations` is the package of their migrations. Safe when several replicas
    start at once. Raises whatever the vendor raises when the database is away; `classify` knows it.
    """
    with sqlite.one_process_per_file(url):
        async with TortoiseContext() as context:
            settings = configuration(url, modules, migrations)
            await context.init(config=settings)
            try:
                await _migrate(settings["apps"])
                yield
            finally:
                await connections.close_all(discard=False)


def tables(service: str) -> tuple[str, ...]:
    """The modules that define the tables of a service: what all have, and its own."""
    return ("common.barrier", "common.outbox", f"{service}_svc.models")


def configuration(url: str, modules: Sequence[str], migrations: str) -> dict[str, Any]:
    """Tortoise's configuration of one service, for the service itself and for writing migrations."""
    return {
        "connections": {_CONNECTION: _connection(url)},
        "apps": {_APP: {"models": list(modules), "migrations": migrations, "default_connection": _CONNECTION}},
        "use_tz": True,
        "timezone": "UTC",
    }


def _connection(url: str) -> dict[str, Any]:
    """How to connect to `url`, with the options we rely on unless it sets them itself."""
    encryption = tls.of_database(url)
    scheme, _, rest = url.partition("://")
    if scheme == "mariadb":
        connection = expand_db_url(f"mysql://{rest}")
        connection["engine"] = _MARIADB
        vendor: Any = importlib.import_module(_MARIADB)
    else:
        connection = expand_db_url(url)
        vendor = sqlite if scheme == "sqlite" else postgres
    connection["credentials"] = vendor.credentials(connection["credentials"], encryption)
    return connection


async def _migrate(migrations: dict[str, dict[str, Any]]) -> None:
    """Apply what is missing, under a lock that the other replicas wait for."""
    async with unit() as connection:
        if connection.capabilities.dialect == "mysql":
            from common.vendors import mariadb_migrations  # noqa: PLC0415 - loads MariaDB's driver

            async with mariadb_migrations.migrating(cast("mariadb.Unit", connection)):
                await _apply(mariadb_migrations.Executor(connection, migrations))
            return
        if isinstance(connection, postgres.Unit):
            await postgres.lock_migrations(connection)
        await _apply(MigrationExecutor(connection, migrations))


async def _apply(executor: MigrationExecutor) -> None:
    # Its own look for this table fails on a new database, which would spoil the transaction.
    await executor.recorder.ensure_schema(executor._schema_editor(atomic=False))  # noqa: SLF001
    # It also takes any error of its own look for an empty table: ours comes first, and says what is wrong.
    await executor.connection.execute_query("SELECT 1 FROM tortoise_migrations LIMIT 1")
    await executor.migrate(progress=lambda event, _, name: log.info("migration", change=event, migration=name))


@contextlib.asynccontextmanager
async def unit() -> AsyncIterator[BaseDBAsyncClient]:
    """One unit of work of the current task: at its end all that it wrote is there, on an error nothing is.

    On a server the transaction begins only when it must: with the first lock (`begin`), or with the ORM's first
    statement. What reads, and then writes with the one statement of `common.rows`, needs none on PostgreSQL: a
    statement is all or nothing by itself, and under READ COMMITTED each one sees the newest anyway. SQLite has one
    transaction at a time, from the beginning of the unit.

    Never cancel a task inside: of what was under way, nobody would know whether it happened.
    """
    client = connections.get(_CONNECTION)
    if isinstance(client, AsyncpgDBClient):
        begun = _pooled(client, postgres.Unit)
    elif client.capabilities.dialect == "mysql":
        begun = _pooled(client, sys.modules[_MARIADB].Unit)
    else:
        begun = _in_transaction()
    async with begun as connection:
        yield connection


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[BaseDBAsyncClient]:
    """A unit of work that begins its transaction at once."""
    async with unit() as connection:
        await begin()
        yield connection


async def begin() -> None:
    """Begin the transaction of the current unit, if it has not begun: before rows are locked."""
    connection: Any = connections.get(_CONNECTION)
    if isinstance(connection, TransactionalDBClient) and connection.capabilities.dialect != "sqlite":
        await connection.begin()


@contextlib.asynccontextmanager
async def _pooled(client: Any, unit_of: Any) -> AsyncIterator[BaseDBAsyncClient]:  # noqa: ANN401 - of any vendor
    """A unit on a connection of the pool."""
    async with client.acquire_connection() as connection:
        mine = unit_of(client)
        mine._connection = connection  # noqa: SLF001 - as Tortoise's own transactions do
        token = connections.set(_CONNECTION, mine)
        try:
            try:
                yield mine
            except BaseException as error:
                await _end(mine, error)
                raise
            await _end(mine, None)
        finally:
            connections.reset(token)


async def _end(mine: Any, error: BaseException | None) -> None:  # noqa: ANN401 - of any vendor
    """Commit, or undo because of `error`. A connection that cannot do so is thrown away."""
    try:
        if error is None:
            await mine.finish()
        elif may_be_the_work(error):
            # It is lost. Asked to roll back, it would be waited for until the time-out.
            mine.throw_away()
        else:
            await mine.undo()
    except BaseException:
        mine.throw_away()
        if error is None:
            raise
        # The error that got us here is the one to tell, not that a dead connection cannot roll back.


@contextlib.asynccontextmanager
async def _in_transaction() -> AsyncIterator[BaseDBAsyncClient]:
    """One of Tortoise's transactions, mended.

    Tortoise (1.1) begins without a `try`, so that a begin which fails keeps SQLite's lock, and the task inside a
    transaction that is over.
    """
    context: Any = in_transaction()
    try:
        try:
            connection = await context.__aenter__()
        except BaseException:
            if hasattr(context, "token"):
                with contextlib.suppress(Exception):
                    await context.__aexit__(*sys.exc_info())
            raise
        try:
            yield connection
        except BaseException:
            # The error that got us here is the one to tell.
            with contextlib.suppress(Exception):
                await context.__aexit__(*sys.exc_info())
            raise
        await context.__aexit__(None, None, None)
    finally:
        # AttributeError: it never began. ValueError: it was left as it should be.
        with contextlib.suppress(AttributeError, ValueError):
            connections.reset(context.token)


async def answers() -> bool:
    """Whether the database gives a sign of life, over a new connection if it is a server."""
    try:
        client = connections.get(_CONNECTION)
        if isinstance(client, AsyncpgDBClient):
            await postgres.forget_connections(client)
        elif client.capabilities.dialect == "mysql":
            await sys.modules[_MARIADB].forget_connections(client)
        async with asyncio.timeout(_SECONDS_TO_ANSWER):
            await client.execute_query("SELECT 1")
    except Exception:  # noqa: BLE001 - whatever it says, it is no answer
        return False
    return True
