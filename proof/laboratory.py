"""The five services under glass: their real handlers over a database in memory, as a function of what they read.

`react` puts a database into a given content, lets the production code handle one message in one transaction, and
tells the content after, the outcome and the emitted events. `transact` does the same for a batch whose first
statements were told something else, earlier. The same question always has the same answer, so answers are
remembered: a search asks millions of times and pays for a few thousand.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
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
from common import db, messages, saga
from common.barrier import CommandRecord, SagaStep
from common.janitor import offer_again
from common.messages import Message
from common.outbox import Outbox
from common.recovery import DONE, DeadLetter, Done, Outcome
from common.unit_of_work import Batch
from notify_svc.handover import Handover
from payment_svc.settlement import Settlement, settle
from proof.glass import Content, Glass, Key, Read, Row, open_glass, rows_by_table, using
from proof.quiet import quiet

__all__ = ["Content", "Row"]

#: Two moments are enough: before the payments' deadline, and after it.
IN_TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
DEADLINE = IN_TIME + timedelta(minutes=10)
TOO_LATE = DEADLINE + timedelta(seconds=1)

_RULES = payment_svc.domain.Rules(limit=1000, deadline=DEADLINE - IN_TIME, repeatable=timedelta(days=27))
_SETTLEMENT = Settlement()
_HANDLERS: Mapping[
    str, tuple[Callable[..., Awaitable[list[Outcome]]], Callable[..., Awaitable[list[Outcome]]]]
] = {
    "payment": (
        partial(payment_svc.step.handle, rules=_RULES, settlement=_SETTLEMENT),
        payment_svc.dead_letter.handle,
    ),
    "reservation": (
        partial(reservation_svc.step.handle, hold_for=timedelta(hours=1)),
        reservation_svc.dead_letter.handle,
    ),
    "point": (point_svc.step.handle, point_svc.dead_letter.handle),
    "queue": (queue_svc.step.handle, queue_svc.dead_letter.handle),
    "notify": (partial(notify_svc.step.handle, handover=Handover()), notify_svc.dead_letter.handle),
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a transaction ended that committed: what it read and locked, what it changed, and what it said."""

    reads: tuple[Read, ...]
    content: Content
    changed: frozenset[Key]
    wrote: bool
    outcomes: tuple[Outcome, ...]
    emitted: tuple[Letter, ...]
    completed: tuple[str, ...] = ()
    """The sagas that payment is to settle, now that this is committed."""


@dataclass(frozen=True, slots=True)
class Lost:
    """How a transaction ended that lost a race: its messages are done again from the start."""

    reads: tuple[Read, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Task:
    """What a transaction is to do: a batch of letters, all alive or all dead; when it began, and how careful."""

    service: str
    letters: tuple[Letter, ...]
    now: datetime
    careful: bool = True


class Laboratory:
    """The five services, each with a database of its own in memory."""

    def __init__(self) -> None:
        self._opened: dict[str, tuple[TortoiseContext, Glass]] = {}
        self._remembered: dict[tuple[Task, tuple[Read, ...], Content], Ending | Lost] = {}

    @property
    def experiments(self) -> int:
        """How many different questions the production code has answered."""
        return len(self._remembered)

    async def empty(self, service: str) -> Content:
        """The content of a new database."""
        _, glass = self._opened[service]
        glass.begin((), ())
        return glass.content()

    async def react(self, service: str, content: Content, letter: Letter, now: datetime) -> Reaction:
        """Let a service with this content handle one letter."""
        ending = await self.transact(Task(service, (letter,), now), (), content)
        if isinstance(ending, Lost):
            raise RuntimeError(f"{service} lost a race against nobody: {ending.why}")  # noqa: TRY004 - no type is wrong
        return Reaction(ending.content, ending.outcomes[0], ending.emitted)

    async def transact(self, task: Task, told: tuple[Read, ...], content: Content) -> Ending | Lost:
        """Let a service do a batch: its first statements were told `told`, all that follow meet this content.

        Raises what the production code raises, unless that means a lost race.
        """
        question = (task, told, content)
        if question not in self._remembered:
            self._remembered[question] = await self._experiment(task, told, content)
        return self._remembered[question]

    async def _experiment(self, task: Task, told: tuple[Read, ...], content: Content) -> Ending | Lost:
        context, glass = self._opened[task.service]
        outbox = Outbox(task.now)
        glass.begin(content, told)
        with using(context, glass):
            try:
                outcomes = await _handle(task, outbox)
                glass.now_writes()
                await outbox.writes.flush()
            except Exception as error:
                if db.classify(error) is not db.Fault.RACE:
                    raise
                return Lost(tuple(glass.reads), f"{type(error).__name__}: {error}")
        after = glass.content()
        if not any(isinstance(outcome, Done) for outcome in outcomes) and after != content:
            raise AssertionError(f"{task.service} changed its tables and did not say done: {outcomes}")
        changed = glass.changed(content, after)
        completed = _completed(outbox)
        return Ending(
            tuple(glass.reads), after, changed, glass.wrote, tuple(outcomes), _emitted(outbox), completed
        )

    async def settle(self, content: Content, sagas: Collection[str]) -> Reaction:
        """Let payment settle completed sagas."""
        context, glass = self._opened[saga.FIRST.service]
        outbox = Outbox(IN_TIME)
        glass.begin(content, ())
        with using(context, glass):
            await settle(sorted(sagas), IN_TIME, outbox)
            glass.now_writes()
            await outbox.writes.flush()
        return Reaction(glass.content(), DONE, _emitted(outbox))

    async def offer_again(self, service: str, content: Content) -> tuple[Letter, ...]:
        """What the janitor of a service says again about the sagas that are open there."""
        context, glass = self._opened[service]
        outbox = Outbox(TOO_LATE)
        glass.begin(content, ())
        glass.now_writes()
        with using(context, glass):
            await offer_again(TOO_LATE, outbox, patience=timedelta(0))
        return _emitted(outbox)


def _emitted(outbox: Outbox) -> tuple[Letter, ...]:
    """What was said; what was put before a person reaches no service."""
    return tuple(Letter(event.type, event.body) for event in outbox.events if event.parked_because is None)


def _completed(outbox: Outbox) -> tuple[str, ...]:
    """What payment is to settle once the transaction is committed, which it is now."""
    outbox.committed()
    completed = tuple(_SETTLEMENT.waiting)
    _SETTLEMENT.forget(completed)
    return completed


async def _handle(task: Task, outbox: Outbox) -> list[Outcome]:
    handle, bury = _HANDLERS[task.service]
    messages_ = [Message(letter.type, messages.decode_stored(letter.type, letter.body)) for letter in task.letters]
    if not task.letters[0].reason:
        return await handle(Batch(messages_, task.now, outbox, task.careful))
    dead = [
        DeadLetter(message, letter.reason, "searched", 1)
        for message, letter in zip(messages_, task.letters, strict=True)
    ]
    return await bury(Batch(dead, task.now, outbox))


def read(service: str, content: Content) -> dict[str, list[dict[str, Any]]]:
    """The rows of a content as dictionaries, by the names of their tables."""
    return dict(rows_by_table(_TABLES[service], content))


@contextlib.asynccontextmanager
async def open_laboratory() -> AsyncIterator[Laboratory]:
    """Open the five databases; they are gone afterwards."""
    laboratory = Laboratory()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(quiet())
        for service, tables in _TABLES.items():
            context, glass = await open_glass(service, tables)
            stack.push_async_callback(glass.close)
            laboratory._opened[service] = (context, glass)  # noqa: SLF001 - filled while it is opened
        yield laboratory
