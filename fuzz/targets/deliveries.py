"""Deliveries: the consumer settles a hostile one for a clear reason, does its neighbours, and keeps its session.

The way in is the real one, from frames to the ack; only the handler, the database and the broker's answers are
missing. Whatever is copied to the exchange of recovery must be readable there, by other clients too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pamqp.frame
import structlog
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common import history, recovery, saga, topology, wire
from common.bus import Copy, Inbox, Session
from common.channel import KEPT_OF_TOO_LARGE, Delivery
from common.consumer import Consumer, Reading, reading_dead_letters, reading_messages
from common.history import Observers, Record
from common.life import Life
from common.messages import MAX_BODY
from common.outbox import Outbox, Relay
from common.recovery import DONE, Outcome
from common.settings import Settings
from common.unit_of_work import Batch, UnitOfWork
from fuzz import samples
from fuzz.inputs import Letter, letter
from fuzz.targets import letters

T = TypeVar("T")
_FRAME = 131_072 - 8
_SETTINGS = Settings()
_loop = asyncio.new_event_loop()


def run(data: bytes) -> None:
    """One input: a delivery with a good neighbour before and after it."""
    _quiet()
    wire.install()
    _loop.run_until_complete(_handled(_as_a_broker_would(letter(data))))


def _as_a_broker_would(told: Letter) -> Letter:
    """The same, from a queue that exists, with properties that fit into one frame."""
    service = told.service if told.service in saga.SERVICES else saga.SERVICES[len(told.service) % 5]
    queues = (topology.commands_queue, topology.events_queue, topology.dead_queue)
    names = [queue(service) for queue in queues]
    queue = told.queue if told.queue in names else names[len(told.queue) % len(names)]
    return Letter(service, queue, told.routing_key[:255], told.properties[:_FRAME], told.body)


async def _handled(told: Letter) -> None:
    inbox = _Inbox(told.queue)
    good = saga.step_of(told.service).on
    for routing_key, properties, body in (
        (good, samples.properties(), samples.body(good)),
        (told.routing_key, told.properties, told.body),
        (good, samples.properties(), samples.body(good)),
    ):
        inbox.put(_delivered(told.queue, next(inbox.tags), routing_key, properties, body))
    session = _Session(told.service, inbox)
    is_dead = told.queue == topology.dead_queue(told.service)
    reading: Reading[Any] = reading_dead_letters(_SETTINGS) if is_dead else reading_messages(_SETTINGS)
    observers, records = Observers(), list[Record]()
    relay = Relay(1000, Life(told.service))
    done: list[Any] = []

    async def handle(batch: Batch[Any]) -> list[Outcome]:
        done.extend(batch.messages)
        return [DONE for _ in batch.messages]

    consumer = Consumer(
        session, _SETTINGS, _NoDatabase(Life(told.service), relay), relay, reading, handle, observers
    )
    inbox.all_acked = consumer.stop
    with observers.joined_by(records.append):
        await consumer.listen(told.queue)
        await consumer.run()
    assert not session.is_over, await session.ended()
    assert inbox.acked == {1, 2, 3}, f"only {inbox.acked} were acked"
    copies = [copy for copy in session.copies if copy.delivery.tag == 2]
    if not is_dead:
        assert len(session.copies) == len(copies), "a neighbour was spoiled"
        assert len(done) == 3 - len(copies), "neither done nor set aside"
    assert len(copies) <= 1
    for copy in copies:
        _is_sound(session, copy)
    for record in records:
        # A lone half of a character cannot be written in UTF-8; all else is told as it was.
        assert [len(again.entries) for again in history.decode(history.encode(record))] == [len(record.entries)]
    assert sum(len(record.entries) for record in records) == 3, "a batch was not told"


def _delivered(queue: str, tag: int, routing_key: str, properties: bytes, body: bytes) -> Delivery:
    """What a session makes of the frames of one message."""
    header = b"\0\x3c\0\0" + len(body).to_bytes(8, "big") + properties
    read = wire.read_properties(header)
    kept = len(body) if len(body) <= MAX_BODY else KEPT_OF_TOO_LARGE
    return Delivery(
        queue=queue,
        tag=tag,
        routing_key=routing_key,
        body=body[:kept],
        content_type=read.content_type,
        content_encoding=read.content_encoding,
        user_id=read.user_id,
        correlation_id=read.correlation_id,
        redelivered=bool(properties[:1] < b"\x80"),
        headers=read.headers or {},
        left_out=len(body) - kept,
    )


def _is_sound(session: _Session, copy: Copy) -> None:
    """What was set aside says why, and can be read where it lies."""
    service = session.service
    places = {topology.dead_queue(service), topology.parked_queue(service)}
    places |= {topology.retry_queue(service, delay) for delay in _SETTINGS.retry_delays}
    assert copy.routing_key in places, copy.routing_key
    encoded, read = session.published(copy), []
    while encoded:
        size, _, frame = pamqp.frame.unmarshal(encoded)
        read.append(frame)
        encoded = encoded[size:]
    method, header = read[0], read[1]
    assert isinstance(method, spec.Basic.Publish)
    assert isinstance(header, ContentHeader)
    assert b"".join(part.value for part in read if isinstance(part, ContentBody)) == copy.delivery.body
    headers = header.properties.headers or {}
    assert headers[recovery.REASON]
    assert recovery.TYPE in headers
    assert all(isinstance(value, str | int) for value in headers.values()), "streams keep nothing else"
    letters.is_shown(service, copy.delivery.body, header.properties, headers)


class _Inbox(Inbox):
    """Keeps which deliveries were acked."""

    def __init__(self, queue: str) -> None:
        super().__init__(queue, None, asyncio.Event())  # type: ignore[arg-type] # it has no channel
        self.tags = itertools.count(1)
        self.acked: set[int] = set()
        self.all_acked: Callable[[], None] = lambda: None

    async def ack(self, deliveries: Sequence[Delivery], *, all_before: bool) -> None:
        self.acked |= {delivery.tag for delivery in deliveries}
        if all_before:
            self.acked |= set(range(1, deliveries[-1].tag))
        if len(self.acked) == 3:
            self.all_acked()


class _Session(Session):
    """Takes every copy, and knows the bytes that a broker would be sent."""

    def __init__(self, service: str, inbox: Inbox) -> None:
        super().__init__(service, f"saga-{service}")
        self.copies: list[Copy] = []
        self._inbox = inbox

    async def consume(self, *_: object, **__: object) -> Inbox:
        return self._inbox

    async def publish_copies(self, copies: Sequence[Copy]) -> None:
        self.copies += copies

    def published(self, copy: Copy) -> bytes:
        """The frames of a copy."""
        return wire.publish(
            7,
            exchange=topology.RECOVERY,
            routing_key=copy.routing_key,
            body=copy.delivery.body,
            properties=self._copy_properties(copy),
            mandatory=True,
            body_limit=_FRAME,
        )


class _NoDatabase(UnitOfWork):
    """Runs units whose handler needs no database."""

    async def run(self, unit: Callable[[datetime, Outbox], Awaitable[T]]) -> T:
        now = datetime.now(UTC)
        return await unit(now, Outbox(now))


def _nowhere(_: object, __: str, event: structlog.typing.EventDict) -> str:
    """Write a line as a service would, and throw it away."""
    structlog.processors.JSONRenderer()(None, "", event)
    raise structlog.DropEvent


def _quiet() -> None:
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _nowhere],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
