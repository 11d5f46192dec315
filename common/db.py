"""One database per service, of any vendor: opening it, one transaction, and what its errors mean.

Here, and only here, one vendor may be treated differently from another.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from tortoise import connections
from tortoise.backends.asyncpg.client import AsyncpgDBClient
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.context import TortoiseContext
from tortoise.exceptions import (
    DBConnectionError,
    IntegrityError,
    ValidationError,
)
from tortoise.migrations.executor import MigrationExecutor
from tortoise.transactions import in_transaction

from common.telemetry import log

_APP = "models"
_CONNECTION = "default"
#: Any number will do, as long as every replica of a service uses the same.
_MIGRATION_LOCK = 5_063_170_211
_SECONDS_TO_ANSWER = 5
#: All that a batch reads and writes goes by a key. PostgreSQL keeps the plan of a statement, and one made while a
#: table was empty would go on to read the whole of it; and compiling a plan takes longer than running ours.
_POSTGRES_SETTINGS = {"enable_seqscan": "off", "jit": "off"}
#: How every SQLite file begins that is not empty (https://sqlite.org/fileformat.html).
_SQLITE_MAGIC = b"SQLite format 3\0"


class LostRaceError(Exception):
    """Another replica changed the row first. The transaction is undone; do it again from the start."""


class StillThereError(Exception):
    """The unit of work fails as if the database were away, but the database answers: the work is to blame."""


class Fault(Enum):
    """What an error of the database means for the message that met it."""

    AWAY = auto()
    """The database cannot be reached or written to: no attempt, wait for it."""
    RACE = auto()
    """Another transaction was first: at once, again."""
    DATA = auto()
    """This content cannot be stored, now or ever."""
    OTHER = auto()
    """Anything else, a bug included: may well pass."""


def classify(error: BaseException) -> Fault:
    """What `error` means; a wrapped error means what its cause means."""
    match error:
        case StillThereError() | asyncpg.QueryCanceledError():
            return Fault.OTHER
        case LostRaceError() | IntegrityError():
            return Fault.RACE
        case asyncpg.DeadlockDetectedError() | asyncpg.SerializationError():
            return Fault.RACE
        case DBConnectionError():
            return Fault.AWAY
        case _ if _is_cut(error):
            return Fault.AWAY
        case (
            asyncpg.InsufficientResourcesError()
            | asyncpg.ReadOnlySQLTransactionError()
            | asyncpg.InvalidAuthorizationSpecificationError()
            | asyncpg.InvalidCatalogNameError()
        ):
            # A wrong password or a missing database is mended by a person while the message waits.
            return Fault.AWAY
        case asyncpg.DataError() | ValidationError() | UnicodeError() | OverflowError():
            return Fault.DATA
        case sqlite3.OperationalError() if _sqlite_is_away(error):
            return Fault.AWAY
        case OSError():
            return Fault.AWAY
    cause = error.__cause__ or error.__context__
    return classify(cause) if cause is not None else Fault.OTHER


def may_be_the_work(error: BaseException) -> bool:
    """Whether `error` says that a connection was lost: by an outage, or by what the work did with it."""
    cause = error.__cause__ or error.__context__
    return _is_cut(error) or (cause is not None and may_be_the_work(cause))


def _is_cut(error: BaseException) -> bool:
    return isinstance(
        error,
        ConnectionError
        | TimeoutError
        | asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        # What asyncpg says of a connection that died under it.
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError,
    )


def _sqlite_is_away(error: sqlite3.OperationalError) -> bool:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return primary in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }


@contextlib.asynccontextmanager
async def open_database(url: str, modules: Sequence[str], migrations: str) -> AsyncIterator[None]:
    """Open the database at `url`, bring its tables up to date, and close it again at the end.

    `modules` hold the models, `migrations` is the package of their migrations. Safe when several replicas
    start at once. Raises whatever the vendor raises when the database is away; `classify` knows it.
    """
    with _one_process_per_file(url):
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
    connection = expand_db_url(url)
    options = connection["credentials"]
    if urlsplit(url).scheme == "sqlite":
        # A power cut may not lose what was acked, so SQLite syncs at every commit.
        connection["credentials"] = {"synchronous": "FULL", "busy_timeout": "5000"} | options
    else:
        # A database that answers nothing at all is away: no statement of ours takes half a minute.
        defaults = {"minsize": "1", "maxsize": "5", "command_timeout": "30"}
        ours = {"connection_class": _Connection, "server_settings": _POSTGRES_SETTINGS}
        connection["credentials"] = defaults | options | ours
    return connection


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that goes back to its pool as it is: no unit of work changes anything that outlives it."""

    def get_reset_query(self) -> str:
        """Nothing to reset, which saves a round trip for each unit of work."""
        return ""


@contextlib.contextmanager
def _one_process_per_file(url: str) -> Iterator[None]:
    """SQLite: a second process on the same file is refused. Other vendors: nothing to do."""
    path = sqlite_path(url)
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not _is_sqlite(path):
            raise SystemExit(f"{path} is no SQLite database; mend DATABASE_URL")
        held = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise SystemExit(f"the database {path} cannot be opened: {error.strerror}; mend DATABASE_URL") from None
    with held as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"{path} is in use by another process: SQLite serves one replica of a service; "
                "stop the other one, or set DATABASE_URL to a PostgreSQL database"
            ) from None
        yield


def _is_sqlite(path: Path) -> bool:
    """Whether a file is a SQLite database, or is yet to become one."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) in {b"", _SQLITE_MAGIC}


def sqlite_path(url: str) -> Path | None:
    """The file of a SQLite URL; None for memory and for other vendors."""
    if not url.startswith("sqlite://"):
        return None
    path = url.removeprefix("sqlite://").partition("?")[0]
    return None if path == ":memory:" else Path(path)


async def _migrate(migrations: dict[str, dict[str, Any]]) -> None:
    """Apply what is missing, under a lock that the other replicas wait for."""
    async with transaction() as connection:
        if connection.capabilities.dialect == "postgres":
            await connection.execute_query(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
        executor = MigrationExecutor(connection, migrations)
        # Its own look for this table fails on a new database, which would spoil the transaction.
        await executor.recorder.ensure_schema(executor._schema_editor(atomic=False))  # noqa: SLF001
        # It also takes any error of its own look for an empty table: ours comes first, and says what is wrong.
        await connection.execute_query("SELECT 1 FROM tortoise_migrations LIMIT 1")
        await executor.migrate(progress=lambda event, _, name: log.info("migration", change=event, migration=name))


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[BaseDBAsyncClient]:
    """One transaction of the current task: commits at the end, undoes everything on an error.

    Never cancel a task inside. Tortoise (1.1) begins without a `try`, so a begin that fails or is cancelled
    keeps SQLite's lock or leaks a pooled connection; and a connection that dies while it goes back to the pool
    leaves the task inside a transaction that is over, for ever. Failure is mended here, cancellation is not.
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
        except BaseException as error:
            if may_be_the_work(error):
                _abandon(connection)
            # The error that got us here is the one to tell, not that a dead connection cannot roll back.
            with contextlib.suppress(Exception):
                await context.__aexit__(*sys.exc_info())
            raise
        await context.__aexit__(None, None, None)
    finally:
        # AttributeError: it never began. ValueError: it was left as it should be.
        with contextlib.suppress(AttributeError, ValueError):
            connections.reset(context.token)


def _abandon(connection: BaseDBAsyncClient) -> None:
    """Close a lost connection at once: else it is asked to roll back, and to reset, each until its time-out."""
    if isinstance(connection, AsyncpgDBClient) and connection._connection is not None:  # noqa: SLF001 - as below
        connection._connection.terminate()  # noqa: SLF001 - as below


async def answers() -> bool:
    """Whether the database gives a sign of life, over a new connection if it is a server."""
    try:
        client = connections.get(_CONNECTION)
        if isinstance(client, AsyncpgDBClient):
            # Every pooled connection may be dead, and each would cost a time-out to find out.
            await client._expire_connections()  # noqa: SLF001 - Tortoise shows it nowhere else
        async with asyncio.timeout(_SECONDS_TO_ANSWER):
            await client.execute_query("SELECT 1")
    except Exception:  # noqa: BLE001 - whatever it says, it is no answer
        return False
    return True
