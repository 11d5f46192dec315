"""MariaDB: how it is connected to, one unit of work on a pooled connection, and what its errors mean.

Tortoise's client for MySQL, with what it lacks: statements that end in time, sessions that are all alike, and a
transaction that begins when it must, as on PostgreSQL (docs/adr/0014).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from asyncmy import errors
from asyncmy.constants import CLIENT, CR, ER
from asyncmy.converters import conversions, escape_datetime
from tortoise.backends.base.client import PoolConnectionWrapper
from tortoise.backends.mysql.client import MySQLClient, TransactionWrapper
from tortoise.exceptions import DBConnectionError

from common import tls
from common.vendors.fault import Fault

#: Codepoint by codepoint, trailing blanks included: for our ids that is bytewise. Others ignore case or blanks.
COLLATION = "utf8mb4_nopad_bin"
_SECONDS_TO_CONNECT = 10
#: A database that answers nothing at all is away: no statement of ours takes half a minute.
_SECONDS_TO_ANSWER = 30

#: Every session is set up by this one statement.
_SETTINGS: dict[str, object] = {
    "sql_mode": "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION",
    "collation_connection": COLLATION,
    "time_zone": "+00:00",
    # Each statement sees the newest and none locks the gaps between rows, as REPEATABLE READ, the default, does.
    "tx_isolation": "READ-COMMITTED",
    "innodb_lock_wait_timeout": 10,
    # A replica that was frozen or cut off lets go of its locks, whether or not the server sees it go.
    "idle_transaction_timeout": 60,
    # A long list of keys stays a list of keys, and is not made a table that is joined in any order.
    "in_predicate_conversion_threshold": 0,
    # "IF NOT EXISTS" needs no remark.
    "sql_notes": 0,
}

_CUT = {
    CR.CR_CONNECTION_ERROR,
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    CR.CR_SERVER_LOST_EXTENDED,
    CR.CR_COMMANDS_OUT_OF_SYNC,
    ER.SERVER_SHUTDOWN,
    ER.NORMAL_SHUTDOWN,
    ER.FORCING_CLOSE,
    ER.ABORTING_CONNECTION,
    ER.NEW_ABORTING_CONNECTION,
    ER.NET_READ_ERROR,
    ER.NET_READ_INTERRUPTED,
    ER.NET_ERROR_ON_WRITE,
    ER.NET_WRITE_INTERRUPTED,
    1927,  # the connection was killed
}
_AWAY = {
    CR.CR_UNKNOWN_HOST,
    # What a person mends while the message waits.
    ER.ACCESS_DENIED_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.BAD_DB_ERROR,
    ER.HOST_IS_BLOCKED,
    ER.HOST_NOT_PRIVILEGED,
    ER.HANDSHAKE_ERROR,
    3159,  # it wants the connection to be encrypted
    # Too many connections, of all or of this user; no memory, no threads.
    ER.CON_COUNT_ERROR,
    ER.TOO_MANY_USER_CONNECTIONS,
    ER.USER_LIMIT_REACHED,
    ER.OUTOFMEMORY,
    ER.OUT_OF_SORTMEMORY,
    ER.OUT_OF_RESOURCES,
    ER.CANT_CREATE_THREAD,
    # It takes no changes.
    ER.OPTION_PREVENTS_STATEMENT,
    1792,  # in a transaction that is read-only
    1836,  # in a mode that is read-only
    # No room on its disk.
    ER.DISK_FULL,
    ER.RECORD_FILE_FULL,
    ER.ERROR_ON_WRITE,
    # A node of a Galera cluster that is not, or not yet, part of it.
    ER.UNKNOWN_COM_ERROR,
}
_RACE = {
    ER.DUP_ENTRY,
    ER.LOCK_DEADLOCK,
    ER.LOCK_WAIT_TIMEOUT,
    ER.CHECKREAD,
    # Somebody migrated meanwhile.
    1412,
}
_DATA = {
    ER.DATA_TOO_LONG,
    ER.WARN_DATA_OUT_OF_RANGE,
    ER.WARN_DATA_TRUNCATED,
    ER.TRUNCATED_WRONG_VALUE,
    ER.TRUNCATED_WRONG_VALUE_FOR_FIELD,
    ER.INVALID_CHARACTER_STRING,
    ER.NET_PACKET_TOO_LARGE,
    1690,  # out of range in an expression
}


def credentials(options: Mapping[str, Any], encryption: tls.Context | None) -> dict[str, Any]:
    """The options we rely on; of the pool's size and of patience the URL may say otherwise."""
    told = {name: value for name, value in options.items() if name not in tls.OPTIONS}
    defaults = {"minsize": 1, "maxsize": 5, "command_timeout": _SECONDS_TO_ANSWER}
    patience = float(told.get("command_timeout", _SECONDS_TO_ANSWER))
    # Shorter than our own patience, so that a statement ends on the server too, and with a word of why.
    settings: dict[str, object] = _SETTINGS | {"max_statement_time": seconds_on_the_server(patience)}
    ours = {
        "charset": "utf8mb4",
        # Set with the others, below.
        "sql_mode": None,
        "init_command": "SET SESSION " + ", ".join(f"{name}={value!r}" for name, value in settings.items()),
        "connect_timeout": _SECONDS_TO_CONNECT,
        # An update counts the rows that it found: also those that were already as it wants them.
        "client_flag": CLIENT.FOUND_ROWS,
        "conv": conversions | {datetime: _utc},
        "ssl": encryption,
    }
    return defaults | told | ours


def seconds_on_the_server(patience: float) -> float:
    """How long a statement may take by the server's clock, if we wait for its answer so long."""
    return round(patience * 5 / 6, 3)


def _utc(moment: datetime, mapping: dict[Any, Any] | None = None) -> str:
    """A time as the database stores it: without an offset, so first of all in UTC."""
    return escape_datetime(moment.astimezone(UTC), mapping)


def fault(error: BaseException) -> Fault | None:
    """What one of MariaDB's errors means; None if it is none of those, or says nothing in particular."""
    if is_cut(error):
        return Fault.AWAY
    number = _number(error)
    for numbers, meaning in ((_AWAY, Fault.AWAY), (_RACE, Fault.RACE), (_DATA, Fault.DATA)):
        if number in numbers:
            return meaning
    return None


def is_cut(error: BaseException) -> bool:
    """Whether the connection was lost."""
    # What asyncmy says of a connection that died under it: InterfaceError, or of a packet too few InternalError.
    return _number(error) in _CUT or isinstance(error, errors.InterfaceError | errors.InternalError)


def _number(error: BaseException) -> object:
    return error.args[0] if isinstance(error, errors.MySQLError) and error.args else None


class Client(MySQLClient):
    """The pool of one service, whose statements end in time: asyncmy waits for ever for a server that hangs."""

    def __init__(self, *, command_timeout: float | str, **options: Any) -> None:  # noqa: ANN401 - Tortoise's own
        super().__init__(**options)
        self.patience = float(command_timeout)
        """How many seconds a statement may take."""
        self.encryption: tls.Context | None = options.get("ssl")
        """How its connections are encrypted."""

    async def create_connection(self, with_db: bool) -> None:
        """As in Tortoise, which tells all options of the connection that it could not make, but not why."""
        try:
            await super().create_connection(with_db)
        except DBConnectionError as error:
            raise DBConnectionError(str(error.__context__)) from error.__context__

    def acquire_connection(self) -> _Pooled:
        """A connection of the pool, for one statement."""
        return _Pooled(self, self._pool_init_lock)

    async def execute_query(self, query: str, values: list[Any] | None = None) -> tuple[int, list[Any]]:
        """As in Tortoise, in time."""
        async with asyncio.timeout(self.patience):
            return cast("tuple[int, list[Any]]", await super().execute_query(query, values))

    async def execute_insert(self, query: str, values: list[Any]) -> int:
        """As in Tortoise, in time."""
        async with asyncio.timeout(self.patience):
            return cast("int", await super().execute_insert(query, values))

    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        """As in Tortoise, in time."""
        async with asyncio.timeout(self.patience):
            await super().execute_many(query, values)

    async def execute_script(self, query: str) -> None:
        """As in Tortoise, in time."""
        async with asyncio.timeout(self.patience):
            await super().execute_script(query)


#: Where Tortoise looks for the client of an engine.
client_class = Client


class _Pooled(PoolConnectionWrapper[Any]):
    """A connection of the pool for as long as it is used; thrown away if its use was cut off."""

    async def __aenter__(self) -> Any:  # noqa: ANN401 - asyncmy's types say nothing of what we use
        client = cast("Client", self.client)
        with tls.told(client.encryption):
            async with asyncio.timeout(client.patience):
                return await super().__aenter__()

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, asyncio.CancelledError):
            _throw_away(self.connection)
        await super().__aexit__(kind, error, trace)


class Unit(TransactionWrapper):
    """A pooled connection in the hands of one unit of work; its transaction begins when it must."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.patience = client.patience
        """How many seconds a statement may take."""
        self._has_begun = False

    async def begin(self) -> None:
        """Begin the transaction, if it has not begun."""
        if not self._has_begun:
            async with self._in_time():
                await super().begin()
            self._has_begun = True

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.patience):
                yield
        except TimeoutError:
            self.throw_away()
            raise

    # The ORM may need several statements for one change; what only reads uses `execute_query_dict`.

    async def execute_query(self, query: str, values: list[Any] | None = None) -> tuple[int, list[Any]]:
        """As in Tortoise, in the transaction."""
        await self.begin()
        async with self._in_time():
            return cast("tuple[int, list[Any]]", await super().execute_query(query, values))

    async def execute_query_dict(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """As in Tortoise, in the transaction if it has begun."""
        async with self._in_time():
            return cast("list[dict[str, Any]]", (await super().execute_query(query, values))[1])

    async def execute_insert(self, query: str, values: list[Any]) -> int:
        """As in Tortoise, in the transaction."""
        await self.begin()
        async with self._in_time():
            return cast("int", await super().execute_insert(query, values))

    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        """As in Tortoise, in the transaction."""
        await self.begin()
        async with self._in_time():
            await super().execute_many(query, values)

    async def execute_script(self, query: str) -> None:
        """As in Tortoise; a change of a table ends the transaction."""
        async with self._in_time():
            await super().execute_script(query)

    async def finish(self) -> None:
        """Commit what was begun."""
        if self._has_begun:
            async with self._in_time():
                await self.commit()

    async def undo(self) -> None:
        """Roll back what was begun."""
        if self._has_begun:
            async with self._in_time():
                await self.rollback()

    def throw_away(self) -> None:
        """Close a connection that is of no use any more."""
        _throw_away(self._connection)


def _throw_away(connection: Any) -> None:  # noqa: ANN401 - as above
    """Close a connection at once: asyncmy would first send what a peer that is gone never takes."""
    transport = connection._transport  # noqa: SLF001 - asyncmy shows it nowhere else
    connection.close()
    if transport is not None:
        transport.abort()


async def forget_connections(client: Client) -> None:
    """Use none of the pooled connections again: each may be dead, and would cost a time-out to find out."""
    pool: Any = client._pool  # noqa: SLF001 - Tortoise shows it nowhere else
    while pool is not None and pool._free:  # noqa: SLF001 - as above
        _throw_away(pool._free.popleft())  # noqa: SLF001 - as above
