"""The stream of the history, read over AMQP: bodies and offsets, from a moment on, up to an offset or for ever.

A stream has no end marker, and silence proves nothing: a broker may pause. So whoever reads what is there asks for
the end first, and is done when it has come to that offset; no clock decides.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from pamqp import commands as spec

from common import topology
from ops.output import CannotLookError

_AHEAD = 1000
"""Messages that the broker may send ahead: enough to keep it busy, and a bound for what is held here."""
_QUIET = 2.0
"""Seconds without a message after which a reader looks whether it has missed the end."""
_PAUSE = 0.2
"""Seconds without a message after which the last chunk has been delivered: it comes in one sweep."""
SKEW = timedelta(minutes=1)
"""How far the clocks of services and broker may differ where a moment is looked for."""

_EPOCH = datetime.fromtimestamp(0, UTC)

_MISSING = (
    f"The broker has no stream {topology.HISTORY}: either no service has run here yet, or all run with"
    " HISTORY=false and nothing tells what they do. `saga doctor` looks what is missing."
)


@dataclass(frozen=True, slots=True)
class End:
    """The last message that was in the stream when that was asked; `body` is its body, or that of the next one."""

    offset: int
    body: bytes


class Tap:
    """What one consumer of the stream was sent and nobody has taken yet."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self.seen: int | None = None
        """The highest offset that was sent."""
        self.first: int | None = None
        """The first offset that was sent."""
        self.body = b""
        """The body of the latest message."""
        self._channel = channel
        self._arrived = asyncio.Event()
        self._waiting: list[bytes] = []
        self._tag = 0
        self._lost: str | None = None

    async def deliver(self, message: DeliveredMessage) -> None:
        """Note a message down; the broker sends more when it is taken."""
        offset = (message.header.properties.headers or {}).get("x-stream-offset")
        if isinstance(offset, int):
            self.seen = offset
            self.first = offset if self.first is None else self.first
        self.body = message.body
        self._waiting.append(message.body)
        if isinstance(message.delivery, spec.Basic.Deliver):
            self._tag = message.delivery.delivery_tag or self._tag
        self._arrived.set()

    def lose(self, why: str) -> None:
        """The broker sends no more."""
        self._lost = why
        self._arrived.set()

    def wake(self) -> None:
        """Let whoever waits look around."""
        self._arrived.set()

    async def take(self, seconds: float | None) -> list[bytes] | None:
        """What has come, maybe nothing; None after so many seconds of silence. ConnectionError when it is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return None
        self._arrived.clear()
        taken, self._waiting = self._waiting, []
        if self._lost is not None and not taken:
            raise ConnectionError(self._lost)
        if taken and self._lost is None:
            await self._channel.basic_ack(self._tag, multiple=True, wait=False)
        elif self._lost is not None:
            self._arrived.set()
        return taken


async def until(
    tap: Tap, end: asyncio.Future[int | None] | None, progress: Callable[[int], None] | None = None
) -> AsyncGenerator[list[bytes], None]:
    """What comes, as long as the offset `end` has not come; None: for ever."""
    read = 0
    while True:
        bodies = await tap.take(None if end is None else _QUIET)
        if bodies:
            read += len(bodies)
            yield bodies
            if progress is not None:
                progress(read)
        if end is None or not end.done():
            continue
        last = end.result()
        if last is None if tap.seen is None else last is not None and tap.seen >= last:
            return
        if bodies is not None:
            continue
        if tap.seen is None or last is None:
            # All of it is older than what is asked for, or the first of it came after it had been looked at.
            return
        raise CannotLookError(f"The broker stopped sending {topology.HISTORY} before its end; try again.")


async def find_end(connection: AbstractConnection) -> End | None:
    """The last message that is in the stream now; None if it is empty.

    Nobody tells which that is. Where much is told, the next message that comes does: it is one further. Where
    little is told, the last chunk does: it comes in one sweep, and silence follows.
    """
    async with open_tap(connection, "next") as coming, open_tap(connection, "last") as latest:
        following = asyncio.create_task(coming.take(None))
        sweeping = asyncio.create_task(_sweep(latest))
        try:
            done, _ = await asyncio.wait(
                {following, sweeping}, timeout=_QUIET, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            for task in (following, sweeping):
                task.cancel()
            await asyncio.gather(following, sweeping, return_exceptions=True)
        if coming.first is not None:
            return End(coming.first - 1, coming.body) if coming.first else None
        return None if latest.seen is None else End(latest.seen, latest.body)


async def _sweep(tap: Tap) -> None:
    await tap.take(None)
    while await tap.take(_PAUSE):
        pass


@contextlib.asynccontextmanager
async def open_tap(connection: AbstractConnection, offset: str | datetime) -> AsyncIterator[Tap]:
    """Consume the stream from an offset for as long as the context is open."""
    channel = await connection.channel(publisher_confirms=False)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    tap = Tap(underlay)
    try:
        await underlay.queue_declare(topology.HISTORY, passive=True)
    except aiormq.exceptions.ChannelNotFoundEntity as error:
        raise CannotLookError(_MISSING) from error
    channel.close_callbacks.add(lambda *_: tap.lose("the channel of the history was closed"), weak=False)
    underlay.on_consumer_cancel_callbacks.add(lambda _: tap.lose("the stream was deleted"))
    await underlay.basic_qos(prefetch_count=_AHEAD)
    await underlay.basic_consume(topology.HISTORY, tap.deliver, arguments={"x-stream-offset": offset})
    try:
        yield tap
    finally:
        await channel.close()


def offset_of(since: datetime | None) -> str | datetime:
    """Where a reader begins: the stream finds moments by its own clock, and only to a chunk."""
    if since is None or since <= _EPOCH + SKEW:
        return "first"
    return (since - SKEW).astimezone(UTC)
