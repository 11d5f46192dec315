"""A client's connection to the simulated broker: aio-pika's own classes over wires that carry no bytes.

`aio_pika.Connection` and `aio_pika.Channel` are the real ones, and so is `aiormq.Channel` below them; only
aiormq's connection, which would read and write a socket, is another. What a client writes arrives at the broker in
a later turn of the loop, and what the broker says arrives at the client in a later one.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aio_pika
from aio_pika.abc import UnderlayConnection
from aio_pika.tools import OneShotCallback
from aiormq import Channel
from aiormq.abc import AbstractConnection, ChannelFrame, ExceptionType, TimeoutType
from aiormq.base import Base
from aiormq.exceptions import AMQPConnectionError
from pamqp import commands as spec
from pamqp.base import Frame
from yarl import URL

from proof.broker import frames
from proof.broker.faults import Boundary, Delay, Fault
from proof.broker.frames import Published
from proof.broker.link import Link
from proof.broker.server import Session

if TYPE_CHECKING:
    from proof.broker.simulated import SimulatedBroker

#: Bytes of a frame, as RabbitMQ offers them.
_FRAME_MAX = 131_072


class Writes:
    """What the client writes: it takes the place of the queue that aiormq's writer reads."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def put_nowait(self, written: ChannelFrame) -> None:
        """Send it on its way."""
        written.drain()
        for channel, asked in frames.read(written.payload):
            self._wire.to_broker.put(self._wire.arrive, channel, asked)

    async def put(self, written: ChannelFrame) -> None:
        """As `put_nowait`; there is always room."""
        self.put_nowait(written)


class Wire(Base):
    """Stands in for aiormq's connection."""

    basic_nack = True
    publisher_confirms = True
    accept_consumer_cancel_ok = False
    connection_tune = SimpleNamespace(frame_max=_FRAME_MAX, heartbeat=0)

    def __init__(self, broker: SimulatedBroker, url: URL) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self.broker = broker
        self.user = url.user or "guest"
        self.name = url.query.get("name", self.user)
        self.to_broker = Link(self.loop)
        self.to_client = Link(self.loop)
        self.write_queue = Writes(self)
        self.channels: dict[int, Channel] = {}
        self.sessions: dict[int, Session] = {}
        self._is_over = False
        #: Whose connection it is: what happens to it must not happen in the name of whoever was at work just then.
        self._whose = contextvars.copy_context()

    def __str__(self) -> str:
        return self.name

    @property
    def is_opened(self) -> bool:
        """Whether the client can still use it."""
        return not self.is_closed and not self._is_over

    async def ready(self) -> None:
        """It is, from the beginning."""

    async def channel(
        self,
        channel_number: int | None = None,
        timeout: TimeoutType = None,  # noqa: ASYNC109 - as aiormq's
        **options: Any,  # noqa: ANN401 - as above
    ) -> Channel:
        """Open a channel; RuntimeError when the connection is closed."""
        if self.is_closed:
            raise RuntimeError(f"{self!r} closed")
        number = channel_number or next(self._free_numbers())
        channel = Channel(cast("AbstractConnection", self), number, frame_buffer=0, **options)
        self.channels[number] = channel
        await channel.open(timeout=timeout)
        return channel

    def _free_numbers(self) -> Iterator[int]:
        return (number for number in range(1, 65536) if number not in self.channels)

    def arrive(self, number: int, asked: Frame | Published) -> None:
        """At the broker: something the client wrote."""
        if isinstance(asked, spec.Channel.Open):
            self.sessions[number] = Session(self, number)
        session = self.sessions.get(number)
        if session is not None and not isinstance(asked, spec.Channel.CloseOk):
            session.take(asked)
        elif isinstance(asked, spec.Channel.CloseOk):
            self.sessions.pop(number, None)

    def receive(self, number: int, said: tuple[Any, ...]) -> None:
        """At the client: something the broker said."""
        channel = self.channels.get(number)
        if channel is None:
            return
        for frame in said:
            if isinstance(frame, (spec.Channel.Close, spec.Channel.CloseOk)):
                self.channels.pop(number, None)
            # There is always room in that queue, so nothing waits.
            try:
                channel.frames.put((0, frame)).send(None)
            except StopIteration:
                continue
            raise NotImplementedError("whoever takes the frames must not wait")

    def fault(self, boundary: Boundary, what: str) -> Fault | Delay | None:
        """Ask what strikes at a boundary."""
        return self.broker.core.faults.at(boundary, self.name, what)

    def lost(self) -> None:
        """The connection breaks here and now."""
        self.broker.kill(self)

    def cut(self) -> None:
        """Nothing gets through any more; neither end knows."""
        self.to_broker.cut()
        self.to_client.cut()

    def deafen(self) -> None:
        """Nothing more is delivered here, although the broker does not know why yet."""
        for session in self.sessions.values():
            session.deafen()

    def over_at_broker(self) -> None:
        """The broker has lost sight of the client: what it has not acked goes back."""
        if self._is_over:
            return
        self._is_over = True
        self.cut()
        self.broker.forget(self)
        sessions, self.sessions = self.sessions, {}
        for session in sessions.values():
            session.close()

    def over_at_client(self) -> None:
        """The client notices that the broker is gone."""
        if not self.is_closed:
            lost = AMQPConnectionError("the connection was lost")
            self.loop.create_task(self.close(lost), context=self._whose.copy())

    def _goodbye(self, heard: asyncio.Future[None]) -> None:
        self.over_at_broker()
        if not heard.done():
            heard.set_result(None)

    async def _on_close(self, exc: ExceptionType | None = None) -> None:
        if not self.to_broker.is_cut:
            # A goodbye arrives after all that was written before it.
            heard = self.create_future()
            self.to_broker.put(self._goodbye, heard)
            await heard
        if self._closing.done():
            return
        if exc is None:
            self._closing.set_result(None)
        else:
            self._closing.set_exception(exc)


async def connect(broker: SimulatedBroker, url: str | URL) -> aio_pika.Connection:
    """A connection of aio-pika to this broker."""
    connection = aio_pika.Connection(URL(url))
    wire = Wire(broker, URL(url))
    closed = OneShotCallback(connection._on_connection_close)  # noqa: SLF001 - as its own `connect` does
    wire.closing.add_done_callback(closed)
    connection.transport = UnderlayConnection(cast("AbstractConnection", wire), closed)
    connection.connected.set()
    broker.connections.append(wire)
    return connection
