"""The history, read from its stream over AMQP: what is there, or what comes for as long as one listens.

A stream has no end marker, and silence proves nothing: a broker may pause. So whoever reads what is there asks
for the end first: a second consumer begins at the stream's last chunk, and the highest offset that it is given at
once is the last that was there. The reader is done when it has come to that offset, and no clock decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from pamqp import commands as spec

from common import history, topology
from common.history import Record
from ops.broker import connected
from ops.output import CannotLookError, warn

_AHEAD = 1000
"""Messages that the broker may send ahead: enough to keep it busy, and a bound for what is held here."""
_QUIET = 2.0
"""Seconds without a message after which a reader looks whether it has missed the end."""
_PAUSE = 0.2
"""Seconds without a message after which the last chunk has been delivered: it comes in one sweep."""
_SKEW = timedelta(minutes=1)
"""How far the clocks of services and broker may differ where a moment is looked for."""

_EPOCH = datetime.fromtimestamp(0, UTC)

_MISSING = (
    f"The broker has no stream {topology.HISTORY}: either no service has run here yet, or all run with"
    " HISTORY=false and nothing tells what they do. `saga doctor` looks what is missing."
)


async def records(
    url: str | None = None,
    *,
    since: datetime | None = None,
    follow: bool = False,
    progress: Callable[[int], None] | None = None,
    about: str | None = None,
) -> AsyncGenerator[Record, None]:
    """The history's records as they stand in the stream, by default all that are there when this begins.

    `since`: only what was settled then or later. `follow`: go on with what comes. `progress` is told now and then
    how many messages were read. `about`: pass over bodies that cannot mention this id, unread. What is no record
    is left out, counted, and told once on standard error. Raises CannotLookError.
    """
    refused = _Refused(follow=follow)
    async with connected(url) as connection, _tap(connection, _offset(since)) as tap:
        end = None if follow else asyncio.create_task(_last(connection))
        if end is not None:
            end.add_done_callback(lambda _: tap.wake())
        try:
            async with contextlib.aclosing(_until(tap, end, progress)) as taken:
                async for bodies in taken:
                    for body in bodies:
                        if about is not None and not _may_mention(body, about):
                            continue
                        record = refused.read(body)
                        if record is not None and (since is None or record.at >= since):
                            yield record
        finally:
            refused.tell()
            if end is not None:
                end.cancel()
                await asyncio.gather(end, return_exceptions=True)


class _Tap:
    """What one consumer of the stream was sent and nobody has taken yet."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self.seen: int | None = None
        """The highest offset that was sent."""
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


async def _until(
    tap: _Tap, end: asyncio.Task[int | None] | None, progress: Callable[[int], None] | None
) -> AsyncGenerator[list[bytes], None]:
    """What comes, as long as the end has not come."""
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


async def _last(connection: AbstractConnection) -> int | None:
    """The offset of the last message that is in the stream now; None if it is empty."""
    async with _tap(connection, "last") as tap:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_QUIET):
                await tap.take(None)
                while await tap.take(_PAUSE):
                    pass
        return tap.seen


@contextlib.asynccontextmanager
async def _tap(connection: AbstractConnection, offset: str | datetime) -> AsyncIterator[_Tap]:
    """Consume the stream from an offset for as long as the context is open."""
    channel = await connection.channel(publisher_confirms=False)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    tap = _Tap(underlay)
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


def _offset(since: datetime | None) -> str | datetime:
    """Where a reader begins: the stream finds moments by its own clock, and only to a chunk."""
    if since is None or since <= _EPOCH + _SKEW:
        return "first"
    return (since - _SKEW).astimezone(UTC)


class _Refused:
    """What cannot be read: counted, and told once."""

    def __init__(self, *, follow: bool) -> None:
        self._follow = follow
        self._count = 0
        self._why = ""

    def read(self, body: bytes) -> Record | None:
        """The record that a body holds; None if it holds none."""
        try:
            return history.decode(body)
        except ValueError as error:
            self._count += 1
            self._why = self._why or str(error)[:200]
            if self._follow and self._count == 1:
                warn(f"A message in {topology.HISTORY} is no record; left out, as others like it: {self._why}")
            return None

    def tell(self) -> None:
        """Say how many were left out, unless the first of them has been told."""
        if self._count and not self._follow:
            warn(f"{self._count} of the messages in {topology.HISTORY} are no records; left out: {self._why}")


_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


def _may_mention(body: bytes, id_: str) -> bool:
    """Whether a body can tell of an id: cheap, and never wrong where it says no.

    >>> _may_mention(b'{"saga":"p-1"}', "p-1"), _may_mention(b'{"saga":"p-10"}', "p-1")
    (True, False)
    """
    if not _PLAIN.fullmatch(id_) or b"\\u" in body:
        return True  # JSON has several ways to write it
    return json.dumps(id_).encode() in body
