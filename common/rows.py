"""Rows by the batch: each function is one statement, however many rows, and its text is always the same.

The ORM would write out every row as placeholders: another text for each size of a batch, which the database parses
and plans anew, and costs more than running it. PostgreSQL takes whole columns as arrays instead. For SQLite, which
runs in this process, a statement for each row is cheap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from tortoise import Model, connections, fields

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


async def find(model: type[M], keys: Collection[str], *, by: str = "", lock: bool = False) -> list[M]:
    """The rows whose key is among `keys`, in the order of the key; locked in that order, if asked to.

    `by` is the column of the key, by default the primary key. Where the database has no row locks (SQLite), one
    transaction at a time is what keeps others away.
    """
    if not keys:
        return []
    connection = connections.get("default")
    wanted = sorted(set(keys))
    if connection.capabilities.dialect == "postgres":
        found = await connection.execute_query_dict(_postgres_select(model, by, lock), [wanted])
    else:
        found = await connection.execute_query_dict(_select(model, by, len(wanted)), wanted)
    return [model._init_from_db(**row) for row in found]  # noqa: SLF001 - how Tortoise itself makes what it found


async def insert(model: type[Model], rows: Sequence[Any]) -> None:
    """Insert rows, which have the model's columns as attributes. IntegrityError if one exists already."""
    if not rows:
        return
    connection = connections.get("default")
    columns = _insertable(model)
    if connection.capabilities.dialect == "postgres":
        values = [[getattr(row, name) for row in rows] for name in columns]
        await connection.execute_query(_postgres_insert(model), values)
    else:
        await connection.execute_many(_insert(model), _stored(model, rows, columns))


async def update(model: type[Model], rows: Sequence[Any], *columns: str) -> None:
    """Write these columns of rows that the transaction has locked or compared before."""
    if not rows:
        return
    connection = connections.get("default")
    if connection.capabilities.dialect == "postgres":
        values = [[getattr(row, name) for row in rows] for name in (*columns, _key(model))]
        await connection.execute_query(_postgres_update(model, columns), values)
    else:
        await connection.execute_many(_update(model, columns), _stored(model, rows, (*columns, _key(model))))


async def delete(model: type[Model], keys: Sequence[Any]) -> None:
    """Delete the rows with these primary keys, as far as they are there."""
    if not keys:
        return
    connection = connections.get("default")
    if connection.capabilities.dialect == "postgres":
        await connection.execute_query(_postgres_delete(model), [keys])
    else:
        await connection.execute_many(_delete(model), [[str(key)] for key in keys])


def _stored(model: type[Model], rows: Sequence[Any], columns: Sequence[str]) -> list[list[Any]]:
    """The values row by row, as the ORM stores them: it checks lengths, which SQLite does not."""
    named = model._meta.fields_map  # noqa: SLF001 - Tortoise tells it nowhere else
    return [[named[name].to_db_value(getattr(row, name), model) for name in columns] for row in rows]


def _key(model: type[Model]) -> str:
    return str(model._meta.db_pk_column)  # noqa: SLF001 - as above


def _table(model: type[Model]) -> str:
    return f'"{model._meta.db_table}"'  # noqa: SLF001 - as above


def _columns(model: type[Model]) -> tuple[str, ...]:
    return tuple(model._meta.fields_db_projection)  # noqa: SLF001 - as above


@cache
def _insertable(model: type[Model]) -> tuple[str, ...]:
    """All columns but a number that the database gives out."""
    generated = model._meta.generated_db_fields  # noqa: SLF001 - as above
    return tuple(name for name in _columns(model) if name not in generated)


def _list(columns: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _array(model: type[Model], number: int, column: str) -> str:
    field = model._meta.fields_map[column]  # noqa: SLF001 - as above
    return f"${number}::{_POSTGRES_TYPES[type(field)]}[]"


def _arrays(model: type[Model], columns: Sequence[str]) -> str:
    return ", ".join(_array(model, number, name) for number, name in enumerate(columns, 1))


@cache
def _postgres_select(model: type[Model], by: str, lock: bool) -> str:
    key = by or _key(model)
    return (
        f'SELECT {_list(_columns(model))} FROM {_table(model)} WHERE "{key}" = ANY({_array(model, 1, key)}) '
        f'ORDER BY "{key}"{" FOR UPDATE" if lock else ""}'
    )


def _select(model: type[Model], by: str, count: int) -> str:
    key = by or _key(model)
    places = ", ".join("?" * count)
    return f'SELECT {_list(_columns(model))} FROM {_table(model)} WHERE "{key}" IN ({places}) ORDER BY "{key}"'


@cache
def _postgres_insert(model: type[Model]) -> str:
    columns = _insertable(model)
    return f"INSERT INTO {_table(model)} ({_list(columns)}) SELECT * FROM unnest({_arrays(model, columns)})"


@cache
def _insert(model: type[Model]) -> str:
    columns = _insertable(model)
    return f"INSERT INTO {_table(model)} ({_list(columns)}) VALUES ({', '.join('?' * len(columns))})"


@cache
def _postgres_update(model: type[Model], columns: tuple[str, ...]) -> str:
    key = _key(model)
    written = ", ".join(f'"{name}" = new."{name}"' for name in columns)
    return (
        f"UPDATE {_table(model)} AS old SET {written} "
        f"FROM unnest({_arrays(model, (*columns, key))}) AS new({_list((*columns, key))}) "
        f'WHERE old."{key}" = new."{key}"'
    )


@cache
def _update(model: type[Model], columns: tuple[str, ...]) -> str:
    written = ", ".join(f'"{name}" = ?' for name in columns)
    return f'UPDATE {_table(model)} SET {written} WHERE "{_key(model)}" = ?'


@cache
def _postgres_delete(model: type[Model]) -> str:
    key = _key(model)
    return f'DELETE FROM {_table(model)} WHERE "{key}" = ANY({_array(model, 1, key)})'


@cache
def _delete(model: type[Model]) -> str:
    return f'DELETE FROM {_table(model)} WHERE "{_key(model)}" = ?'
