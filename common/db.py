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
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
from asyncpg import connect_utils
from tortoise import connections
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
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
_SECONDS_TO_CONNECT = 10
#: Requests to cancel a statement that are under way.
_ASKING: set[asyncio.Task[None]] = set()
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
        ours = {
            "connection_class": _Connection,
            "server_settings": _POSTGRES_SETTINGS,
            "timeout": _SECONDS_TO_CONNECT,
        }
        connection["credentials"] = defaults | options | ours
    return connection


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that goes back to its pool as it is, and that is thrown away when it gave no answer in time."""

    def get_reset_query(self) -> str:
        """Nothing: no unit of work changes anything that outlives it, and to reset is a round trip."""
        return ""

    def _cancel_current_command(self, *_: object) -> None:
        """What asyncpg does when a statement takes too long: ask the server to cancel it.

        asyncpg waits until the server has obeyed, before the connection goes back to its pool. A server that is
        gone never does, so the service would stand still for one time-out more.
        """
        backend = self._protocol
        asking = asyncio.create_task(self._ask_to_cancel(backend.backend_pid, backend.backend_secret))
        _ASKING.add(asking)
        asking.add_done_callback(_ASKING.discard)
        self._loop.call_soon(self.terminate)

    async def _ask_to_cancel(self, pid: int, secret: int) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_SECONDS_TO_ANSWER):
                await connect_utils._cancel(  # noqa: SLF001 - asyncpg shows it nowhere else
                    loop=self._loop, addr=self._addr, params=self._params, backend_pid=pid, backend_secret=secret
                )


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
async def unit() -> AsyncIterator[BaseDBAsyncClient]:
    """One unit of work of the current task: at its end all that it wrote is there, on an error nothing is.

    On PostgreSQL the transaction begins only when it must: with the first lock (`begin`), or with the ORM's first
    statement. What reads, and then writes with the one statement of `common.rows`, needs none: a statement is all
    or nothing by itself, and under READ COMMITTED each one sees the newest anyway. SQLite has one transaction at a
    time, from the beginning of the unit.

    Never cancel a task inside: of what was under way, nobody would know whether it happened.
    """
    client = connections.get(_CONNECTION)
    if isinstance(client, AsyncpgDBClient):
        async with _pooled(client) as pooled:
            yield pooled
    else:
        async with _in_transaction() as connection:
            yield connection


@contextlib.asynccontextmanager
async def transaction() -> AsyncIterator[BaseDBAsyncClient]:
    """A unit of work that begins its transaction at once."""
    async with unit() as connection:
        await begin()
        yield connection


async def begin() -> None:
    """Begin the transaction of the current unit, if it has not begun: before rows are locked."""
    connection = connections.get(_CONNECTION)
    if isinstance(connection, _Unit):
        await connection.begin()


class _Unit(TransactionWrapper):
    """A pooled connection in the hands of one unit of work; its transaction begins when it must."""

    async def begin(self) -> None:
        if self.transaction is None:
            await super().begin()

    # The ORM may need several statements for one change. `common.rows` does not; it uses `execute_query_dict`.

    async def execute_query(self, query: str, values: list[Any] | None = None) -> tuple[int, list[Any]]:
        await self.begin()
        return cast("tuple[int, list[Any]]", await super().execute_query(query, values))

    async def execute_insert(self, query: str, values: list[Any]) -> Any:  # noqa: ANN401 - as in Tortoise
        await self.begin()
        return await super().execute_insert(query, values)

    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        await self.begin()
        await super().execute_many(query, values)

    async def execute_script(self, query: str) -> None:
        await self.begin()
        await super().execute_script(query)

    async def end(self, error: BaseException | None) -> None:
        """Commit, or undo because of `error`. A connection that cannot do so is thrown away."""
        try:
            if error is None and self.transaction is not None:
                await self.commit()
            elif error is not None and may_be_the_work(error):
                # It is lost. Asked to roll back, it would be waited for until the time-out.
                self._throw_away()
            elif self.transaction is not None:
                await self.rollback()
        except BaseException:
            self._throw_away()
            if error is None:
                raise
            # The error that got us here is the one to tell, not that a dead connection cannot roll back.

    def _throw_away(self) -> None:
        # One that is closed already is no longer ours to close.
        with contextlib.suppress(asyncpg.InterfaceError):
            self._connection.terminate()


@contextlib.asynccontextmanager
async def _pooled(client: AsyncpgDBClient) -> AsyncIterator[BaseDBAsyncClient]:
    """A unit on a connection of the pool."""
    async with client.acquire_connection() as connection:
        mine = _Unit(client)
        mine._connection = connection  # noqa: SLF001 - as Tortoise's own transactions do
        token = connections.set(_CONNECTION, mine)
        try:
            try:
                yield mine
            except BaseException as error:
                await mine.end(error)
                raise
            await mine.end(None)
        finally:
            connections.reset(token)


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
            # Every pooled connection may be dead, and each would cost a time-out to find out.
            await client._expire_connections()  # noqa: SLF001 - Tortoise shows it nowhere else
        async with asyncio.timeout(_SECONDS_TO_ANSWER):
            await client.execute_query("SELECT 1")
    except Exception:  # noqa: BLE001 - whatever it says, it is no answer
        return False
    return True
