"""PostgreSQL: how it is connected to, one unit of work on a pooled connection, and what its errors mean."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, cast

import asyncpg
from asyncpg import connect_utils
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper

from common import tls
from common.vendors.fault import Fault

_SECONDS_TO_ANSWER = 5
_SECONDS_TO_CONNECT = 10
#: Any number will do, as long as every replica of a service uses the same.
_MIGRATION_LOCK = 5_063_170_211
#: Requests to cancel a statement that are under way.
_ASKING: set[asyncio.Task[None]] = set()
#: All that a batch reads and writes goes by a key, and its statements always have the same text. So a plan is made
#: once for each, whatever the values: to plan anew takes as long as to run. One that was made while a table was
#: empty would go on to read the whole of it; and compiling a plan takes longer than running ours.
_SETTINGS = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}


def credentials(options: Mapping[str, Any], encryption: tls.Context | None) -> dict[str, Any]:
    """The options we rely on; of the pool's size and of patience the URL may say otherwise."""
    # A database that answers nothing at all is away: no statement of ours takes half a minute.
    defaults = {"minsize": "1", "maxsize": "5", "command_timeout": "30"}
    ours = {"connection_class": _Connection, "server_settings": _SETTINGS, "timeout": _SECONDS_TO_CONNECT}
    if encryption is not None:
        ours |= {"ssl": encryption, "connect": _connect_encrypted}
    return defaults | {name: told for name, told in options.items() if name not in tls.OPTIONS} | ours


async def _connect_encrypted(*args: Any, ssl: tls.Context, **options: Any) -> asyncpg.Connection:  # noqa: ANN401 - asyncpg's own
    """What the pool does for a new connection; what is wrong with a certificate is told in clear words."""
    with tls.told(ssl):
        return await asyncpg.connect(*args, ssl=ssl, **options)


def fault(error: BaseException) -> Fault | None:
    """What one of PostgreSQL's errors means; None if it is none of those, or says nothing in particular."""
    match error:
        case asyncpg.QueryCanceledError():
            return Fault.OTHER
        case asyncpg.DeadlockDetectedError() | asyncpg.SerializationError():
            return Fault.RACE
        case _ if is_cut(error):
            return Fault.AWAY
        case (
            asyncpg.InsufficientResourcesError()
            | asyncpg.ReadOnlySQLTransactionError()
            | asyncpg.InvalidAuthorizationSpecificationError()
            | asyncpg.InvalidCatalogNameError()
        ):
            # A wrong password or a missing database is mended by a person while the message waits.
            return Fault.AWAY
        case asyncpg.DataError():
            return Fault.DATA
    return None


def is_cut(error: BaseException) -> bool:
    """Whether the connection was lost."""
    return isinstance(
        error,
        asyncpg.PostgresConnectionError
        | asyncpg.OperatorInterventionError
        # What asyncpg says of a connection that died under it.
        | asyncpg.InterfaceError
        | asyncpg.InternalClientError,
    )


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


class Unit(TransactionWrapper):
    """A pooled connection in the hands of one unit of work; its transaction begins when it must."""

    async def begin(self) -> None:
        """Begin the transaction, if it has not begun."""
        if self.transaction is None:
            await super().begin()

    # The ORM may need several statements for one change. `common.rows` does not; it uses `execute_query_dict`.

    async def execute_query(self, query: str, values: list[Any] | None = None) -> tuple[int, list[Any]]:
        """As in Tortoise, in the transaction."""
        await self.begin()
        return cast("tuple[int, list[Any]]", await super().execute_query(query, values))

    async def execute_insert(self, query: str, values: list[Any]) -> Any:  # noqa: ANN401 - as in Tortoise
        """As in Tortoise, in the transaction."""
        await self.begin()
        return await super().execute_insert(query, values)

    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        """As in Tortoise, in the transaction."""
        await self.begin()
        await super().execute_many(query, values)

    async def execute_script(self, query: str) -> None:
        """As in Tortoise, in the transaction."""
        await self.begin()
        await super().execute_script(query)

    async def finish(self) -> None:
        """Commit what was begun."""
        if self.transaction is not None:
            await self.commit()

    async def undo(self) -> None:
        """Roll back what was begun."""
        if self.transaction is not None:
            await self.rollback()

    def throw_away(self) -> None:
        """Close a connection that is of no use any more."""
        # One that is closed already is no longer ours to close.
        with contextlib.suppress(asyncpg.InterfaceError):
            self._connection.terminate()


async def lock_migrations(unit: Unit) -> None:
    """Wait until no other replica migrates; the lock ends with the transaction."""
    await unit.execute_query(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")


async def forget_connections(client: AsyncpgDBClient) -> None:
    """Use none of the pooled connections again: each may be dead, and would cost a time-out to find out."""
    await client._expire_connections()  # noqa: SLF001 - Tortoise shows it nowhere else
