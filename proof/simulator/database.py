"""SQLite in memory instead of a file: it outlives its service, and faults strike between statements.

A database has one connection, so a transaction has it for itself and a second replica waits: serializable, as a
file would be. (What two replicas do to one another under READ COMMITTED is not seen here.)
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from proof.simulator.faults import Act, Fate, Moment, Strike
from proof.simulator.life import Incarnation, current

T = TypeVar("T")

#: Virtual seconds of a commit: as long as messages need to gather for the next batch.
_COMMIT = (0.002, 0.03)


class InjectedError(RuntimeError):
    """A fault that means nothing in particular, and passes."""


class Database:
    """One service's database."""

    def __init__(self, service: str, fate: Fate, chance: random.Random) -> None:
        self.service = service
        self.fate = fate
        self.raw = sqlite3.connect(":memory:", isolation_level=None)
        self.commits = 0
        self._chance = chance
        self._away_until = 0.0
        self._holder: Connection | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Whether no transaction is open, so that whoever looks sees only what is committed."""
        return self._holder is None

    def go_away(self, seconds: float) -> None:
        """Cannot be reached for so long; what was open is undone."""
        self._away_until = max(self._away_until, asyncio.get_running_loop().time() + seconds)
        if self._holder is not None:
            self._holder.lose()

    def must_answer(self) -> None:
        """Raise what SQLite raises if its file cannot be read."""
        if asyncio.get_running_loop().time() < self._away_until:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    def seconds_to_commit(self) -> float:
        """How long this commit takes."""
        return self._chance.uniform(*_COMMIT)

    async def begin(self, connection: Connection) -> None:
        """Wait until no transaction is open, and open one."""
        await self.turn(connection)
        connection.incarnation.must_live()
        self._holder = connection
        self.raw.execute("BEGIN")

    async def turn(self, connection: Connection) -> None:
        """Wait until nobody else has a transaction open."""
        while self._holder is not None and self._holder is not connection:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter

    def release(self, connection: Connection) -> None:
        """The transaction is over."""
        if self._holder is connection:
            self._holder = None
            while self._waiting:
                waiter = self._waiting.popleft()
                if not waiter.done():
                    waiter.set_result(None)
                    break

    def holds(self, connection: Connection) -> bool:
        """Whether this connection has a transaction open."""
        return self._holder is connection

    def undo(self, connection: Connection) -> None:
        """Roll back what this connection has not committed."""
        if self._holder is connection:
            if self.raw.in_transaction:
                self.raw.execute("ROLLBACK")
            self.release(connection)


class _Cursor:
    """What `execute` gives; all that anybody does with it is close it."""

    async def close(self) -> None:
        """Nothing is held."""


class Connection:
    """A service's connection: what Tortoise uses of `aiosqlite.Connection`, but every call runs in this thread."""

    def __init__(self, database: Database, incarnation: Incarnation) -> None:
        self.incarnation = incarnation
        self._database = database
        self._lost = False
        incarnation.wires.append(self._killed)

    def __await__(self) -> Generator[Any, None, Connection]:
        return self._open().__await__()

    @property
    def _conn(self) -> sqlite3.Connection:
        return self._database.raw

    @property
    def total_changes(self) -> int:
        """Rows changed since it was opened."""
        return self._database.raw.total_changes

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> _Cursor:
        """Run a statement."""
        if sql == "BEGIN":
            self._may_speak()
            await self._database.begin(self)
        else:
            await self._statement(sql, lambda: self._database.raw.execute(sql, tuple(parameters or ())))
        return _Cursor()

    async def execute_fetchall(self, sql: str, parameters: Iterable[Any] | None = None) -> list[sqlite3.Row]:
        """Run a query."""
        return await self._statement(
            sql, lambda: self._database.raw.execute(sql, tuple(parameters or ())).fetchall()
        )

    async def execute_insert(self, sql: str, parameters: Iterable[Any] | None = None) -> tuple[int | None]:
        """Insert a row; its number."""
        return await self._statement(
            sql, lambda: (self._database.raw.execute(sql, tuple(parameters or ())).lastrowid,)
        )

    async def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> _Cursor:
        """Run a statement for each row; the service may die between two of them."""
        strike = self._strikes(Moment.ROWS) if len(rows) > 1 else None
        if strike is not None and strike.act is Act.CRASH:
            self._database.raw.executemany(sql, rows[: 1 + strike.number % (len(rows) - 1)])
            self.incarnation.struck(strike)
            self.incarnation.must_live()
        await self._statement(sql, lambda: self._database.raw.executemany(sql, rows))
        return _Cursor()

    async def executescript(self, script: str) -> _Cursor:
        """Run the statements of a migration."""
        # Not `executescript`: it would commit what is open.
        for statement in script.split(";"):
            if statement.strip():
                await self._statement(statement, lambda sql=statement: self._database.raw.execute(sql))  # type: ignore[misc]
        return _Cursor()

    async def commit(self) -> None:
        """Commit what is open, if anything is."""
        self._may_speak()
        if not self._database.holds(self):
            return
        await self._suffer(self._strikes(Moment.COMMIT))
        await asyncio.sleep(self._database.seconds_to_commit())
        self._may_speak()
        if self._database.raw.in_transaction:
            self._database.raw.execute("COMMIT")
        self._database.commits += 1
        self._database.release(self)
        await self._suffer(self._strikes(Moment.COMMITTED))

    async def rollback(self) -> None:
        """Undo what is open, if anything is."""
        self.incarnation.must_live()
        self._lost = False
        self._database.undo(self)

    async def close(self) -> None:
        """Leave; the database stays."""
        self._database.undo(self)

    def lose(self) -> None:
        """The connection is lost, and with it its transaction; it fails until that is rolled back."""
        self._lost = True
        if self._database.raw.in_transaction:
            self._database.raw.execute("ROLLBACK")

    async def _open(self) -> Connection:
        self._may_speak()
        await asyncio.sleep(0)
        return self

    async def _statement(self, sql: str, run: Callable[[], T]) -> T:
        self._may_speak()
        before, after = self._moments(sql)
        if before is not None:
            await self._suffer(self._strikes(before))
        await asyncio.sleep(0)
        self._may_speak()
        if not self._database.holds(self):
            await self._database.turn(self)
            self._may_speak()
        result = run()
        if after is not None:
            await self._suffer(self._strikes(after))
        return result

    def _moments(self, sql: str) -> tuple[Moment | None, Moment | None]:
        if '"outbox"' in sql:
            if sql.startswith("DELETE"):
                return Moment.FORGET, Moment.FORGOTTEN
            if not self._database.holds(self):
                return Moment.SWEEP, None
        return (Moment.STATEMENT, None) if self._database.holds(self) else (None, None)

    def _strikes(self, moment: Moment) -> Strike | None:
        return self._database.fate.at(self.incarnation.name, moment)

    async def _suffer(self, strike: Strike | None) -> None:
        if strike is None:
            return
        self.incarnation.struck(strike)
        match strike.act:
            case Act.CRASH:
                self.incarnation.must_live()
            case Act.LEAVE:
                self.incarnation.life.stop()
            case Act.AWAY:
                self._database.go_away(strike.seconds)
                self._may_speak()
            case Act.CUT | Act.UNSURE:
                if self._database.holds(self):
                    self.lose()
                raise ConnectionResetError("the connection was lost")
            case Act.FAIL if self.incarnation.works:
                raise InjectedError("something went wrong that will pass")
            case Act.SLOW:
                await asyncio.sleep(strike.seconds)

    def _killed(self) -> None:
        self._database.undo(self)

    def _may_speak(self) -> None:
        self.incarnation.must_live()
        if self._lost:
            raise ConnectionResetError("the connection was lost")
        self._database.must_answer()


class Connects:
    """Takes the place of `aiosqlite.connect`: whoever calls gets the database of the service it is."""

    def __init__(self, databases: dict[str, Database]) -> None:
        self._databases = databases

    def __call__(self, _: str | Path, **__: object) -> Connection:
        """Connect."""
        incarnation = current()
        if incarnation is None:
            raise RuntimeError("only services have databases")
        return Connection(self._databases[incarnation.service], incarnation)
