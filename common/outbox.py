"""The outbox: an event is stored in the transaction of the change it tells of, and published afterwards.

A row is forgotten only when the broker has confirmed the event, so none is lost; a crash in between publishes it
twice, which the barrier of its receiver absorbs. Fresh rows go from memory straight to the relay; the sweeper
finishes what a crash, a lost confirm or a missing route left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tortoise import fields
from tortoise.models import Model

from common import saga
from common.life import Life, patiently
from common.rows import Writes
from common.telemetry import alarm, log, next_traceparent

#: Rows published at once. Confirms may come in any order within a window.
WINDOW = 500
#: A row is the sweeper's only after this long; until then its own process has it in hand.
GRACE = timedelta(seconds=10)
_SECONDS_TO_FORGET = 0.2
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://concert-saga.example/messages").bytes


class OutboxRow(Model):
    """An event waiting for the broker's confirm; with `parked_because`, on its way to the parked queue."""

    id = fields.UUIDField(primary_key=True)
    key = fields.CharField(max_length=64)
    type = fields.CharField(max_length=64)
    body = fields.TextField()
    traceparent = fields.CharField(max_length=64)
    parked_because = fields.CharField(max_length=64, null=True)
    detail = fields.TextField(null=True)
    staged_at = fields.DatetimeField()
    due_at = fields.DatetimeField(db_index=True)

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "outbox"
        table_description = "events waiting for the confirm of the broker"


@dataclass(slots=True)
class Event:
    """A row of the outbox in the hands of this process: what is staged is never read from the table again."""

    id: uuid.UUID
    key: str
    type: str
    body: str
    traceparent: str
    staged_at: datetime
    due_at: datetime
    parked_because: str | None = None
    detail: str | None = None
    cause: str = ""
    """The type of the message that it follows from; told to those who look on, and not stored."""


_STORED = tuple(field.name for field in dataclasses.fields(Event) if field.name != "cause")


class Outbox:
    """The events that one unit of work emits, each once: a repetition says nothing new.

    They are written together with whatever else the unit writes: `writes`.
    """

    def __init__(self, now: datetime) -> None:
        self.writes = Writes()
        self._now = now
        self._then: list[Callable[[], None]] = []
        self._events: dict[tuple[str, str, str], Event] = {}

    def stage(self, type_: str, key: str, body: str, traceparent: str | None, *, cause: str = "") -> None:
        """Emit an event when the transaction commits. `key` is the saga's id, or the command's own."""
        if (type_, key, body) not in self._events:
            self._events[type_, key, body] = event = self._event(type_, key, body, traceparent)
            event.cause = cause

    def park(self, type_: str, key: str, body: str, *, reason: str, detail: str) -> None:
        """Put what could not be emitted before a person when the transaction commits."""
        event = self._event(type_, key, body, None)
        event.parked_because = reason
        event.detail = detail
        self._events[type_, key, body] = event

    def _event(self, type_: str, key: str, body: str, traceparent: str | None) -> Event:
        return Event(
            id=uuid.uuid4(),
            key=key,
            type=type_,
            body=body,
            traceparent=next_traceparent(traceparent),
            staged_at=self._now,
            due_at=self._now + GRACE,
        )

    @property
    def events(self) -> list[Event]:
        """What was staged, in order."""
        return list(self._events.values())

    def once_committed(self, then: Callable[[], None]) -> None:
        """Call `then` when the unit is committed, and never if it is not."""
        self._then.append(then)

    def committed(self) -> None:
        """The unit is committed."""
        for then in self._then:
            then()

    async def save(self) -> None:
        """Write the unit's rows and events, as the last statement of its transaction."""
        self.writes.insert(OutboxRow, self.events)
        await self.writes.flush()


def message_id(key: str, type_: str) -> str:
    """The deterministic id of a message: the same saga and type, the same id, however often it is said."""
    # What uuid.uuid5 says (RFC 9562, section 5.5), without making an object of it: one for each event.
    digest = bytearray(hashlib.sha1(_NAMESPACE + f"{key}/{type_}".encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    name = digest.hex()
    return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"


@dataclass(frozen=True, slots=True)
class Unroutable:
    """No queue is bound for an event that a service waits for."""


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The broker has taken responsibility."""


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """Nobody knows: to be published again."""

    why: str


Confirmation = Confirmed | Unroutable | Unconfirmed


class Publisher(Protocol):
    """Whatever publishes events and waits for the broker's word on each, in the same order."""

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Publish persistently; mandatory where a service waits for the event."""
        ...


class Relay:
    """Publishes committed events and forgets them when confirmed. One per process; outlives the connections.

    To forget is to delete the row. Units of work take that along with what they write, so that it costs no
    transaction of its own; where none comes by, the relay does it.
    """

    def __init__(self, limit: int, life: Life) -> None:
        self._limit = limit
        self._life = life
        self._waiting: dict[uuid.UUID, Event] = {}
        self._confirmed: dict[uuid.UUID, None] = {}
        self._left_behind = 0
        self._oldest_left: datetime | None = None
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def depth(self) -> int:
        """Rows known to be unpublished, at most this process's and what the last sweep counted."""
        return len(self._waiting) + self._left_behind

    @property
    def oldest(self) -> datetime | None:
        """When the oldest event was staged that is not published, as this process and its last sweep know."""
        waiting = next(iter(self._waiting.values()), None)
        known = [moment for moment in (self._oldest_left, waiting and waiting.staged_at) if moment]
        return min(known, default=None)

    def put(self, events: Iterable[Event]) -> None:
        """Take events that have just been committed."""
        self._waiting.update((event.id, event) for event in events)
        if self._waiting:
            self._wake.set()
            self._idle.clear()
        self._watch_room()

    @property
    def confirmed(self) -> list[uuid.UUID]:
        """Rows whose events are confirmed, and that no transaction is deleting yet."""
        return list(self._confirmed)

    @contextlib.contextmanager
    def forgetting(self) -> Iterator[list[uuid.UUID]]:
        """The rows whose events are confirmed, to be deleted by this transaction and by no other beside it.

        If it fails, the next one deletes them.
        """
        taken, self._confirmed = self._confirmed, {}
        try:
            yield list(taken)
        except BaseException:
            self._confirmed.update(taken)
            raise

    async def has_room(self, *, seconds: float) -> bool:
        """Wait, for so long at most, until the outbox is not too far behind to take more messages."""
        if not self._room.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._room.wait()
        return self._room.is_set()

    async def flushed(self) -> None:
        """Wait until all that was put is published and forgotten."""
        await self._idle.wait()

    async def run(self, publisher: Publisher) -> None:
        """Publish what is put, window by window, for as long as this connection lives."""
        if self._waiting:
            self._wake.set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS_TO_FORGET if self._confirmed else None):
                    await self._wake.wait()
            if not self._wake.is_set():
                await self._forget()
            self._wake.clear()
            while self._waiting:
                await self._publish(publisher, list(self._waiting.values())[:WINDOW])
            if not self._confirmed:
                self._idle.set()

    async def _forget(self) -> None:
        async def delete() -> None:
            with self.forgetting() as ids:
                writes = Writes()
                writes.delete(OutboxRow, ids)
                await writes.flush()

        await patiently(self._life, delete)

    async def sweep(self) -> None:
        """Take up the rows that are overdue: left by a crash, a lost confirm or a missing route."""
        now = datetime.now(UTC)
        overdue = await OutboxRow.filter(due_at__lte=now).order_by("due_at").limit(WINDOW)
        fresh = [row for row in overdue if row.id not in self._waiting and row.id not in self._confirmed]
        if fresh:
            # Another replica's sweeper looks elsewhere meanwhile; if both take a row, it is only said twice.
            ids = [row.id for row in fresh]
            await OutboxRow.filter(id__in=ids).update(due_at=now + GRACE)
            log.info("sweeping the outbox", rows=len(fresh), oldest=fresh[0].staged_at.isoformat())
            self.put(_event(row) for row in fresh)
        # Whatever is older than the grace is left by a crash, a lost confirm or a missing route.
        oldest = await OutboxRow.filter(staged_at__lte=now - GRACE).order_by("staged_at").first()
        self._oldest_left = oldest.staged_at if oldest else None
        full = len(overdue) == WINDOW
        self._left_behind = await OutboxRow.filter(due_at__lte=now).count() if full else 0
        self._watch_room()

    async def _publish(self, publisher: Publisher, window: list[Event]) -> None:
        confirmations = await publisher.publish_events(window)
        for event, confirmation in zip(window, confirmations, strict=True):
            match confirmation:
                case Confirmed():
                    self._confirmed[event.id] = None
                case Unroutable():
                    # It stays in the table, and the sweeper tries again until somebody has mended the binding.
                    alarm(
                        "an event has nowhere to go: declare the topology again", type=event.type, saga=event.key
                    )
                case Unconfirmed(why=why):
                    log.warning("an event was not confirmed", type=event.type, saga=event.key, why=why)
            del self._waiting[event.id]
        self._watch_room()

    def _watch_room(self) -> None:
        if self.depth >= self._limit:
            if self._room.is_set():
                alarm("the outbox is too far behind; taking no more messages", depth=self.depth)
            self._room.clear()
        else:
            self._room.set()


def _event(row: OutboxRow) -> Event:
    return Event(**{name: getattr(row, name) for name in _STORED})


def is_mandatory(type_: str) -> bool:
    """Whether an event must find a queue; what only observers read may go nowhere."""
    return saga.is_awaited(type_)
