"""Reads by the batch: what a unit of work wants to know, of however many tables, is asked with one statement.

The way to the server and back is most of what a small batch costs, whatever it asks. PostgreSQL answers several
questions at once: each row comes within a row, beside the number of its question. And all the answers show the
database at one moment. For a vendor that lives in this process, or that knows no rows within rows, it is a
statement for each table, as `common.rows` reads.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from tortoise import Model, connections

from common import rows

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows are wanted: those of `model` with the keys given, or those that rows of `through` name.

    `column` of `through` is what names them; the keys given are then those of `through`.
    """

    model: type[Model]
    through: type[Model] | None = None
    column: str = ""


class Reads:
    """What one unit of work reads: asked for in any order, then fetched at once. Nothing is locked by it."""

    def __init__(self) -> None:
        self._asked: list[tuple[Question, list[str], list[Any]]] = []

    def find(self, model: type[M], keys: Collection[str]) -> list[M]:
        """The rows whose primary key is among `keys`; the list is empty until they are fetched."""
        return self._ask(Question(model), keys)

    def find_through(self, through: type[Model], column: str, model: type[M], keys: Collection[str]) -> list[M]:
        """The rows that are named by a column of those rows of `through` whose primary key is among `keys`."""
        return self._ask(Question(model, through, column), keys)

    def _ask(self, question: Question, keys: Collection[str]) -> list[Any]:
        found: list[Any] = []
        if keys:
            self._asked.append((question, sorted(set(keys)), found))
        return found

    async def fetch(self) -> None:
        """Fill the lists."""
        asked, self._asked = self._asked, []
        connection = connections.get("default")
        if len(asked) > 1 and connection.capabilities.dialect == "postgres":
            statement = _postgres_select(tuple(question for question, _, _ in asked))
            for row in await connection.execute_query_dict(statement, [keys for _, keys, _ in asked]):
                question, _, found = asked[row["question"]]
                values = dict(zip(rows.columns_of(question.model), row["answer"], strict=True))
                found.append(rows.stored(question.model, values))
            return
        for question, keys, found in asked:
            found.extend(await rows.find(question.model, await _named(question, keys)))


async def _named(question: Question, keys: Collection[str]) -> Collection[str]:
    """The keys of the rows that are wanted."""
    if question.through is None:
        return keys
    naming = await rows.find(question.through, keys)
    return [name for row in naming if (name := getattr(row, question.column)) is not None]


@cache
def _postgres_select(questions: tuple[Question, ...]) -> str:
    """One statement for all questions, with the keys of each as an array."""
    return " UNION ALL ".join(_part(question, number) for number, question in enumerate(questions))


def _part(question: Question, number: int) -> str:
    model, asked = question.model, question.through or question.model
    wanted = f'"{rows.key_of(asked)}" = ANY({rows.array_of(asked, number + 1, rows.key_of(asked))})'
    if question.through is not None:
        naming = f'SELECT "{question.column}" FROM {rows.table_of(asked)} WHERE {wanted}'
        wanted = f'"{rows.key_of(model)}" IN ({naming})'
    answer = f"ROW({rows.listed(rows.columns_of(model))})"
    return f'SELECT {number} AS "question", {answer} AS "answer" FROM {rows.table_of(model)} WHERE {wanted}'
