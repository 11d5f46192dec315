"""Many rows made out of few: what real services wrote for one order, copied for thousands, in the database.

A row belongs to an order if one of its texts holds the order's name; the copy has another name there and is
equal in everything else. So it is always the shape that the services leave, whatever their tables look like.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.orders import DIGITS

_TEXTS = ("character varying", "text", "varchar")


@dataclass(frozen=True, slots=True)
class Numbers:
    """The names of the orders that copies are made for: a mark, and each one's number."""

    mark: str
    numbers: Sequence[int]


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: Sequence[tuple[str, str]]

    def texts(self) -> list[str]:
        return [name for name, kind in self.columns if kind.lower().startswith(_TEXTS)]


def copies(table: _Table, template: str, numbers: Numbers, *, series: str, padded: str) -> str:
    """The statement that copies a template's rows of one table; `series` gives n, `padded` its name's digits."""
    new = f"'{numbers.mark}' || {padded}"
    values = [
        f"replace(\"{name}\", '{template}', {new})" if name in table.texts() else f'"{name}"'
        for name, _ in table.columns
    ]
    names = ", ".join(f'"{name}"' for name, _ in table.columns)
    ours = " OR ".join(f"\"{name}\" LIKE '%{template}%'" for name in table.texts())
    return (
        f'WITH template AS MATERIALIZED (SELECT {names} FROM "{table.name}" WHERE {ours}) '  # noqa: S608 - our own
        f'INSERT INTO "{table.name}" ({names}) SELECT {", ".join(values)} FROM template, {series}'
    )


def on_postgres(query: Callable[[str], Sequence[tuple[Any, ...]]], template: str, numbers: Numbers) -> None:
    """Copy in one database of PostgreSQL, and tell its planner."""
    found = query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND is_identity = 'NO' AND column_default IS NULL"
        " ORDER BY table_name, ordinal_position"
    )
    for table in _tables(found):
        if isinstance(numbers.numbers, range):
            series = f"generate_series({numbers.numbers[0]}, {numbers.numbers[-1]}) AS n"
        else:
            series = f"unnest(ARRAY{list(numbers.numbers)}) AS n"
        padded = f"lpad(n::text, {DIGITS}, '0')"
        query(copies(table, template, numbers, series=series, padded=padded))
    query("VACUUM (ANALYZE)")


def on_sqlite(path: str, template: str, numbers: Numbers) -> None:
    """Copy in one file of SQLite, beside a service that has nothing to do."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        found = connection.execute(
            "SELECT t.name, c.name, c.type FROM sqlite_master t, pragma_table_info(t.name) c"
            # An integer key numbers itself.
            " WHERE t.type = 'table' AND NOT (c.pk = 1 AND c.type LIKE '%INT%') ORDER BY t.name, c.cid"
        ).fetchall()
        for table in _tables(found):
            series = f"(SELECT value AS n FROM json_each('{list(numbers.numbers)}'))"  # noqa: S608 - our own numbers
            padded = f"printf('%0{DIGITS}d', n)"
            connection.execute(copies(table, template, numbers, series=series, padded=padded))


def _tables(found: Sequence[tuple[Any, ...]]) -> Iterator[_Table]:
    tables: dict[str, list[tuple[str, str]]] = {}
    for table, column, kind in found:
        tables.setdefault(table, []).append((column, kind))
    for name, columns in tables.items():
        table = _Table(name, columns)
        # What was not published when the template was made must not be published a thousand times.
        if table.texts() and name != "outbox" and not name.startswith("sqlite_"):
            yield table
