"""A database under glass: one transaction of the production code over it, seen statement by statement.

In PostgreSQL's READ COMMITTED, each statement sees what was committed when it began. So a transaction is a
function of what its reading statements were told. Here the first of them are told what they are told elsewhere,
handed in; the others, and then all the writing ones, meet the content that the database is given.

What is read is read with the statements that the services send to PostgreSQL, `FOR UPDATE` included; SQLite in
memory answers them. What is written is written at the end, row by row, as in any SQLite database of a service; in
PostgreSQL it is one statement. Nothing is ever waited for, so a transaction takes a fraction of a millisecond.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tortoise import Model, connections
from tortoise.backends.base.client import Capabilities
from tortoise.backends.sqlite.client import SqliteClient, translate_exceptions
from tortoise.context import TortoiseContext
from tortoise.utils import get_schema_sql

from common import db

Row = tuple[Any, ...]
#: The content of a service's tables: for each table, its rows in order, as SQLite holds them.
Content = tuple[tuple[Row, ...], ...]
#: A row of a table, by its primary key.
Key = tuple[str, Any]

_CONNECTION = "default"
_LOCKING = " FOR UPDATE"
#: How `common.rows` reads from PostgreSQL: the keys are one parameter.
_FIND = re.compile(
    r'(?P<select>SELECT .* FROM "(?P<table>\w+)" WHERE "\w+") = ANY\(\$1::\w+\[\]\)'
    r'(?P<order> ORDER BY "\w+")(?P<lock> FOR UPDATE)?'
)
#: How `common.reads` reads several tables from PostgreSQL at once: each row comes within a row.
_ASKED = re.compile(
    r'SELECT (?P<question>\d+) AS "question", ROW\((?P<columns>[^)]*)\) AS "answer" FROM "(?P<table>\w+)" '
    r'WHERE (?P<start>"\w+" (?:IN \(SELECT "\w+" FROM "\w+" WHERE "\w+" )?)= ANY\(\$\d+::\w+\[\]\)(?P<end>\)?)'
)

#: How SQLite keeps a point in time, always with its zone.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d$")


class Unsearchable(Exception):  # noqa: N818 - it says nothing about the production code
    """A statement that the search does not know how to split, or to answer: the search must be taught."""


@dataclass(frozen=True, slots=True)
class Read:
    """A statement that reads: what it was told, and which rows it locked until its transaction ends."""

    table: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    locked: frozenset[Key]

    def __str__(self) -> str:
        return f"{self.table} (locked)" if self.sql.endswith(_LOCKING) else self.table


class Glass(SqliteClient):
    """Tortoise's connection to the tables of one service, in memory."""

    # While it reads, so that the services lock what they lock in PostgreSQL.
    capabilities = Capabilities("postgres", support_for_update=True)

    def __init__(self, tables: Sequence[type[Model]]) -> None:
        super().__init__(":memory:", connection_name=_CONNECTION)
        self._columns = {_name(table): columns_of(table) for table in tables}
        self._primary = {_name(table): table._meta.db_pk_column for table in tables}  # noqa: SLF001 - as below
        self._memory = sqlite3.connect(":memory:", isolation_level=None)
        self._memory.row_factory = sqlite3.Row
        self._told: Iterator[Read] = iter(())
        #: What the reading statements of the transaction were told, in order.
        self.reads: list[Read] = []
        #: Whether the transaction has written anything.
        self.wrote = False

    async def close(self) -> None:
        """Forget everything."""
        self._memory.close()

    def begin(self, content: Content, told: Sequence[Read]) -> None:
        """Give the database this content; the first statements that read will be told `told`."""
        for table in self._columns:
            self._memory.execute(f'DELETE FROM "{table}"')  # noqa: S608 - our own names
        for (table, columns), rows in zip(self._columns.items(), content, strict=False):
            names = ", ".join(f'"{column}"' for column in columns)
            places = ", ".join("?" * len(columns))
            self._memory.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({places})', rows)  # noqa: S608 - as above
        self._told = iter(told)
        self.reads = []
        self.wrote = False
        self.capabilities = Glass.capabilities

    def content(self) -> Content:
        """What the tables hold now."""
        return tuple(self._rows(table, columns) for table, columns in self._columns.items())

    def _rows(self, table: str, columns: Sequence[str]) -> tuple[Row, ...]:
        names = ", ".join(f'"{column}"' for column in columns)
        found = self._memory.execute(f'SELECT {names} FROM "{table}"')  # noqa: S608 - our own names
        return tuple(sorted((tuple(row) for row in found), key=repr))

    def changed(self, before: Content, after: Content) -> frozenset[Key]:
        """The rows that were there before and are not the same after: who changes them holds their locks."""
        changed = set()
        for (table, columns), old, new in zip(self._columns.items(), before, after, strict=True):
            primary = self._primary[table]
            if primary in columns:
                place = columns.index(primary)
                changed |= {(table, row[place]) for row in set(old) - set(new)}
        return frozenset(changed)

    def now_writes(self) -> None:
        """From here on the transaction writes, row by row as to any SQLite."""
        self.capabilities = SqliteClient.capabilities

    @translate_exceptions
    async def execute_query(
        self, query: str, values: list[Any] | None = None
    ) -> tuple[int, Sequence[dict[str, Any]]]:
        """Execute a statement, and count its rows; before `now_writes` there may be none."""
        self._write(query)
        cursor = self._memory.execute(query, values or [])
        return cursor.rowcount, [dict(row) for row in cursor]

    @translate_exceptions
    async def execute_many(self, query: str, values: list[list[Any]]) -> None:
        """Execute a statement that writes, once for each row."""
        self._write(query)
        self._memory.executemany(query, values)

    @translate_exceptions
    async def execute_query_dict(self, query: str, values: list[Any] | None = None) -> list[dict[str, Any]]:
        """Answer a statement that reads."""
        find = _FIND.fullmatch(query)
        asked = [_ASKED.fullmatch(part) for part in query.split(" UNION ALL ")]
        if (find is None and None in asked) or self.capabilities is SqliteClient.capabilities:
            raise Unsearchable(f"only reads by their keys are known, and none may follow a write: {query}")
        told = next(self._told, None)
        if told is None:
            told = self._find(query, find, values or []) if find else self._ask(query, asked, values or [])
        elif told.sql != query:
            raise Unsearchable(f"what the transaction was told does not make it ask this: {query}")
        self.reads.append(told)
        return [dict(zip(told.columns, _as_from_postgres(row), strict=True)) for row in told.rows]

    def _write(self, query: str) -> None:
        if self.capabilities is not SqliteClient.capabilities:
            raise Unsearchable(f"a unit of work writes at its end, and not before: {query}")
        self.wrote = True

    def _find(self, query: str, find: re.Match[str], values: list[Any]) -> Read:
        (keys,) = values
        plain = f"{find['select']} IN ({', '.join('?' * len(keys))}){find['order']}"
        cursor = self._memory.execute(plain, keys)
        columns = tuple(column[0] for column in cursor.description)
        rows = tuple(tuple(row) for row in cursor)
        table = find["table"]
        place = columns.index(self._primary[table])
        locked = frozenset((table, row[place]) for row in rows if find["lock"])
        return Read(table, query, columns, rows, locked)

    def _ask(self, query: str, asked: Sequence[re.Match[str] | None], values: list[Any]) -> Read:
        rows: list[Row] = []
        tables = []
        for part, keys in zip(asked, values, strict=True):
            assert part is not None
            tables.append(part["table"])
            places = f"IN ({', '.join('?' * len(keys))}){part['end']}"
            plain = f'SELECT {part["columns"]} FROM "{part["table"]}" WHERE {part["start"]}{places}'  # noqa: S608 - as above
            rows += [(int(part["question"]), tuple(row)) for row in self._memory.execute(plain, keys)]
        named = " and ".join(dict.fromkeys(tables))
        return Read(named, query, ("question", "answer"), tuple(rows), frozenset())


async def open_glass(service: str, tables: Sequence[type[Model]]) -> tuple[TortoiseContext, Glass]:
    """The tables of a service in memory, and the context of their models; see `using`."""
    context = TortoiseContext()
    glass = Glass(tables)
    with context:
        settings = db.configuration("sqlite://:memory:", db.tables(service), f"{service}_svc.migrations")
        await context.init(config=settings)
        token = connections.set(_CONNECTION, glass)
        glass._memory.executescript(get_schema_sql(glass, safe=False))  # noqa: SLF001 - finishing what it opened
        connections.reset(token)
    return context, glass


@contextlib.contextmanager
def using(context: TortoiseContext, glass: Glass) -> Iterator[None]:
    """Let the models of a service live under glass, as if inside a transaction."""
    with context:
        token = connections.set(_CONNECTION, glass)
        try:
            yield
        finally:
            connections.reset(token)


def columns_of(table: type[Model]) -> list[str]:
    """The columns that say something. A number that the database gives out would make equal contents differ."""
    return [name for name in table._meta.fields_map if name != "id"]  # noqa: SLF001 - Tortoise tells it nowhere else


def _as_from_postgres(row: Row) -> Row:
    """A row as PostgreSQL's driver tells it: points in time, which SQLite keeps as texts, are told as such."""
    return tuple([_moment(value) if type(value) in {str, tuple} else value for value in row])


def _moment(value: str | Row) -> object:
    if isinstance(value, tuple):
        return _as_from_postgres(value)
    return datetime.fromisoformat(value) if _MOMENT.match(value) else value


def _name(table: type[Model]) -> str:
    return str(table._meta.db_table)  # noqa: SLF001 - as above


def rows_by_table(tables: Sequence[type[Model]], content: Content) -> Mapping[str, list[dict[str, Any]]]:
    """The rows of a content as dictionaries, by the names of their tables."""
    return {
        _name(table): [dict(zip(columns_of(table), row, strict=True)) for row in rows]
        for table, rows in zip(tables, content, strict=True)
    }
