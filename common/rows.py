"""Rows by the batch: one statement reads a table, one statement writes them all, and its text is always the same.

The ORM would write out every row as placeholders: another text for each size of a batch, which the database parses
and plans anew, and costs more than running it; and each table written is one more way to the server and back.
PostgreSQL takes whole columns as arrays, and any number of inserts, updates and deletes as parts of one statement.
MariaDB has a statement for each part, in `common.vendors.mariadb_rows`.
For SQLite, which runs in this process, a statement for each row is cheap.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import cache
from typing import Any, Literal, TypeVar, assert_never

import asyncpg
from tortoise import Model, connections, fields
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.exceptions import OperationalError

from common import db
from common.vendors import mariadb_rows

M = TypeVar("M", bound=Model)

#: PostgreSQL's types of our columns as parameters. Texts carry no length: a cast would cut them without a word.
_POSTGRES_TYPES: Mapping[type[fields.Field[Any]], str] = {
    fields.CharField: "text",
    fields.TextField: "text",
    fields.BigIntField: "bigint",
    fields.IntField: "integer",
    fields.DatetimeField: "timestamptz",
    fields.UUIDField: "uuid",
}


#: What Tortoise notes down in each row that it has read.
_STORED: Mapping[str, Any] = {"_partial": False, "_saved_in_db": True, "_custom_generated_pk": False}


async def find(model: type[M], keys: Collection[str], *, lock: bool = False) -> list[M]:
    """The rows whose primary key is among `keys`, in the order of the key; locked in that order, if asked to.

    Where the database has no row locks (SQLite), one transaction at a time is what keeps others away.
    """
    if not keys:
        return []
    if lock:
        await db.begin()
    connection = connections.get("default")
    wanted = sorted(set(keys))
    match connection.capabilities.dialect:
        case "postgres":
            found = await connection.execute_query_dict(_postgres_select(model, lock), [wanted])
            return [stored(model, row) for row in found]
        case "mysql":
            found = await mariadb_rows.find(connection, _place(model), columns_of(model), wanted, lock=lock)
        case _:
            found = await connection.execute_query_dict(_select(model), [json.dumps(wanted)])
    return [model._init_from_db(**row) for row in found]  # noqa: SLF001 - how Tortoise itself makes what it found


def new(model: type[M], **values: Any) -> M:  # noqa: ANN401 - as the model's fields say
    """A row that is not in the database yet: as the model's constructor makes it, at a fraction of the cost."""
    return stored(model, _nothing(model) | values)


def stored(model: type[M], values: Mapping[str, Any]) -> M:
    """A row of these values: of all columns, each of its field's Python type, as PostgreSQL's driver gives them.

    What Tortoise itself makes of what it found (`_init_from_db`), without looking at each value.
    """
    row = model.__new__(model)
    kept = vars(row)
    kept.update(_STORED, **values)
    for name in _moments(model):
        if (moment := kept[name]) is not None and moment.tzinfo is None:
            # asyncpg tells the end of time, which PostgreSQL takes for infinity, without a zone.
            kept[name] = moment.replace(tzinfo=UTC)
    return row


class Writes:
    """What one unit of work writes: gathered while it decides, and then written at once, in this order."""

    def __init__(self) -> None:
        self._parts: dict[_Part, list[Any]] = {}

    def insert(self, model: type[Model], rows: Iterable[Any]) -> None:
        """Insert rows, which have the model's columns as attributes. IntegrityError if one exists already."""
        self._add(_Part("insert", model, _insertable(model)), rows)

    def update(self, model: type[Model], rows: Iterable[Any], *columns: str, only_if: str = "") -> None:
        """Write these columns of rows that were read before.

        `only_if` compares before it sets: the name of an attribute of the rows that holds what the column of the
        first name in `columns` must still hold, be it NULL. LostRaceError if any row is no longer there or so.
        """
        self._add(_Part("update", model, (*columns, key_of(model)), only_if), rows)

    def delete(self, model: type[Model], keys: Iterable[Any]) -> None:
        """Delete the rows with these primary keys, as far as they are there."""
        self._add(_Part("delete", model, (key_of(model),)), keys)

    def _add(self, part: _Part, rows: Iterable[Any]) -> None:
        self._parts.setdefault(part, []).extend(rows)

    async def flush(self) -> None:
        """Write everything: within a unit, all or nothing.

        On PostgreSQL it is one statement, which needs no transaction for that; elsewhere it is in the unit's.
        """
        parts = {part: rows for part, rows in self._parts.items() if rows}
        self._parts = {}
        if not parts:
            return
        connection = connections.get("default")
        if connection.capabilities.dialect == "postgres":
            await _write_at_once(connection, parts)
            return
        await db.begin()
        write = _write_part if connection.capabilities.dialect == "mysql" else _write_one_by_one
        for part, rows in parts.items():
            written = await write(connection, part, rows)
            if part.kind == "update" and written != len(rows):
                raise _lost_race([part])


@dataclass(frozen=True, slots=True)
class _Part:
    """One kind of change of one table. The columns end with the key, where the key says which rows."""

    kind: Literal["insert", "update", "delete"]
    model: type[Model]
    columns: tuple[str, ...]
    only_if: str = ""

    def arrays(self, rows: Sequence[Any]) -> list[list[Any]]:
        """The values column by column."""
        if self.kind == "delete":
            return [list(rows)]
        names = (*self.columns, self.only_if) if self.only_if else self.columns
        return [[getattr(row, name) for row in rows] for name in names]


async def _write_at_once(connection: BaseDBAsyncClient, parts: Mapping[_Part, Sequence[Any]]) -> None:
    """Write everything with one statement, which fails as a whole if another replica was first."""
    values: list[Any] = [column for part, rows in parts.items() for column in part.arrays(rows)]
    values += [len(rows) for part, rows in parts.items() if part.kind == "update"]
    try:
        await connection.execute_query_dict(_postgres_write(tuple(parts)), values)
    except OperationalError as error:
        if isinstance(error.__cause__, asyncpg.DivisionByZeroError):
            raise _lost_race([part for part in parts if part.kind == "update"]) from None
        raise


def _lost_race(parts: Iterable[_Part]) -> db.LostRaceError:
    tables = " or ".join(sorted({table_of(part.model) for part in parts}))
    return db.LostRaceError(f"another replica changed rows of {tables} first")


async def _write_part(connection: BaseDBAsyncClient, part: _Part, rows: Sequence[Any]) -> int:
    """Write a part with a statement of MariaDB's, and give how many rows there were."""
    place = _place(part.model)
    match part.kind:
        case "insert":
            return await mariadb_rows.insert(connection, place, part.columns, _stored(part, rows))
        case "update":
            values = _stored(part, rows)
            if part.only_if:
                values = [[*value, getattr(row, part.only_if)] for value, row in zip(values, rows, strict=True)]
            return await mariadb_rows.update(connection, place, part.columns, values, compare=bool(part.only_if))
        case "delete":
            return await mariadb_rows.delete(connection, place, [str(key) for key in rows])
    assert_never(part.kind)


def _stored(part: _Part, rows: Sequence[Any]) -> list[list[Any]]:
    """The values of rows as the ORM stores them: it checks lengths, which SQLite does not."""
    named = part.model._meta.fields_map  # noqa: SLF001 - Tortoise tells it nowhere else
    return [[named[name].to_db_value(getattr(row, name), part.model) for name in part.columns] for row in rows]


async def _write_one_by_one(connection: BaseDBAsyncClient, part: _Part, rows: Sequence[Any]) -> int:
    """Write a statement a row, and give how many rows there were."""
    statement = _write(part)
    if part.kind == "delete":
        # One statement, since outside of a transaction many would have to be one, and must not be cancelled.
        return (await connection.execute_query(statement, [json.dumps([str(key) for key in rows])]))[0]
    values = _stored(part, rows)
    if not part.only_if:
        await connection.execute_many(statement, values)
        return len(rows)
    compared = [[*value, getattr(row, part.only_if)] for value, row in zip(values, rows, strict=True)]
    return sum([(await connection.execute_query(statement, value))[0] for value in compared])


def key_of(model: type[Model]) -> str:
    """The column that is the primary key."""
    return str(model._meta.db_pk_column)  # noqa: SLF001 - as above


def table_of(model: type[Model]) -> str:
    """The quoted name of a table."""
    return f'"{model._meta.db_table}"'  # noqa: SLF001 - as above


def _place(model: type[Model]) -> tuple[str, str]:
    """The names of a table and of its key."""
    return str(model._meta.db_table), key_of(model)  # noqa: SLF001 - as above


def columns_of(model: type[Model]) -> tuple[str, ...]:
    """All columns, in their order."""
    return tuple(model._meta.fields_db_projection)  # noqa: SLF001 - as above


@cache
def _moments(model: type[Model]) -> tuple[str, ...]:
    """The columns that are points in time."""
    named = model._meta.fields_map  # noqa: SLF001 - as above
    return tuple(name for name in columns_of(model) if isinstance(named[name], fields.DatetimeField))


@cache
def _nothing(model: type[Model]) -> dict[str, Any]:
    """A value for every column that is not said: the field's default."""
    named = model._meta.fields_map  # noqa: SLF001 - as above
    return {name: named[name].default for name in columns_of(model)}


@cache
def _insertable(model: type[Model]) -> tuple[str, ...]:
    """All columns but a number that the database gives out."""
    generated = model._meta.generated_db_fields  # noqa: SLF001 - as above
    return tuple(name for name in columns_of(model) if name not in generated)


def listed(columns: Sequence[str]) -> str:
    """Quoted names, as a statement lists them."""
    return ", ".join(f'"{name}"' for name in columns)


def array_of(model: type[Model], number: int, column: str) -> str:
    """PostgreSQL's parameter of that number, which holds values of a column."""
    field = model._meta.fields_map[column]  # noqa: SLF001 - as above
    return f"${number}::{_POSTGRES_TYPES[type(field)]}[]"


@cache
def _postgres_select(model: type[Model], lock: bool) -> str:
    key = key_of(model)
    return (
        f"SELECT {listed(columns_of(model))} FROM {table_of(model)} "
        f'WHERE "{key}" = ANY({array_of(model, 1, key)}) '
        f'ORDER BY "{key}"{" FOR UPDATE" if lock else ""}'
    )


@cache
def _select(model: type[Model]) -> str:
    key = key_of(model)
    return (
        f"SELECT {listed(columns_of(model))} FROM {table_of(model)} "
        f'WHERE "{key}" IN (SELECT value FROM json_each(?)) ORDER BY "{key}"'
    )


@cache
def _postgres_write(parts: tuple[_Part, ...]) -> str:
    """One statement for all parts. After their arrays it takes, for each update, how many rows it must find.

    If it finds fewer, it divides by zero: an error is the only way for a statement to undo what it has written.
    """
    written: list[str] = []
    updates: list[str] = []
    number = 1
    for part in parts:
        columns = (*part.columns, part.columns[0]) if part.only_if else part.columns
        arrays = ", ".join(array_of(part.model, place, name) for place, name in enumerate(columns, number))
        number += len(columns)
        name = f"w{len(written)}"
        returning = ""
        if part.kind == "update":
            returning = " RETURNING 1"
            updates.append(name)
        written.append(f"{name} AS ({_postgres_part(part, arrays)}{returning})")
    found = " AND ".join(
        f"(SELECT count(*) FROM {name}) = ${place}::bigint" for place, name in enumerate(updates, number)
    )
    outcome = f"1 / CASE WHEN {found} THEN 1 ELSE 0 END" if updates else "1"
    return f"WITH {', '.join(written)} SELECT {outcome}"


def _postgres_part(part: _Part, arrays: str) -> str:
    table, key = table_of(part.model), part.columns[-1]
    match part.kind:
        case "insert":
            return f"INSERT INTO {table} ({listed(part.columns)}) SELECT * FROM unnest({arrays})"
        case "delete":
            return f'DELETE FROM {table} WHERE "{key}" = ANY({arrays})'
        case "update":
            names = listed(part.columns) + (', "was"' if part.only_if else "")
            unchanged = f' AND old."{part.columns[0]}" IS NOT DISTINCT FROM new."was"' if part.only_if else ""
            written = ", ".join(f'"{name}" = new."{name}"' for name in part.columns[:-1])
            return (
                f"UPDATE {table} AS old SET {written} "
                f'FROM unnest({arrays}) AS new({names}) WHERE old."{key}" = new."{key}"{unchanged}'
            )
    assert_never(part.kind)


@cache
def _write(part: _Part) -> str:
    table, key = table_of(part.model), part.columns[-1]
    match part.kind:
        case "insert":
            return f"INSERT INTO {table} ({listed(part.columns)}) VALUES ({', '.join('?' * len(part.columns))})"
        case "delete":
            return f'DELETE FROM {table} WHERE "{key}" IN (SELECT value FROM json_each(?))'
        case "update":
            unchanged = f' AND "{part.columns[0]}" IS ?' if part.only_if else ""
            written = ", ".join(f'"{name}" = ?' for name in part.columns[:-1])
            return f'UPDATE {table} SET {written} WHERE "{key}" = ?{unchanged}'
    assert_never(part.kind)
