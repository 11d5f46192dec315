"""Sabotage of the machinery: one guard at a time is taken out of the production code, and must be missed.

`proof.sabotage` does the same to decisions, for the explorer. Here it is about order and time: what is committed,
published, confirmed and acked before what.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar
from unittest import mock

from tortoise import connections

from common import bus, db, janitor, outbox, recovery
from common.barrier import CommandRecord, SagaStep
from common.bus import Copy, Inbox, Session
from common.channel import Delivery
from common.consumer import Consumer
from common.history import Observers
from common.life import Life
from common.outbox import Confirmation, Confirmed, Event, Outbox, OutboxRow, Publisher, Relay, Unroutable
from common.recovery import Done, Outcome
from common.rows import Writes
from common.unit_of_work import UnitOfWork
from notify_svc import sender
from notify_svc.models import Notice
from payment_svc.settlement import Settlement
from proof import sabotage

T = TypeVar("T")
Sabotage = AbstractContextManager[object]


def _acks_before_the_commit() -> Sabotage:
    """A consumer that acks what it takes, as with `no_ack`, and then works."""
    work = Consumer._work  # noqa: SLF001 - sabotage looks inside, here and below

    async def hasty(self: Consumer[Any], inbox: Inbox, deliveries: list[Delivery]) -> None:
        await inbox.ack(deliveries, all_before=True)
        # A turn of the loop: time enough to die in.
        await asyncio.sleep(0)
        with mock.patch.object(inbox, "ack", mock.AsyncMock()):
            await work(self, inbox, deliveries)

    return mock.patch.object(Consumer, "_work", hasty)


async def _commit_and_begin_anew() -> None:
    connection: Any = connections.get("default")
    await connection.commit()
    connection._finalized = False  # noqa: SLF001 - as above
    await connection.begin()


def _barrier_in_its_own_transaction() -> Sabotage:
    """An inbox as two published implementations have it: first remembered, then done."""
    flush = Writes.flush

    async def in_two(self: Writes) -> None:
        barrier, rest = Writes(), Writes()
        for part, rows in self._parts.items():
            of_barrier = part.model in {SagaStep, CommandRecord}
            (barrier if of_barrier else rest)._parts[part] = rows  # noqa: SLF001 - as above
        self._parts = {}
        if any(barrier._parts.values()):  # noqa: SLF001 - as above
            await flush(barrier)
            await _commit_and_begin_anew()
        await flush(rest)

    return mock.patch.object(Writes, "flush", in_two)


def _outbox_in_its_own_transaction() -> Sabotage:
    """Events that are stored when the change is already committed."""
    run = UnitOfWork.run

    async def only_rows(self: Outbox) -> None:
        await self.writes.flush()

    async def afterwards(self: UnitOfWork, unit: Callable[[datetime, Outbox], Awaitable[T]]) -> T:
        last: list[Outbox] = []

        async def keep(now: datetime, staged: Outbox) -> T:
            last.append(staged)
            return await unit(now, staged)

        result = await run(self, keep)
        writes = Writes()
        writes.insert(OutboxRow, last[-1].events)
        async with db.transaction():
            await writes.flush()
        return result

    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(Outbox, "save", only_rows))
    stack.enter_context(mock.patch.object(UnitOfWork, "run", afterwards))
    return stack


def _no_outbox() -> Sabotage:
    """Events that are kept in memory only."""

    async def only_rows(self: Outbox) -> None:
        await self.writes.flush()

    return mock.patch.object(Outbox, "save", only_rows)


def _says_before_the_commit() -> Sabotage:
    """Events that are handed to the relay before their change is committed."""
    run = UnitOfWork.run

    async def hasty(self: UnitOfWork, unit: Callable[[datetime, Outbox], Awaitable[T]]) -> T:
        async def says(now: datetime, staged: Outbox) -> T:
            result = await unit(now, staged)
            self._relay.put(staged.events)
            return result

        return await run(self, says)

    return mock.patch.object(UnitOfWork, "run", hasty)


def _forgets_before_the_confirm() -> Sabotage:
    """A relay that counts as confirmed what it has not even published."""
    put = Relay.put

    def hasty(self: Relay, events: Iterable[Event]) -> None:
        staged = list(events)
        put(self, staged)
        self._confirmed.update((event.id, None) for event in staged)

    return mock.patch.object(Relay, "put", hasty)


class _HearsWhatItLikes:
    """Stands between the relay and its session, and takes one word of the broker for another."""

    def __init__(self, publisher: Publisher, misheard: type) -> None:
        self._publisher = publisher
        self._misheard = misheard

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Publish, and hear what it likes."""
        words = await self._publisher.publish_events(events)
        return [Confirmed() if isinstance(word, self._misheard) else word for word in words]


def _takes(misheard: type) -> Callable[[], Sabotage]:
    """A relay that takes this word of the broker for a confirm."""

    def act() -> Sabotage:
        publish = Relay._publish  # noqa: SLF001 - as above

        async def lied_to(self: Relay, publisher: Publisher, window: list[Event]) -> None:
            await publish(self, _HearsWhatItLikes(publisher, misheard), window)

        return mock.patch.object(Relay, "_publish", lied_to)

    return act


def _copies_unconfirmed() -> Sabotage:
    """An original that is acked while its copy is still on the way."""
    publish = Session.publish_copies
    under_way: set[asyncio.Task[None]] = set()

    async def hopes(self: Session, copies: Sequence[Copy]) -> None:
        async def later() -> None:
            with contextlib.suppress(bus.SessionEnded):
                await publish(self, copies)

        task = asyncio.get_running_loop().create_task(later())
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    return mock.patch.object(Session, "publish_copies", hopes)


def _no_copies() -> Sabotage:
    async def nothing(_: Session, __: Sequence[Copy]) -> None:
        """All of the batch is acked, though some of it failed."""

    return mock.patch.object(Session, "publish_copies", nothing)


def _no_sweeper() -> Sabotage:
    async def nothing(_: Relay) -> None:
        """Nobody looks for what a crash left."""

    return mock.patch.object(Relay, "sweep", nothing)


def _sweeps_into_the_void() -> Sabotage:
    """A sweeper that puts rows off, and forgets to hand them on."""
    sweep = Relay.sweep

    async def careless(self: Relay) -> None:
        with mock.patch.object(self, "put", return_value=None):
            await sweep(self)

    return mock.patch.object(Relay, "sweep", careless)


def _retries_without_type() -> Sabotage:
    headers = recovery.copy_headers

    def forgetful(*arguments: Any, **named: Any) -> dict[str, str | int]:  # noqa: ANN401 - as the original has it
        kept = headers(*arguments, **named)
        return {name: value for name, value in kept.items() if name != recovery.TYPE}

    return mock.patch.object(recovery, "copy_headers", forgetful)


def _errors_count_as_done() -> Sabotage:
    def careless(*_: object, **__: object) -> Outcome:
        return Done()

    return mock.patch.object(recovery, "disposition", careless)


def _keeps_what_failed() -> Sabotage:
    """A batch that fails is committed as far as it got."""
    unit = db.unit

    @contextlib.asynccontextmanager
    async def lenient() -> Any:  # noqa: ANN401 - an async generator
        failed: list[Exception] = []
        async with unit() as connection:
            try:
                yield connection
            except Exception as error:  # noqa: BLE001 - that is the sabotage
                failed.append(error)
        if failed:
            raise failed[0]

    return mock.patch.object(db, "unit", lenient)


def _sent_before_sending() -> Sabotage:
    """Notices that count as sent before they are."""

    async def hasty(
        life: Life, unit_of_work: UnitOfWork, channel: sender.Channel, leased: list[Notice], _: Observers
    ) -> None:
        sent: dict[str, bool | None] = {notice.saga_id: True for notice in leased}
        await sender._settled(unit_of_work, leased, sent)  # noqa: SLF001 - as above
        await sender._send_all(life, leased, channel)  # noqa: SLF001 - as above

    return mock.patch.object(sender, "_deliver", hasty)


def _not_mandatory() -> Sabotage:
    return mock.patch.object(bus, "is_mandatory", return_value=False)


def _no_janitor() -> Sabotage:
    return mock.patch.object(janitor, "offer_again", mock.AsyncMock(return_value=0))


def _settles_nothing() -> Sabotage:
    return mock.patch.object(Settlement, "put")


#: What is taken away where queues lose messages, and how.
REPAIR: Mapping[str, Callable[[], Sabotage]] = {
    "no janitor": _no_janitor,
    "nothing is settled": _settles_nothing,
}

#: What is taken away, and how.
ACTS: Mapping[str, Callable[[], Sabotage]] = {
    "acks before the commit": _acks_before_the_commit,
    "the barrier in a transaction of its own": _barrier_in_its_own_transaction,
    "the outbox in a transaction of its own": _outbox_in_its_own_transaction,
    "no outbox: events are only in memory": _no_outbox,
    "events are said before the commit": _says_before_the_commit,
    "an outbox row is forgotten before its confirm": _forgets_before_the_confirm,
    "the relay takes unroutable for published": _takes(Unroutable),
    "the relay takes refused for published": _takes(outbox.Unconfirmed),
    "events are not mandatory": _not_mandatory,
    "an original is acked before its copy is confirmed": _copies_unconfirmed,
    "the whole batch is acked though one message failed": _no_copies,
    "no sweeper": _no_sweeper,
    "the sweeper hands nothing on": _sweeps_into_the_void,
    "a retry loses its type": _retries_without_type,
    "an error counts as done": _errors_count_as_done,
    "a failed batch is committed as far as it got": _keeps_what_failed,
    "a notice counts as sent before it is": _sent_before_sending,
    "the dead-letter handler ignores the row": sabotage.ACTS["the dead-letter handler ignores the row"],
    "no barrier: a repeated message is done again": sabotage.ACTS["no barrier: a repeated message is done again"],
    "failures are not remembered": sabotage.ACTS["failures are not remembered"],
}
