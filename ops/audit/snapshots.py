"""One moment of one database, read without disturbing it.

What one vendor does differently from another is in its `Snapshot` and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from ops import postgres
from ops.audit.sources import Row, Source, query_of
from ops.output import CannotLookError

#: Rows that are read at once.
PAGE = 2_000
_SECONDS = 10.0


def open_snapshot(url: str) -> contextlib.AbstractAsyncContextManager[Snapshot]:
    """Open a snapshot of the database at a URL, by whatever vendor its scheme names; ValueError for another."""
    match urlsplit(url).scheme:
        case "sqlite":
            return _open_sqlite(url)
        case "postgres" | "postgresql" | "asyncpg":
            return _open_postgres(url)
        case "mariadb":
            return _open_mariadb(url)
        case scheme:
            raise ValueError(f"no way to read {scheme!r} is known here")


@contextlib.contextmanager
def looking_at(service: str) -> Iterator[None]:
    """Turn what goes wrong at a service's database into a CannotLookError that names it."""
    try:
        yield
    except (OSError, ValueError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        raise CannotLookError(f"the {service} database: {why}") from error


class Snapshot(ABC):
    """One moment of one database."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - asyncpg brings no types
        self._connection = connection

    @abstractmethod
    async def select(self, query: str) -> list[Row]:
        """Give all rows of a query."""

    @abstractmethod
    async def walk(self, source: Source) -> Callable[[], Any]:
        """Begin to read a source in bytewise order of its keys; what is given reads the next page."""

    @abstractmethod
    async def pick(self, source: Source, keys: Sequence[str]) -> list[Row]:
        """Give the rows of a source that have these keys."""


class _Sqlite(Snapshot):
    """A file, opened read-only: in WAL mode a reader never waits for a writer, nor a writer for it."""

    async def select(self, query: str) -> list[Row]:
        return await asyncio.to_thread(lambda: self._connection.execute(query).fetchall())

    async def walk(self, source: Source) -> Callable[[], Any]:
        cursor = await asyncio.to_thread(self._connection.execute, f"{query_of(source)} ORDER BY {source.column}")
        return lambda: asyncio.to_thread(cursor.fetchmany, PAGE)

    async def pick(self, source: Source, keys: Sequence[str]) -> list[Row]:
        query = query_of(source, "IN (SELECT value FROM json_each(?))")
        return await asyncio.to_thread(lambda: self._connection.execute(query, (json.dumps(keys),)).fetchall())


class _Postgres(Snapshot):
    """A read-only transaction at repeatable read: all its statements see the same moment."""

    async def select(self, query: str) -> list[Row]:
        return list(map(tuple, await self._connection.fetch(query)))

    async def walk(self, source: Source) -> Callable[[], Any]:
        cursor = await self._connection.cursor(f'{query_of(source)} ORDER BY {source.column} COLLATE "C"')
        return lambda: cursor.fetch(PAGE)

    async def pick(self, source: Source, keys: Sequence[str]) -> list[Row]:
        query = query_of(source, "= ANY($1::text[])")
        return list(map(tuple, await self._connection.fetch(query, keys)))


class _MariaDB(Snapshot):
    """A read-only transaction at repeatable read: all its statements see the moment of the first."""

    async def select(self, query: str) -> list[Row]:
        return list(await self._connection.rows(query))

    async def walk(self, source: Source) -> Callable[[], Any]:
        next_page: Callable[[], Any] = await self._connection.pages(
            f"{query_of(source)} ORDER BY {source.column}", PAGE
        )
        return next_page

    async def pick(self, source: Source, keys: Sequence[str]) -> list[Row]:
        query = query_of(source, f"IN ({', '.join(['%s'] * len(keys))})")
        return list(await self._connection.rows(query, keys)) if keys else []


@contextlib.asynccontextmanager
async def _open_sqlite(url: str) -> AsyncIterator[Snapshot]:
    connection = sqlite3.connect(
        f"{_file(url).as_uri()}?mode=ro",
        uri=True,
        timeout=_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # one statement at a time, each in a thread of its own
    )
    with contextlib.closing(connection):
        connection.execute("BEGIN")
        connection.execute("SELECT 1 FROM saga_step LIMIT 1").fetchone()  # the snapshot begins with a read
        yield _Sqlite(connection)


def _file(url: str) -> Path:
    path = Path(url.removeprefix("sqlite://").partition("?")[0]).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    return path


@contextlib.asynccontextmanager
async def _open_postgres(url: str) -> AsyncIterator[Snapshot]:
    connection = await postgres.connect(url, "saga-audit", seconds=_SECONDS)
    try:
        # Only started: it ends with its connection, which may be gone by then.
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        await connection.fetchval("SELECT 1 FROM saga_step LIMIT 1")
        yield _Postgres(connection)
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=_SECONDS)


@contextlib.asynccontextmanager
async def _open_mariadb(url: str) -> AsyncIterator[Snapshot]:
    from ops import mariadb  # noqa: PLC0415 - loads a driver that is needed only here

    async with mariadb.session(url, "saga-audit", seconds=_SECONDS) as session:
        await session.rows("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        await session.rows("SELECT 1 FROM saga_step LIMIT 1")
        yield _MariaDB(session)
