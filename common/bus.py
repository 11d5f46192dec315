"""The broker, as one session: two connections that live and die together.

There is no magic restoration: when either connection, a channel or a consumer is lost, the session ends, and the
runner opens a new one from nothing. What was not acked is delivered again, what was not confirmed is published
again. aio-pika opens connections and channels; messages travel by `common.channel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from yarl import URL

from common import history, recovery, topology, wire
from common.channel import Channel, Delivery, Publish
from common.history import Record
from common.outbox import Confirmation, Confirmed, Event, is_mandatory, message_id
from common.settings import Delay, addresses
from common.telemetry import log
from common.topology import Topology
from common.wire import Properties

_SECONDS_TO_CLOSE = 2.0
#: How long an ack may wait for those that follow, and how many messages do not wait: one frame acks them all.
#: What a crash leaves unacked is delivered again, and absorbed.
_SECONDS_TO_ACK = 0.05
_MANY = 50
#: Bytes of bodies that are copied at once: on their way out they are in memory three times.
_COPIED_AT_ONCE = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Copy:
    """A delivery on its way to a retry level, the dead queue or the parked queue."""

    delivery: Delivery
    routing_key: str
    headers: Mapping[str, str | int]
    expires_in: int | None = None


class SessionEnded(ConnectionError):  # noqa: N818 - it is what happened to the session
    """The session is over: whatever was in flight is delivered or published again in the next one."""


class Inbox:
    """What one consumer was delivered and nobody has taken yet, in order.

    A batch costs nearly the same whatever is in it, so messages may wait for company, unless a whole batch is
    there. `gather`: seconds that the first of them waits; for what nobody is waiting for. `pace`: seconds from one
    batch to the next at least, so that what comes after a pause does not wait.
    """

    def __init__(
        self,
        queue: str,
        channel: Channel,
        arrived: asyncio.Event,
        *,
        gather: float = 0,
        pace: float = 0,
        batch: int = 1,
    ) -> None:
        self.queue = queue
        self.channel = channel
        self._arrived = arrived
        self._gather = gather
        self._pace = pace
        self._batch = batch
        self._taken_at = -math.inf
        self._waiting: list[Delivery] = []
        self._is_due = False
        self._done = 0
        self._last_done = 0
        self._acking: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return self._is_due

    def put(self, delivery: Delivery) -> None:
        """Note a delivery down."""
        self._waiting.append(delivery)
        wait = max(self._gather, self._taken_at + self._pace - time.monotonic())
        if wait <= 0 or len(self._waiting) >= self._batch:
            self._due()
        elif len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(wait, self._due)

    def _due(self) -> None:
        self._is_due = bool(self._waiting)
        self._arrived.set()

    def take(self, limit: int) -> list[Delivery]:
        """Up to `limit` deliveries, oldest first."""
        taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        self._taken_at = time.monotonic()
        self._is_due = bool(self._waiting)
        return taken

    async def ack(self, deliveries: Sequence[Delivery], *, all_before: bool) -> None:
        """Acknowledge these at once; `all_before`: soon, as nothing older is unanswered, and one frame will do."""
        if not all_before:
            await self.ack_rest()
            for delivery in deliveries:
                await self.channel.ack(delivery.tag, multiple=False)
            return
        self._done += len(deliveries)
        self._last_done = deliveries[-1].tag
        if self._done >= _MANY:
            await self.ack_rest()
        elif self._acking is None:
            self._acking = asyncio.get_running_loop().call_later(_SECONDS_TO_ACK, self._ack_soon)

    async def ack_rest(self) -> None:
        """Acknowledge what is done and still waits to be."""
        if self._acking is not None:
            self._acking.cancel()
            self._acking = None
        if self._done:
            self._done = 0
            await self.channel.ack(self._last_done, multiple=True)

    def _ack_soon(self) -> None:
        self._acking = None
        try:
            self.channel.ack_at_once(self._last_done)
        except asyncio.QueueFull:
            self._acking = asyncio.get_running_loop().call_later(_SECONDS_TO_ACK, self._ack_soon)
        except (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError) as error:
            log.debug("an ack came too late: its messages are delivered again", error=str(error))
        else:
            self._done = 0


class Session:
    """One life of a service's connections: one to consume, one to publish, since alarms block only the second."""

    def __init__(self, service: str, user: str) -> None:
        self.service = service
        self.user = user
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._channels: list[AbstractChannel] = []  # aio-pika holds channels weakly
        self._consuming: AbstractConnection
        self._events: Channel
        self._copies: Channel
        self._history: Channel
        self._gathered = history.Gathered(self._tell)
        self._tells = True
        self._chance = random.Random()  # noqa: S311 - jitter

    def end(self, why: str) -> None:
        """End this session; the first reason is kept."""
        if not self._ended.done():
            self._ended.set_result(why)

    @property
    def is_over(self) -> bool:
        """Whether this session has ended."""
        return self._ended.done()

    async def ended(self) -> str:
        """Wait until the session is over, and why."""
        return await asyncio.shield(self._ended)

    async def open(self, consuming: AbstractConnection, publishing: AbstractConnection) -> None:
        """Open the publishing channels and watch both connections."""
        self._consuming = consuming
        for connection, use in ((consuming, "consuming"), (publishing, "publishing")):
            connection.close_callbacks.add(self._ends(f"the {use} connection was lost"), weak=False)
        self._events = Channel(await self._channel(publishing, "the channel for events was closed"))
        self._copies = Channel(await self._channel(publishing, "the channel for copies was closed"))
        # Nobody watches this one: whatever closes it, the saga goes on.
        self._history = Channel(await self._channel(publishing, None, confirms=False))

    async def consume(
        self,
        queue: str,
        prefetch: int,
        arrived: asyncio.Event,
        *,
        gather: float = 0,
        pace: float = 0,
        batch: int = 1,
    ) -> Inbox:
        """Start to consume a queue into an inbox; sets `arrived` when there is something to be done."""
        underlay = await self._channel(self._consuming, f"the channel of {queue} was closed")
        underlay.on_consumer_cancel_callbacks.add(lambda _: self.end(f"the broker cancelled {queue}"))
        inbox = Inbox(queue, Channel(underlay), arrived, gather=gather, pace=pace, batch=batch)
        await inbox.channel.consume(queue, prefetch, inbox.put)
        return inbox

    async def stop_consuming(self, inboxes: Sequence[Inbox]) -> None:
        """Ask for no more deliveries; those already here stay in their inboxes."""
        for inbox in inboxes:
            await inbox.channel.stop_consuming()

    async def finish(self, inboxes: Sequence[Inbox]) -> None:
        """Ack and tell the history what is done, before this session is closed."""
        for inbox in inboxes:
            await inbox.ack_rest()
        self._gathered.tell()

    async def declare(self, objects: Topology) -> None:
        """Make the broker's objects as the saga table says, and remove bindings that it no longer lists."""
        channel = await self._channel(self._consuming, None)
        for exchange in objects.exchanges:
            await channel.exchange_declare(exchange, exchange_type="topic", durable=True)
        for queue in objects.queues:
            await channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
        for binding in objects.bindings:
            await channel.queue_bind(binding.queue, binding.exchange, binding.key)
        for binding in objects.stale:
            await channel.queue_unbind(binding.queue, binding.exchange, binding.key)
        await channel.close()

    async def check(self, objects: Topology) -> None:
        """Only look whether exchanges and queues exist; raises if one is missing."""
        channel = await self._channel(self._consuming, None)
        for exchange in objects.exchanges:
            await channel.exchange_declare(exchange, passive=True)
        for queue in objects.queues:
            await channel.queue_declare(queue.name, passive=True)
        await channel.close()

    async def publish_events(self, events: Sequence[Event]) -> list[Confirmation]:
        """Publish outbox rows to the exchange of the saga, all in flight at once, each confirmed."""
        return await self._publish(
            self._events,
            [self._parked(event) if event.parked_because else self._event(event) for event in events],
        )

    async def publish_copies(self, copies: Sequence[Copy]) -> None:
        """Publish copies to the recovery exchange; SessionEnded unless the broker confirms every one."""
        for window in _windows(copies):
            confirmations = await self._publish(
                self._copies,
                [
                    Publish(
                        exchange=topology.RECOVERY,
                        routing_key=copy.routing_key,
                        body=copy.delivery.body,
                        properties=self._copy_properties(copy),
                        mandatory=True,
                    )
                    for copy in window
                ],
            )
            for copy, confirmation in zip(window, confirmations, strict=True):
                if not isinstance(confirmation, Confirmed):
                    self.end(f"{copy.routing_key} did not take a copy: {confirmation}")
                    raise SessionEnded(copy.routing_key)

    def tell(self, record: Record) -> None:
        """Tell the history what was done, soon; whatever is wrong with it, what was done is done."""
        self._gathered.add(record)

    def _tell(self, records: Sequence[Record]) -> None:
        if self.is_over:
            return
        try:
            self._history.let_go(
                Publish(
                    exchange=topology.RECOVERY,
                    routing_key=topology.history_key(self.service),
                    body=history.encode(*records),
                    properties=Properties(
                        content_type="application/json",
                        app_id=self.service,
                        user_id=self.user,
                        timestamp=int(records[-1].at.timestamp()),
                    ),
                    mandatory=False,
                )
            )
        except Exception as error:  # noqa: BLE001 - as said
            if self._tells:
                log.warning("the history is not told", error=f"{type(error).__name__}: {error}"[:200])
            self._tells = False
        else:
            self._tells = True

    def retry_expiration(self, delay: Delay) -> int:
        """Milliseconds of a retry at this level, with jitter."""
        return recovery.expiration(delay, self._chance)

    async def _publish(self, channel: Channel, messages: Sequence[Publish]) -> list[Confirmation]:
        try:
            return await channel.publish(messages)
        except (
            aiormq.exceptions.AMQPError,
            aiormq.exceptions.ChannelInvalidStateError,
            ConnectionError,
        ) as error:
            self.end(f"publishing failed: {error}")
            raise SessionEnded(str(error)) from error

    def _event(self, event: Event) -> Publish:
        return Publish(
            exchange=topology.EVENTS,
            routing_key=event.type,
            body=event.body.encode(),
            properties=self._event_properties(event),
            mandatory=is_mandatory(event.type),
        )

    def _parked(self, event: Event) -> Publish:
        properties = self._event_properties(event)
        properties.headers = {
            recovery.TYPE: event.type,
            recovery.REASON: event.parked_because,
            recovery.DETAIL: event.detail,
            recovery.FIRST_FAILED_AT: event.staged_at.isoformat(),
            recovery.FAILED_IN: self.service,
        }
        return Publish(
            exchange=topology.RECOVERY,
            routing_key=topology.parked_queue(self.service),
            body=event.body.encode(),
            properties=properties,
            mandatory=True,
        )

    def _event_properties(self, event: Event) -> Properties:
        """AMQP properties and CloudEvents 1.0 (binary mode) of an event."""
        name = message_id(event.key, event.type)
        return Properties(
            content_type="application/json",
            message_id=name,
            correlation_id=event.key,
            message_type=event.type,
            app_id=self.service,
            user_id=self.user,
            timestamp=int(event.staged_at.timestamp()),
            headers={
                "traceparent": event.traceparent,
                "cloudEvents_specversion": "1.0",
                "cloudEvents_id": name,
                "cloudEvents_source": f"/concert-saga/{self.service}",
                "cloudEvents_type": event.type,
                "cloudEvents_subject": event.key,
                "cloudEvents_time": event.staged_at.isoformat(),
            },
        )

    def _copy_properties(self, copy: Copy) -> Properties:
        delivery = copy.delivery
        return Properties(
            content_type=_short(delivery.content_type),
            content_encoding=_short(delivery.content_encoding),
            # A name of its own: two copies of one saga may be in flight at once.
            message_id=uuid.uuid4().hex,
            correlation_id=_short(delivery.correlation_id),
            app_id=self.service,
            user_id=self.user,
            timestamp=int(time.time()),
            expiration=str(copy.expires_in) if copy.expires_in is not None else None,
            headers=dict(copy.headers),
        )

    async def _channel(
        self, connection: AbstractConnection, why_it_matters: str | None, *, confirms: bool = True
    ) -> aiormq.Channel:
        channel = connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
        await channel.initialize()
        self._channels.append(channel)
        if why_it_matters:
            channel.close_callbacks.add(self._ends(why_it_matters), weak=False)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        return underlay

    def _ends(self, what: str) -> Callable[..., None]:
        def ended(_: object, error: BaseException | None = None) -> None:
            self.end(f"{what}: {error}" if error else what)

        return ended


@contextlib.asynccontextmanager
async def open_session(url: str, service: str) -> AsyncIterator[Session]:
    """Connect twice and give a session; raises ConnectionError and its kin when the broker is away.

    Of several addresses one is taken that answers, in an order of chance: so the nodes of a cluster share the
    services, and one that is lost is not every service's first choice.
    """
    wire.install()
    nodes = addresses(url)
    random.shuffle(nodes)
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            try:
                consuming, publishing = await stack.enter_async_context(_connections(node, service))
            except Exception as error:
                if node is nodes[-1]:
                    raise
                log.info("a node of the broker is away; trying another", error=str(error)[:200])
            else:
                break
        session = Session(service, user_of(node))
        await session.open(consuming, publishing)
        try:
            yield session
        finally:
            session.end("closed by the service")


@contextlib.asynccontextmanager
async def _connections(url: str, service: str) -> AsyncIterator[tuple[AbstractConnection, AbstractConnection]]:
    """Two connections to one node, closed at the end; one to consume, one to publish."""
    async with contextlib.AsyncExitStack() as stack:
        opened = []
        for use in ("consume", "publish"):
            connection = await aio_pika.connect(_named(url, f"{service} {use}"), timeout=10)
            stack.push_async_callback(_close, connection)
            opened.append(connection)
        consuming, publishing = opened
        yield consuming, publishing


def _windows(copies: Sequence[Copy]) -> Iterator[Sequence[Copy]]:
    """The copies in order, as many at once as memory should hold; nearly always that is all of them."""
    start = size = 0
    for place, copy in enumerate(copies):
        size += len(copy.delivery.body)
        if size > _COPIED_AT_ONCE and place > start:
            yield copies[start:place]
            start, size = place, len(copy.delivery.body)
    yield copies[start:]


def _short(text: str | None) -> str | None:
    """A stranger's text cut to what AMQP's short strings hold: 255 bytes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore") if text else text


def user_of(url: str) -> str:
    """The broker user that a URL logs in as."""
    return unquote(urlsplit(url).username or "guest")


def _named(url: str, name: str) -> URL:
    """`url` with a connection name for the management UI, and a heartbeat that notices a dead peer in time."""
    options = {"name": name, "heartbeat": "10"}
    parsed = URL(url)
    return parsed.update_query({key: value for key, value in options.items() if key not in parsed.query})


async def _close(connection: AbstractConnection) -> None:
    """Close a connection, but never wait long for a broker that does not answer."""
    try:
        async with asyncio.timeout(_SECONDS_TO_CLOSE):
            await connection.close()
    except Exception as error:  # noqa: BLE001 - it is being thrown away, whatever state it is in
        log.debug("connection did not close in time", error=str(error))
