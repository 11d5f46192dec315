"""A service on the bench: its real handlers and its real database, fed by hand instead of by a broker."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tortoise import Model

from common import db, runner, saga
from common.barrier import CommandRecord, SagaStep
from common.consumer import Consumer, Handle, reading_dead_letters, reading_messages
from common.history import Observers
from common.life import Life
from common.messages import Message
from common.outbox import Outbox, OutboxRow, Relay
from common.recovery import DeadLetter, Outcome
from common.settings import Settings
from common.unit_of_work import Batch, UnitOfWork
from notify_svc.__main__ import NotifySettings
from notify_svc.__main__ import service as notify_service
from notify_svc.models import Notice
from payment_svc.__main__ import PaymentSettings
from payment_svc.__main__ import service as payment_service
from payment_svc.models import Payment
from point_svc.__main__ import service as point_service
from point_svc.models import LedgerEntry, Wallet
from queue_svc.__main__ import service as queue_service
from queue_svc.models import Token
from reservation_svc.__main__ import ReservationSettings
from reservation_svc.__main__ import service as reservation_service
from reservation_svc.models import Reservation, Seat
from tests.support import bodies
from tests.support.hand_fed import HandFedInbox, HandFedSession

Event = tuple[str, dict[str, Any]]

SERVICES = {
    "payment": payment_service(PaymentSettings()),
    "reservation": reservation_service(ReservationSettings()),
    "point": point_service(Settings()),
    "queue": queue_service(Settings()),
    "notify": notify_service(NotifySettings()),
}
TABLES: dict[str, tuple[type[Model], ...]] = {
    "payment": (Payment,),
    "reservation": (Seat, Reservation),
    "point": (Wallet, LedgerEntry),
    "queue": (Token,),
    "notify": (Notice,),
}


@dataclass
class Bench:
    """One service: give it batches, see what it said and what it holds."""

    service: runner.Service
    url: str
    life: Life = field(init=False)
    relay: Relay = field(init=False)
    unit_of_work: UnitOfWork = field(init=False)
    observers: Observers = field(default_factory=Observers)

    def __post_init__(self) -> None:
        self.life = Life(self.service.name)
        self.relay = Relay(10_000, self.life)
        self.unit_of_work = UnitOfWork(self.life, self.relay)

    async def do(self, *messages: Message) -> list[Outcome]:
        """Do one batch, in one transaction; as the consumer does, once more with care after a lost race."""
        try:
            return await self.unit_of_work.run(self._unit(self.service.handle, messages))
        except Exception as error:
            if db.classify(error) is not db.Fault.RACE:
                raise
        return await self.carefully(*messages)

    async def carefully(self, *messages: Message) -> list[Outcome]:
        """Do one batch as after a lost race: what others may want is locked before it is read."""
        return await self.unit_of_work.run(self._unit(self.service.handle, messages, careful=True))

    async def bury(self, *letters: DeadLetter) -> list[Outcome]:
        """Decide one batch of dead letters, in one transaction."""
        return await self.unit_of_work.run(self._unit(self.service.dead_letter, letters))

    def _unit(
        self,
        handle: Callable[[Batch[Any]], Awaitable[list[Outcome]]],
        contents: Sequence[Any],
        *,
        careful: bool = False,
    ) -> Callable[[datetime, Outbox], Awaitable[list[Outcome]]]:
        return lambda now, outbox: handle(self.batch(contents, now, outbox, careful=careful))

    def batch(
        self, contents: Sequence[Any], now: datetime, outbox: Outbox, *, careful: bool = False
    ) -> Batch[Any]:
        """What a handler is given."""
        return Batch(contents, now, outbox, careful)

    async def consume(
        self,
        inbox: HandFedInbox,
        *,
        settings: Settings | None = None,
        handle: Handle[Message] | None = None,
    ) -> HandFedSession:
        """Let the real consumer work what is in the inbox, as one batch; the session tells what it copied."""
        session = HandFedSession(self.service.name)
        settings = settings or Settings()
        if inbox.queue.endswith(".dead"):
            undertaker = Consumer(
                session, settings, self.unit_of_work, self.relay,
                reading_dead_letters(settings), self.service.dead_letter, self.observers,
            )  # fmt: skip
            await undertaker._work(inbox, inbox.take(1000))
        else:
            consumer = Consumer(
                session, settings, self.unit_of_work, self.relay,
                reading_messages(settings), handle or self.service.handle, self.observers,
            )  # fmt: skip
            await consumer._work(inbox, inbox.take(1000))
        return session

    async def events(self) -> list[Event]:
        """What was staged since the last time somebody asked, by type and key."""
        rows = await OutboxRow.all().order_by("type", "key")
        await OutboxRow.all().delete()
        return [(row.type, json.loads(row.body)) for row in rows if row.parked_because is None]

    async def said(self) -> list[str]:
        """Only the types of it."""
        return [type_ for type_, _ in await self.events()]

    async def state(self, saga_id: str = "p-1") -> str | None:
        """The saga's row."""
        row = await SagaStep.get_or_none(saga_id=saga_id)
        return row.state if row else None

    async def holds(self) -> dict[str, list[dict[str, Any]]]:
        """All that the database holds, but for the outbox: to see that nothing changed."""
        tables: tuple[type[Model], ...] = (*TABLES[self.service.name], SagaStep, CommandRecord)
        return {table._meta.db_table: await table.all().order_by(table._meta.pk_attr).values() for table in tables}


#: The URL of an empty database of a service; and a way to open the service on it.
Databases = Callable[[str], str]
Opens = Callable[[str], contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def bench(service: str, url: str) -> AsyncIterator[Bench]:
    """Open a service's database, and the service on it."""
    what = SERVICES[service]
    async with db.open_database(url, what.modules, what.migrations):
        yield Bench(what, url)


def forward(service: str, payment_id: str = "p-1", **changes: object) -> Message:
    """The message that a service's step is done on."""
    on = saga.step_of(service).on
    return bodies.message(on, bodies.forward(on, payment_id, **changes))


def failure(payment_id: str = "p-1", service: str = "queue", **changes: object) -> Message:
    """The event that ends a saga."""
    return bodies.message(saga.failed(service), bodies.failure(payment_id, service, **changes))


def settled(*payment_ids: str) -> Message:
    """The event that tells that sagas are complete."""
    return bodies.message(saga.SETTLED, bodies.settled(*payment_ids))


def dead(message: Message, reason: str = "retries_spent", attempts: int = 5) -> DeadLetter:
    """A terminal failure of a message."""
    return DeadLetter(message, reason, "it did not work", attempts)


def hold(reservation_id: str = "r-1", **changes: object) -> Message:
    """The command that holds a seat."""
    return bodies.message("reservation.hold", bodies.hold(reservation_id, **changes))


def top_up(top_up_id: str = "u-1", **changes: object) -> Message:
    """The command that fills a wallet."""
    return bodies.message("point.top_up", bodies.top_up(top_up_id, **changes))


def enter(token: str = "t-1", **changes: object) -> Message:
    """The command that lets a user in."""
    return bodies.message("queue.enter", bodies.enter(token, **changes))
