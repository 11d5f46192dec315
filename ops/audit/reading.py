"""Reads the five databases side by side: one read-only snapshot of each, walked in key order, saga by saga."""

from __future__ import annotations

import bisect
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common import saga
from ops.audit import snapshots
from ops.audit.rules import Saga
from ops.audit.snapshots import Snapshot, looking_at, open_snapshot
from ops.audit.sources import SOURCES, Row, Source, answers
from ops.output import CannotLookError


class Books:
    """Snapshots of the five databases, taken as nearly at once as can be, while it is open."""

    def __init__(self, snapshots: Mapping[str, Snapshot]) -> None:
        self._snapshots = snapshots

    async def sagas(self) -> AsyncIterator[Saga]:
        """Give every saga that any of the databases knows, in the order of their ids, a page at a time."""
        streams = [_Stream(self._snapshots[source.service], source) for source in SOURCES]
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
        for source in SOURCES:
            with looking_at(source.service):
                picked.append((source, await self._snapshots[source.service].pick(source, wanted)))
        return _gather(picked)

    async def answer(self, service: str, saga_id: str) -> tuple[str, str] | None:
        """What a service says when it is asked again about a saga, its type and its body; None: it has no row."""
        row = await self.one(answers(service), saga_id)
        return (row[0], row[1]) if row else None

    async def one(self, source: Source, key: str) -> Row | None:
        """The columns of the one row of a source that has this key; None if there is none."""
        with looking_at(source.service):
            rows = await self._snapshots[source.service].pick(source, [key])
        return tuple(rows[0][1:]) if rows else None

    async def select(self, service: str, query: str) -> list[Row]:
        """Give the rows of a query that every vendor understands."""
        with looking_at(service):
            return await self._snapshots[service].select(query)


@contextlib.asynccontextmanager
async def open_books(databases: Mapping[str, str]) -> AsyncIterator[Books]:
    """Open a snapshot of each service's database; CannotLookError if one cannot be read, now or later."""
    missing = [service for service in saga.SERVICES if service not in databases]
    if missing:
        raise CannotLookError(f"no database given of {', '.join(missing)}")
    async with contextlib.AsyncExitStack() as stack:
        opened: dict[str, Snapshot] = {}
        for service in saga.SERVICES:
            with looking_at(service):
                opened[service] = await stack.enter_async_context(open_snapshot(databases[service]))
        yield Books(opened)


@dataclass(slots=True)
class _Stream:
    """A source on its way through its keys: the rows of it that were read and not yet taken."""

    snapshot: Snapshot
    source: Source
    rows: list[Row] = field(default_factory=list)
    at_end: bool = False
    _next_page: Callable[[], Any] | None = None

    async def fill(self) -> None:
        """Read on until there is more than one key, so that the first is known to be complete."""
        while not self.at_end and (not self.rows or self.rows[0][0] == self.rows[-1][0]):
            with looking_at(self.source.service):
                if self._next_page is None:
                    self._next_page = await self.snapshot.walk(self.source)
                page = [tuple(row) for row in await self._next_page()]
            self.rows += page
            self.at_end = len(page) < snapshots.PAGE

    def take(self, limit: str | None) -> list[Row]:
        """Take the rows before this key; None takes all."""
        rows = self.rows
        count = len(rows) if limit is None else bisect.bisect_left(rows, limit, key=lambda row: row[0])
        self.rows = rows[count:]
        return rows[:count]


def _gather(pieces: Iterable[tuple[Source, list[Row]]]) -> list[Saga]:
    """Put the rows of each saga together."""
    found: dict[str, Saga] = {}
    for source, rows in pieces:
        for key, *columns in rows:
            if key not in found:
                found[key] = Saga(key)
            source.add(found[key], tuple(columns))
    return [found[key] for key in sorted(found)]
