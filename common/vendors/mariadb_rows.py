"""Rows by the batch on MariaDB: a statement for each part, whose rows are a table of values that leads the join.

What is joined is looked up by its key, row by row in the order given, so nothing else is read or locked. Left to
itself, MariaDB would rather read a small table as a whole, and wait for rows that other replicas have locked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tortoise.backends.base.client import BaseDBAsyncClient

#: Rows in one statement, so that none is larger than a server takes (max_allowed_packet, 16 MB by default).
_AT_ONCE = 500

#: A table and its key.
Place = tuple[str, str]


async def find(
    connection: BaseDBAsyncClient, place: Place, columns: Sequence[str], keys: Sequence[str], *, lock: bool
) -> list[dict[str, Any]]:
    """The rows with these keys, in their order; locked in that order, if asked to."""
    table, key = place
    names = ", ".join(f"old.`{name}`" for name in columns)
    locking = " FOR UPDATE" if lock else ""
    found: list[dict[str, Any]] = []
    for some in _slices(keys):
        query = f"SELECT {names} FROM {_joined(table, key, ['k'], 'k', len(some))}{locking}"
        found += await connection.execute_query_dict(query, list(some))
    return found


async def insert(
    connection: BaseDBAsyncClient, place: Place, columns: Sequence[str], rows: Sequence[list[Any]]
) -> int:
    """Insert rows, and give how many."""
    names = ", ".join(f"`{name}`" for name in columns)
    values = ", ".join(["%s"] * len(columns))
    # The driver makes one statement of all rows, or several where they are large.
    await connection.execute_many(f"INSERT INTO `{place[0]}` ({names}) VALUES ({values})", list(rows))
    return len(rows)


async def update(
    connection: BaseDBAsyncClient,
    place: Place,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    compare: bool,
) -> int:
    """Write columns of rows, and give how many were found. The last column is the key.

    To `compare`, each row ends with what its first column must still hold, be it NULL, to be found.
    """
    table, key = place
    names = [f"c{number}" for number in range(len(columns) + compare)]
    new_key = names[len(columns) - 1]
    changes = ", ".join(f"old.`{column}` = new.{name}" for column, name in zip(columns[:-1], names, strict=False))
    condition = f" WHERE old.`{columns[0]}` <=> new.{names[-1]}" if compare else ""
    found = 0
    for some in _slices(rows):
        query = f"UPDATE {_joined(table, key, names, new_key, len(some))} SET {changes}{condition}"
        found += (await connection.execute_query(query, [value for row in some for value in row]))[0]
    return found


async def delete(connection: BaseDBAsyncClient, place: Place, keys: Sequence[str]) -> int:
    """Delete the rows with these keys, and give how many there were."""
    table, key = place
    found = 0
    for some in _slices(keys):
        query = f"DELETE old FROM {_joined(table, key, ['k'], 'k', len(some))}"
        found += (await connection.execute_query(query, list(some)))[0]
    return found


def _joined(table: str, key: str, names: Sequence[str], new_key: str, count: int) -> str:
    """A table of so many rows of values, and the rows of the real table that have its keys."""
    row = f"({', '.join(['%s'] * len(names))})"
    values = f"WITH given ({', '.join(names)}) AS (VALUES {', '.join([row] * count)}) SELECT * FROM given"
    return f"({values}) AS new STRAIGHT_JOIN `{table}` AS old ON old.`{key}` = new.{new_key}"


def _slices(rows: Sequence[Any]) -> list[Sequence[Any]]:
    return [rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE)]
