"""One conversation with the services: what is published is confirmed, and what is said about it is heard.

The queue of one's own names its keys one by one. Bound with `#` it would take commands too, and so hide from the
broker, and from us, that a service's queue is missing.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aio_pika
import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from common import messages, topology
from common.bus import user_of
from common.messages import Body, Malformed, UnknownType
from ops import where
from ops.broker import connected
from ops.output import CannotLookError

_SECONDS_TO_CONFIRM = 30.0


@dataclass(frozen=True, slots=True)
class Heard:
    """An event that could be read."""

    type: str
    body: Body


class Line:
    """Publishes mandatory and confirmed, and hears events on a queue of its own."""

    def __init__(self, connection: AbstractConnection, publishing: AbstractChannel, user: str) -> None:
        self._connection = connection
        self._publishing = publishing
        self.user = user
        self._events: asyncio.Queue[Heard] = asyncio.Queue()
        self._hearing: AbstractChannel | None = None
        self._lost = asyncio.Event()

    async def publish(
        self,
        exchange: str,
        key: str,
        body: bytes,
        *,
        about: str,
        headers: Mapping[str, str | int] | None = None,
    ) -> None:
        """Publish one message; raises CannotLookError unless the broker takes it and has a queue for it."""
        message = aio_pika.Message(
            body,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=uuid.uuid4().hex,
            correlation_id=about,
            app_id="saga",
            user_id=self.user,
            headers=dict(headers or {}),
        )
        if self._publishing.is_closed:
            # A refusal takes its channel with it.
            self._publishing = await _publishing(self._connection)
        target = await self._publishing.get_exchange(exchange, ensure=False)
        try:
            async with asyncio.timeout(_SECONDS_TO_CONFIRM):
                await target.publish(message, key, mandatory=True)
        except aio_pika.exceptions.PublishError as error:
            raise CannotLookError(
                f"Nothing was sent: no queue takes {key}. The services declare their queues when they start; "
                f"`saga doctor` says what is missing"
            ) from error
        except aio_pika.exceptions.DeliveryError as error:
            raise CannotLookError(
                f"Nothing was taken: the broker pushes back on {key}, because its queue is full, or has no leader "
                f"at the moment. Try again in a while; `saga doctor` says which"
            ) from error
        except aio_pika.exceptions.ChannelNotFoundEntity as error:
            raise CannotLookError(
                f"Nothing was sent: this broker has no exchange {exchange}. The services declare it when they "
                f"start; is this the right broker and virtual host?"
            ) from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise CannotLookError(
                f"Nothing was sent: this login ({self.user}) may not publish {key} to {exchange}"
            ) from error
        except TimeoutError as error:
            raise CannotLookError(
                f"The broker did not confirm {key} within {_SECONDS_TO_CONFIRM:.0f} s, so nobody knows whether it "
                f"has it. Is an alarm (memory, disk) on? Sending the same once more does no harm"
            ) from error

    async def listen(self, keys: Iterable[str]) -> None:
        """Hear what is said under these keys from now on."""
        self._hearing = await self._connection.channel(publisher_confirms=False)
        self._hearing.close_callbacks.add(lambda *_: self._lost.set(), weak=False)
        queue = await self._hearing.declare_queue(exclusive=True)
        for key in keys:
            try:
                await queue.bind(topology.EVENTS, key)
            except aio_pika.exceptions.ChannelNotFoundEntity as error:
                raise CannotLookError(
                    f"This broker has no exchange {topology.EVENTS}: the services declare it when they start; "
                    "is this the right broker and virtual host?"
                ) from error
        await queue.consume(self._receive, no_ack=True)

    async def hear_until(self, enough: Callable[[Heard], bool], *, seconds: float) -> bool:
        """Give each event to `enough` until that is satisfied; False when the time is up before.

        Raises ConnectionError when the broker goes away.
        """
        try:
            async with asyncio.timeout(seconds):
                while not enough(await self._next()):
                    pass
        except TimeoutError:
            return False
        return True

    async def _next(self) -> Heard:
        hearing = asyncio.ensure_future(self._events.get())
        losing = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait({hearing, losing}, return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                raise ConnectionError("the connection was lost while waiting")
            return hearing.result()
        finally:
            hearing.cancel()
            losing.cancel()

    async def _receive(self, message: AbstractIncomingMessage) -> None:
        key = message.routing_key or ""
        try:
            heard = Heard(key, messages.decode(key, message.body))
        except (Malformed, UnknownType):
            # Whoever may publish may publish anything; what cannot be read tells nothing.
            return
        self._events.put_nowait(heard)


@asynccontextmanager
async def open_line(url: str | None = None) -> AsyncIterator[Line]:
    """Connect to the broker; raises CannotLookError where there is none, or when it goes away meanwhile."""
    address = url or where.broker_url()
    async with connected(address) as connection:
        yield Line(connection, await _publishing(connection), user_of(address))


async def _publishing(connection: AbstractConnection) -> AbstractChannel:
    return await connection.channel(publisher_confirms=True, on_return_raises=True)
