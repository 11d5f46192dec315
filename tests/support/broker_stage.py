"""A broker, real or simulated, as a scripted scenario plays on it, and the record of all that it saw.

Everything goes through aio-pika's and aiormq's own classes, so both kinds of broker are spoken to in the same way.
What cannot be the same twice is left out of the record: times, delivery tags, consumer tags, texts of errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError, DeliveryError, PublishError
from pamqp import commands as spec

from tests.support.eventually import eventually

#: Seconds for what is expected to come; a busy machine takes its time.
PATIENCE = 20.0


class Ground(Protocol):
    """A broker with nothing in it."""

    #: It is RabbitMQ 3, which does some things otherwise.
    old: bool
    #: Who its clients are.
    user: str

    async def connect(self, *, breakable: bool) -> AbstractConnection:
        """Connect by aio-pika."""
        ...

    async def break_connections(self) -> None:
        """Break those that are breakable."""
        ...

    async def restart(self) -> None:
        """Restart the broker, as far as that is possible here."""
        ...


@dataclass
class Stage:
    """One broker, and the record of one scenario."""

    ground: Ground
    seen: list[Any] = field(default_factory=list)
    _connections: list[AbstractConnection] = field(default_factory=list)
    _channels: list[AbstractChannel] = field(default_factory=list)

    @property
    def user(self) -> str:
        """Who the clients are to the broker."""
        return self.ground.user

    @property
    def old(self) -> bool:
        """Whether the broker is RabbitMQ 3."""
        return self.ground.old

    def saw(self, *what: object) -> None:
        """Put something on record."""
        self.seen.append(list(what))

    async def client(self, *, breakable: bool = False) -> Client:
        """A client with a connection of its own; only a breakable one `breaks`."""
        connection = await self.ground.connect(breakable=breakable)
        self._connections.append(connection)
        return Client(self, connection, await self.channel(connection))

    async def channel(self, connection: AbstractConnection) -> aiormq.Channel:
        """A new channel; kept, since aio-pika holds it weakly."""
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        self._channels.append(channel)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        return underlay

    async def restarts(self) -> None:
        """Restart the broker: every connection is lost."""
        self._connections.clear()
        await self.ground.restart()

    async def leave(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            await connection.close()


class Client:
    """One channel of a connection, and what it is told; every answer goes on record."""

    def __init__(self, stage: Stage, connection: AbstractConnection, channel: aiormq.Channel) -> None:
        self._stage = stage
        self._connection = connection
        self._channel = channel
        self._cancelled = asyncio.Event()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._cancelled.set())

    async def sibling(self) -> Client:
        """Another channel of the same connection."""
        return Client(self._stage, self._connection, await self._stage.channel(self._connection))

    # Objects

    async def exchange(self, name: str, kind: str = "topic", **arguments: Any) -> None:  # noqa: ANN401 - as AMQP has it
        """Declare an exchange; `alternate_exchange` and the like are arguments."""
        dashed = {key.replace("_", "-"): value for key, value in arguments.items()}
        await self._channel.exchange_declare(name, exchange_type=kind, durable=True, arguments=dashed)

    async def queue(self, name: str, **arguments: Any) -> None:  # noqa: ANN401 - as above
        """Declare a quorum queue; `delivery_limit` is `x-delivery-limit`."""
        named = {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
        await self._channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"} | named)

    async def bind(self, queue: str, exchange: str, *keys: str) -> None:
        """Bind a queue under each key."""
        for key in keys:
            await self._channel.queue_bind(queue, exchange, key)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo a binding."""
        await self._channel.queue_unbind(queue, exchange, key)

    async def delete(self, queue: str) -> None:
        """Delete a queue."""
        await self._channel.queue_delete(queue)

    async def looks(self, queue: str) -> tuple[int, int]:
        """Ready messages and consumers of a queue."""
        answer = await self._channel.queue_declare(queue, passive=True)
        return answer.message_count or 0, answer.consumer_count or 0

    async def waits(self, queue: str, count: int) -> None:
        """Wait until so many messages are ready in a queue."""

        async def check() -> None:
            found = await self.looks(queue)
            assert found[0] == count, f"{queue} has {found[0]} messages"

        await eventually(check, seconds=PATIENCE)
        self._stage.saw("waiting", queue, count)

    # Messages

    async def publish(
        self,
        exchange: str,
        key: str,
        body: str,
        *,
        mandatory: bool = False,
        **properties: Any,  # noqa: ANN401 - as above
    ) -> str:
        """Publish, and put what the broker answers on record."""
        try:
            answer = await self._channel.basic_publish(
                body.encode(),
                exchange=exchange,
                routing_key=key,
                mandatory=mandatory,
                properties=spec.Basic.Properties(delivery_mode=2, **properties),
                timeout=PATIENCE,
            )
            outcome = "confirmed" if isinstance(answer, spec.Basic.Ack) else repr(answer)
        except PublishError as error:
            outcome = "returned"
            if error.message is not None:
                returned = error.message
                self._stage.saw("return", returned.exchange, returned.routing_key, returned.body.decode())
        except DeliveryError:
            outcome = "refused"
        except AMQPError as error:
            outcome = f"closed: {type(error).__name__}"
        self._stage.saw("published", body, outcome)
        return outcome

    async def publish_at_once(self, exchange: str, key: str, messages: Sequence[tuple[str, str | None]]) -> None:
        """Publish bodies, each with a user that it claims, without waiting in between."""
        publishing = [
            self._channel.basic_publish(
                body.encode(),
                exchange=exchange,
                routing_key=key,
                properties=spec.Basic.Properties(user_id=user),
            )
            for body, user in messages
        ]
        await asyncio.gather(*publishing, return_exceptions=True)

    async def consume(self, queue: str, *, prefetch: int = 0) -> Reader:
        """Start to consume."""
        await self._channel.basic_qos(prefetch_count=prefetch)
        reader = Reader(self._stage, self._channel)
        answer = await self._channel.basic_consume(queue, reader.put)
        reader.tag = answer.consumer_tag or ""
        return reader

    async def read(self, queue: str, count: int = 1) -> None:
        """Read so many messages of a queue, put them on record, ack them."""
        reader = await (await self.sibling()).consume(queue)
        for _ in range(count):
            await reader.ack(await reader.next(queue))
        await reader.close()

    async def asks(self, what: str, asked: Awaitable[object]) -> None:
        """Put on record whether something was allowed."""
        try:
            await asked
            self._stage.saw(what, "done")
        except AMQPError as error:
            self._stage.saw(what, type(error).__name__)

    async def ends(self) -> None:
        """Wait until the broker closes the channel."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._channel.closing
            self._stage.saw("closed")
        except AMQPError as error:
            self._stage.saw("closed", type(error).__name__)

    async def is_cancelled(self) -> None:
        """Wait until the broker cancels a consumer."""
        async with asyncio.timeout(PATIENCE):
            await self._cancelled.wait()
        self._stage.saw("cancelled")

    async def acks(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge any tag."""
        await self._channel.basic_ack(tag, multiple=multiple)

    async def breaks(self) -> None:
        """Lose the connection without a word to the broker."""
        await self._stage.ground.break_connections()

    async def close_channel(self) -> None:
        """Close the channel in good order."""
        await self._channel.close()

    async def close(self) -> None:
        """Close the connection in good order."""
        await self._connection.close()


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery as its consumer answers for it."""

    tag: int
    body: str


class Reader:
    """One consumer and what it was delivered."""

    def __init__(self, stage: Stage, channel: aiormq.Channel) -> None:
        self._stage = stage
        self._channel = channel
        self._arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
        self.tag = ""

    async def put(self, message: DeliveredMessage) -> None:
        """Note a delivery down."""
        self._arrived.put_nowait(message)

    @property
    def unread(self) -> int:
        """Deliveries that nobody has looked at."""
        return self._arrived.qsize()

    async def next(self, name: str = "") -> Delivered:
        """The next delivery, put on record; TimeoutError when none comes."""
        async with asyncio.timeout(PATIENCE):
            message = await self._arrived.get()
        self._stage.saw("delivered", name, seen(message))
        return Delivered(message.delivery_tag or 0, message.body.decode())

    async def some(self, count: int, name: str = "") -> Sequence[Delivered]:
        """The next deliveries."""
        return [await self.next(name) for _ in range(count)]

    async def arrived(self, count: int) -> None:
        """Wait until so many deliveries are here, and put on record that there are no more."""
        await eventually(lambda: self.unread >= count, seconds=PATIENCE)
        self._stage.saw("arrived", self.unread)

    async def ack(self, delivered: Delivered, *, multiple: bool = False) -> None:
        """Acknowledge."""
        await self._channel.basic_ack(delivered.tag, multiple=multiple)

    async def nack(self, delivered: Delivered, *, multiple: bool = False, requeue: bool = True) -> None:
        """Do not take."""
        await self._channel.basic_nack(delivered.tag, multiple=multiple, requeue=requeue)

    async def cancel(self) -> None:
        """Consume no more; what was delivered can still be answered for."""
        await self._channel.basic_cancel(self.tag)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


def seen(message: DeliveredMessage) -> dict[str, Any]:
    """What of a delivery must be the same on every broker."""
    properties = message.header.properties
    return {
        "exchange": message.exchange,
        "key": message.routing_key,
        "body": message.body.decode(),
        "redelivered": message.redelivered,
        "expiration": properties.expiration,
        "message_id": properties.message_id if len(properties.message_id or "") < 32 else "",
        "headers": _plain(properties.headers or {}),
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever AMQP knows
    match value:
        case Mapping():
            return {key: _plain(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_plain(one) for one in value]
        case datetime():
            return "a time"
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "backslashreplace")
        case _:
            return value
