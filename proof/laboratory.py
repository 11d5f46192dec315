"""One service under glass: its real handlers over a real database in memory, as a function of its tables.

`react` puts a database into a given content, lets the production code handle one message in one transaction, and
tells the content after, the outcome and the emitted events. The same question always has the same answer, so
answers are remembered: a search asks millions of times and pays for a few hundred.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from tortoise import Model
from tortoise.context import TortoiseContext

import notify_svc.dead_letter
import notify_svc.models
import notify_svc.step
import payment_svc.dead_letter
import payment_svc.domain
import payment_svc.models
import payment_svc.step
import point_svc.dead_letter
import point_svc.models
import point_svc.step
import queue_svc.dead_letter
import queue_svc.models
import queue_svc.step
import reservation_svc.dead_letter
import reservation_svc.models
import reservation_svc.step
from common import db, messages
from common.barrier import CommandRecord, SagaStep
from common.messages import Message
from common.outbox import Outbox
from common.recovery import DeadLetter, Done, Outcome
from common.unit_of_work import Batch

Row = tuple[Any, ...]
#: The content of a service's tables: for each table, its rows in order.
Content = tuple[tuple[Row, ...], ...]

#: Two moments are enough: before the payments' deadline, and after it.
IN_TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEADLINE = IN_TIME + timedelta(minutes=10)
TOO_LATE = DEADLINE + timedelta(seconds=1)

_RULES = payment_svc.domain.Rules(limit=1000, deadline=DEADLINE - IN_TIME)
_HANDLERS: Mapping[
    str, tuple[Callable[..., Awaitable[list[Outcome]]], Callable[..., Awaitable[list[Outcome]]]]
] = {
    "payment": (partial(payment_svc.step.handle, rules=_RULES), payment_svc.dead_letter.handle),
    "reservation": (
        partial(reservation_svc.step.handle, hold_for=timedelta(hours=1)),
        reservation_svc.dead_letter.handle,
    ),
    "point": (point_svc.step.handle, point_svc.dead_letter.handle),
    "queue": (queue_svc.step.handle, queue_svc.dead_letter.handle),
    "notify": (notify_svc.step.handle, notify_svc.dead_letter.handle),
}
_TABLES: Mapping[str, tuple[type[Model], ...]] = {
    "payment": (SagaStep, CommandRecord, payment_svc.models.Payment),
    "reservation": (SagaStep, CommandRecord, reservation_svc.models.Seat, reservation_svc.models.Reservation),
    "point": (SagaStep, CommandRecord, point_svc.models.Wallet, point_svc.models.LedgerEntry),
    "queue": (SagaStep, CommandRecord, queue_svc.models.Token),
    "notify": (SagaStep, CommandRecord, notify_svc.models.Notice),
}


@dataclass(frozen=True, slots=True)
class Letter:
    """A message on its way: to a service's handler, or, with a reason, to its dead-letter handler."""

    type: str
    body: str
    reason: str = ""

    @property
    def key(self) -> str:
        """The saga it belongs to, or the command's own id."""
        return messages.decode_stored(self.type, self.body).key

    def __str__(self) -> str:
        return f"the dead {self.type} of {self.key}" if self.reason else f"{self.type} of {self.key}"


@dataclass(frozen=True, slots=True)
class Reaction:
    """What a service did about one letter."""

    content: Content
    outcome: Outcome
    emitted: tuple[Letter, ...]


class Laboratory:
    """The five services, each with a database of its own in memory."""

    def __init__(self) -> None:
        self._contexts: dict[str, TortoiseContext] = {}
        self._remembered: dict[tuple[str, Content, Letter, datetime], Reaction] = {}

    @property
    def experiments(self) -> int:
        """How many different questions the production code has answered."""
        return len(self._remembered)

    async def empty(self, service: str) -> Content:
        """The content of a new database."""
        with self._contexts[service]:
            await self._fill(service, ())
            return await self._read(service)

    async def react(self, service: str, content: Content, letter: Letter, now: datetime) -> Reaction:
        """Let a service with this content handle one letter."""
        question = (service, content, letter, now)
        if question not in self._remembered:
            self._remembered[question] = await self._experiment(service, content, letter, now)
        return self._remembered[question]

    async def _experiment(self, service: str, content: Content, letter: Letter, now: datetime) -> Reaction:
        handle, bury = _HANDLERS[service]
        message = Message(letter.type, messages.decode_stored(letter.type, letter.body))
        with self._contexts[service]:
            await self._fill(service, content)
            outbox = Outbox(now)
            async with db.transaction():
                if letter.reason:
                    dead = DeadLetter(message, letter.reason, "searched", 1)
                    (outcome,) = await bury(Batch([dead], now, outbox))
                else:
                    (outcome,) = await handle(Batch([message], now, outbox))
            after = await self._read(service)
        emitted = tuple(Letter(row.type, row.body) for row in outbox.rows)
        if not isinstance(outcome, Done) and after != content:
            raise AssertionError(f"{service} changed its tables and did not say done: {outcome}")
        return Reaction(after, outcome, emitted)

    async def _fill(self, service: str, content: Content) -> None:
        for table in _TABLES[service]:
            await table.all().delete()
        for table, rows in zip(_TABLES[service], content, strict=False):
            names = [name for name in _columns(table) if name != "id"]
            if rows:
                await table.bulk_create([table(**dict(zip(names, row, strict=True))) for row in rows])

    async def _read(self, service: str) -> Content:
        return tuple([await self._rows(table) for table in _TABLES[service]])

    async def _rows(self, table: type[Model]) -> tuple[Row, ...]:
        # A number that the database gives out says nothing about the saga, and would make equal contents differ.
        names = [name for name in _columns(table) if name != "id"]
        found = await table.all().values_list(*names)
        return tuple(sorted((tuple(row) for row in found), key=repr))


def _columns(table: type[Model]) -> list[str]:
    return list(table._meta.fields_map)  # noqa: SLF001 - Tortoise tells it nowhere else


def read(service: str, content: Content) -> dict[str, list[dict[str, Any]]]:
    """The rows of a content as dictionaries, by the names of their tables."""
    told = {}
    for table, rows in zip(_TABLES[service], content, strict=True):
        names = [name for name in _columns(table) if name != "id"]
        told[str(table._meta.db_table)] = [dict(zip(names, row, strict=True)) for row in rows]  # noqa: SLF001
    return told


@contextlib.asynccontextmanager
async def open_laboratory() -> AsyncIterator[Laboratory]:
    """Open the five databases; they are gone afterwards."""
    laboratory = Laboratory()
    async with contextlib.AsyncExitStack() as stack:
        for service in _TABLES:
            context = TortoiseContext()
            stack.push_async_callback(context.close_connections)
            with context:
                await context.init(
                    config=db.configuration("sqlite://:memory:", db.tables(service), f"{service}_svc.migrations")
                )
                await context.generate_schemas()
            laboratory._contexts[service] = context  # noqa: SLF001 - filled while it is opened
        yield laboratory
