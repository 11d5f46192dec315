"""The client: publishes every command at its time, and again until the broker has confirmed it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import DeliveryError, PublishError
from pamqp import commands as spec

from proof.broker import SimulatedBroker
from proof.simulator.chronicle import Chronicle
from proof.simulator.workload import Told

_WAIT = 0.5
_LOST = (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, ConnectionError)


class Client:
    """Whoever publishes commands."""

    def __init__(self, broker: SimulatedBroker, chronicle: Chronicle) -> None:
        self.accepted: list[Told] = []
        self._broker = broker
        self._chronicle = chronicle
        self._connection: AbstractConnection | None = None
        self._channel: Channel | None = None
        self._connecting = asyncio.Lock()

    async def tell(self, told: Iterable[Told]) -> None:
        """Publish all of them, each at its time; ends when every one was accepted."""
        loop = asyncio.get_running_loop()
        tasks = []
        for one in told:
            if one.at > loop.time():
                await asyncio.sleep(one.at - loop.time())
            tasks.append(asyncio.create_task(self._until_accepted(one)))
        await asyncio.gather(*tasks)

    async def _until_accepted(self, told: Told) -> None:
        while True:
            try:
                channel = await self._open()
                await channel.basic_publish(
                    told.body,
                    exchange=told.exchange,
                    routing_key=told.key,
                    properties=spec.Basic.Properties(content_type=told.content_type, delivery_mode=2),
                    mandatory=True,
                )
            except (PublishError, DeliveryError):
                # Nobody is there yet, or there is no room.
                await asyncio.sleep(_WAIT)
            except _LOST:
                self._channel = None
                await asyncio.sleep(_WAIT)
            else:
                self.accepted.append(told)
                self._chronicle.tell("client", f"{told.key} is accepted", told.id)
                return

    async def _open(self) -> Channel:
        async with self._connecting:
            if self._channel is None or self._channel.is_closed:
                self._connection = await self._broker.connect("amqp://client@broker/?name=client")
                assert self._connection is not None
                opened = self._connection.channel(publisher_confirms=True, on_return_raises=True)
                await opened.initialize()
                channel = await opened.get_underlay_channel()
                assert isinstance(channel, Channel)
                self._channel = channel
            return self._channel
