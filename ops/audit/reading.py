"""Reads the five databases without disturbing them: one read-only snapshot of each, walked in key order.

Plain SQL over the tables, not the services' own models: an auditor that shares code with those it audits shares
their mistakes. What one vendor does differently from another is in its `_Snapshot` and nowhere else.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from common import saga
from ops import where
from ops.audit.rules import Deed, Entry, Event, Notice, Payment, Saga, Step
from ops.output import CannotLookError

_PAGE = 2_000
_SECONDS = 10.0

_Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """Rows of one table that belong to sagas: their key column, the others, and where each row goes."""

    service: str
    table: str
    key: str
    columns: str
    add: Callable[[Saga, _Row], None]
    where: str = "1 = 1"


def _sources() -> Iterable[_Source]:
    for service in saga.SERVICES:

        def add_step(to: Saga, row: _Row, service: str = service) -> None:
            to.steps[service] = Step(row[0], _time(row[1]))

        def add_event(to: Saga, row: _Row, service: str = service) -> None:
            to.unpublished.append(Event(service, row[0], _time(row[1])))

        yield _Source(service, "saga_step", "saga_id", "state, changed_at", add_step)
        yield _Source(service, "outbox", "key", "type, staged_at", add_event)

    def add_payment(to: Saga, row: _Row) -> None:
        state, user, reservation, token, amount, paid_at, settled_at = row
        to.payment = Payment(state, user, reservation, token, amount, _time(settled_at or paid_at))

    def add_notice(to: Saga, row: _Row) -> None:
        kind, state, user, due_at = row
        to.notice = Notice(kind, state, user, _time(due_at))

    yield _Source(
        "payment",
        "payment",
        "payment_id",
        "state, user_id, reservation_id, token, amount, paid_at, settled_at",
        add_payment,
    )
    yield _Source(
        "reservation",
        "reservation",
        "payment_id",
        "reservation_id, state, user_id, price",
        lambda to, row: to.reservations.append(Deed(*row)),
        where="payment_id IS NOT NULL",
    )
    yield _Source(
        "point",
        "ledger_entry",
        "saga_id",
        "kind, user_id, amount",
        lambda to, row: to.entries.append(Entry(*row)),
        where="kind IN ('deduction', 'restoration')",
    )
    yield _Source(
        "queue",
        "token",
        "payment_id",
        "token, state, user_id",
        lambda to, row: to.tokens.append(Deed(*row)),
        where="payment_id IS NOT NULL",
    )
    yield _Source("notify", "notice", "saga_id", "kind, state, user_id, due_at", add_notice)


_SOURCES = tuple(_sources())


def _answers(service: str) -> _Source:
    return _Source(service, "saga_step", "saga_id", "answer_type, answer", lambda *_: None)


class Books:
    """Snapshots of the five databases, taken as nearly at once as can be, while it is open."""

    def __init__(self, snapshots: Mapping[str, _Snapshot]) -> None:
        self._snapshots = snapshots

    async def sagas(self) -> AsyncIterator[Saga]:
        """Give every saga that any of the databases knows, in the order of their ids, a page at a time."""
        streams = [_Stream(self._snapshots[source.service], source) for source in _SOURCES]
        while True:
            for stream in streams:
                await stream.fill()
            if not any(stream.rows for stream in streams):
                return
            # Before this key every stream has shown all it has.
            limit = min((stream.rows[-1][0] for stream in streams if not stream.at_end), default=None)
            for found in _gather((stream.source, stream.take(limit)) for stream in streams):
                yield found

    async def pick(self, ids: Iterable[str]) -> list[Saga]:
        """Give what the databases know of these sagas."""
        wanted = sorted(ids)
        picked = []
        for source in _SOURCES:
            with _looking_at(source.service):
                picked.append((source, await self._snapshots[source.service].pick(source, wanted)))
        return _gather(picked)

    async def answer(self, service: str, saga_id: str) -> tuple[str, str] | None:
        """What a service says when it is asked again about a saga, its type and its body; None: it has no row."""
        with _looking_at(service):
            rows = await self._snapshots[service].pick(_answers(service), [saga_id])
        return (rows[0][1], rows[0][2]) if rows else None

    async def select(self, service: str, query: str) -> list[_Row]:
        """Give the rows of a query that every vendor understands."""
        with _looking_at(service):
            return await self._snapshots[service].select(query)


@contextlib.asynccontextmanager
async def open_books(databases: Mapping[str, str]) -> AsyncIterator[Books]:
    """Open a snapshot of each service's database; CannotLookError if one cannot be read, now or later."""
    missing = [service for service in saga.SERVICES if service not in databases]
    if missing:
        raise CannotLookError(f"no database given of {', '.join(missing)}")
    async with contextlib.AsyncExitStack() as stack:
        snapshots: dict[str, _Snapshot] = {}
        for service in saga.SERVICES:
            with _looking_at(service):
                snapshots[service] = await stack.enter_async_context(_open(databases[service]))
        yield Books(snapshots)


def _open(url: str) -> contextlib.AbstractAsyncContextManager[_Snapshot]:
    match urlsplit(url).scheme:
        case "sqlite":
            return _open_sqlite(url)
        case "postgres" | "postgresql" | "asyncpg":
            return _open_postgres(url)
        case scheme:
            raise ValueError(f"no way to read {scheme!r} is known here")


@contextlib.contextmanager
def _looking_at(service: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        lines = str(error).strip().splitlines()
        why = lines[0] if lines else type(error).__name__
        raise CannotLookError(f"the {service} database: {why}") from error


class _Snapshot(ABC):
    """One moment of one database."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - asyncpg brings no types
        self._connection = connection

    @abstractmethod
    async def select(self, query: str) -> list[_Row]:
        """Give all rows of a query."""

    @abstractmethod
    async def walk(self, source: _Source) -> Callable[[], Any]:
        """Begin to read a source in bytewise order of its keys; what is given reads the next page."""

    @abstractmethod
    async def pick(self, source: _Source, keys: Sequence[str]) -> list[_Row]:
        """Give the rows of a source that have these keys."""


class _Sqlite(_Snapshot):
    """A file, opened read-only: in WAL mode a reader never waits for a writer, nor a writer for it."""

    async def select(self, query: str) -> list[_Row]:
        return await asyncio.to_thread(lambda: self._connection.execute(query).fetchall())

    async def walk(self, source: _Source) -> Callable[[], Any]:
        cursor = await asyncio.to_thread(self._connection.execute, f"{_query(source)} ORDER BY {source.key}")
        return lambda: asyncio.to_thread(cursor.fetchmany, _PAGE)

    async def pick(self, source: _Source, keys: Sequence[str]) -> list[_Row]:
        query = _query(source, "IN (SELECT value FROM json_each(?))")
        return await asyncio.to_thread(lambda: self._connection.execute(query, (json.dumps(keys),)).fetchall())


class _Postgres(_Snapshot):
    """A read-only transaction at repeatable read: all its statements see the same moment."""

    async def select(self, query: str) -> list[_Row]:
        return list(map(tuple, await self._connection.fetch(query)))

    async def walk(self, source: _Source) -> Callable[[], Any]:
        cursor = await self._connection.cursor(f'{_query(source)} ORDER BY {source.key} COLLATE "C"')
        return lambda: cursor.fetch(_PAGE)

    async def pick(self, source: _Source, keys: Sequence[str]) -> list[_Row]:
        query = _query(source, "= ANY($1::text[])")
        return list(map(tuple, await self._connection.fetch(query, keys)))


def _query(source: _Source, keys: str = "") -> str:
    # Nothing in here comes from outside: the sources are constants of this module.
    which = f"{source.where} AND {source.key} {keys}" if keys else source.where
    return f"SELECT {source.key}, {source.columns} FROM {source.table} WHERE {which}"  # noqa: S608


@contextlib.asynccontextmanager
async def _open_sqlite(url: str) -> AsyncIterator[_Snapshot]:
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
async def _open_postgres(url: str) -> AsyncIterator[_Snapshot]:
    address, options = where.postgres_address(url, "saga-audit")
    connection = await asyncpg.connect(address, timeout=_SECONDS, **options)
    try:
        # Only started: it ends with its connection, which may be gone by then.
        await connection.transaction(isolation="repeatable_read", readonly=True).start()
        await connection.fetchval("SELECT 1 FROM saga_step LIMIT 1")
        yield _Postgres(connection)
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=_SECONDS)


@dataclass(slots=True)
class _Stream:
    """A source on its way through its keys: the rows of it that were read and not yet taken."""

    snapshot: _Snapshot
    source: _Source
    rows: list[_Row] = field(default_factory=list)
    at_end: bool = False
    _next_page: Callable[[], Any] | None = None

    async def fill(self) -> None:
        """Read on until there is more than one key, so that the first is known to be complete."""
        while not self.at_end and (not self.rows or self.rows[0][0] == self.rows[-1][0]):
            with _looking_at(self.source.service):
                if self._next_page is None:
                    self._next_page = await self.snapshot.walk(self.source)
                page = [tuple(row) for row in await self._next_page()]
            self.rows += page
            self.at_end = len(page) < _PAGE

    def take(self, limit: str | None) -> list[_Row]:
        """Take the rows before this key; None takes all."""
        rows = self.rows
        count = len(rows) if limit is None else bisect.bisect_left(rows, limit, key=lambda row: row[0])
        self.rows = rows[count:]
        return rows[:count]


def _gather(pieces: Iterable[tuple[_Source, list[_Row]]]) -> list[Saga]:
    """Put the rows of each saga together."""
    found: dict[str, Saga] = {}
    for source, rows in pieces:
        for key, *columns in rows:
            if key not in found:
                found[key] = Saga(key)
            source.add(found[key], tuple(columns))
    return [found[key] for key in sorted(found)]


def _time(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
