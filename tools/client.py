"""A client as any outsider could write it: it publishes commands and hears events on a queue of its own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from common import saga, topology
from common.messages import TYPES, Body

# Awaiting each confirm before the next publish would cost a round trip a message.
_IN_FLIGHT = 50


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as it was heard: its routing key and its body."""

    key: str
    body: dict[str, Any]


class Client:
    """Publishes commands, confirmed and mandatory, and waits for their answers."""

    def __init__(self, exchange: AbstractExchange, channel: AbstractChannel) -> None:
        self._exchange = exchange
        self._channel = channel
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._answers: dict[str, asyncio.Future[Heard]] = {}

    async def publish(self, key: str, body: Body | bytes) -> None:
        """Publish a command; raises if the broker does not confirm it or has no queue for it."""
        content = body if isinstance(body, bytes) else body.encode().encode()
        message = aio_pika.Message(
            content, content_type="application/json", delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        async with self._slots:
            await self._exchange.publish(message, key, mandatory=True, timeout=30)

    async def ask(self, commands: Iterable[Body], *, seconds: float = 60) -> list[Heard]:
        """Publish commands beside the saga and return their answers, in the same order."""
        asked = []
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for command in commands:
                answer: asyncio.Future[Heard] = asyncio.get_running_loop().create_future()
                self._answers[command.key] = answer
                asked.append(answer)
                group.create_task(self.publish(_key_of(command), command))
            return [await answer for answer in asked]

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue that is there."""
        found = await self._channel.declare_queue(queue, passive=True)
        return found.declaration_result.message_count or 0

    def hear(self, event: Heard) -> None:
        """Give an event to whoever waits for it as an answer."""
        if event.key in _ANSWERED_BY:
            answer = self._answers.pop(event.body[_ANSWERED_BY[event.key]], None)
            if answer and not answer.done():
                answer.set_result(event)


@asynccontextmanager
async def connect(amqp_url: str, heard: Callable[[Heard], None]) -> AsyncIterator[Client]:
    """Connect, and call `heard` with every event of the saga from now on.

    For brokers of our own only: a queue that hears the events which one step waits for hides from the broker that
    the service's own queue is missing.
    """
    connection = await aio_pika.connect(amqp_url, client_properties={"connection_name": "tools.client"})
    async with connection:
        publishing = await connection.channel(publisher_confirms=True, on_return_raises=True)
        client = Client(await publishing.get_exchange(topology.EVENTS), publishing)
        hearing = await connection.channel()
        queue = await hearing.declare_queue(exclusive=True)
        for service in saga.SERVICES:
            for key in saga.emitted_keys(service):
                await queue.bind(topology.EVENTS, key)

        async def receive(message: AbstractIncomingMessage) -> None:
            event = Heard(message.routing_key or "", json.loads(message.body))
            client.hear(event)
            heard(event)

        await queue.consume(receive, no_ack=True)
        yield client


# Under which of its fields an answer, or a rejection, names the command.
_ANSWERED_BY = {command.answer: command.key for command in saga.COMMANDS} | {
    saga.rejected(command.service): "id" for command in saga.COMMANDS
}


def _key_of(command: Body) -> str:
    """Return the routing key of a command: the one under which the language lists its class."""
    return next(key for key, kind in TYPES.items() if kind is type(command))
