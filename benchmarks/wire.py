"""As much of AMQP 0-9-1 as a driver needs, and no more: it shares the machine with those it measures.

Frames of commands are made before the clock runs. What comes in is taken apart as far as the consumer tag and the
correlation id; bodies are skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit

from pamqp import commands as spec
from pamqp import frame as frames
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader, ProtocolHeader

from benchmarks.contender import Letter

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
_BASIC = 60
_DELIVER, _RETURN, _ACK, _NACK = 60, 50, 80, 120
_FRAME_MAX = 131_072
_CHANNEL = 1
_PERSISTENT = 2

#: Called with the consumer tag and the correlation id of a delivery.
Heard = Callable[[bytes, bytes], None]


class WireError(Exception):
    """The broker closed the connection or the channel, or returned a command: the driver gives up."""


class Wire(asyncio.Protocol):
    """One connection with one channel: publishes frames, counts confirms, tells of deliveries."""

    def __init__(self, heard: Heard) -> None:
        self.confirmed = 0
        """Up to which command, counted from 1, all are answered."""
        self.refused = 0
        self.changed: Callable[[], None] = lambda: None
        """Called after each portion that came in."""
        self._heard = heard
        self._transport: asyncio.Transport
        self._rest = b""
        self._answers: asyncio.Queue[Frame] = asyncio.Queue()
        self._consumer = b""
        self._confirmed_early = set[int]()
        self._error: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self, url: str, name: str) -> None:
        """Log in and open a channel with confirms."""
        self._transport.write(ProtocolHeader().marshal())
        await self._answer(spec.Connection.Start)
        address = urlsplit(url)
        user, password = unquote(address.username or "guest"), unquote(address.password or "guest")
        self._send(
            spec.Connection.StartOk(
                client_properties={"connection_name": name, "capabilities": {"publisher_confirms": True}},
                mechanism="PLAIN",
                response=f"\0{user}\0{password}",
            ),
            channel=0,
        )
        await self._answer(spec.Connection.Tune)
        self._send(spec.Connection.TuneOk(channel_max=16, frame_max=_FRAME_MAX, heartbeat=0), channel=0)
        self._send(spec.Connection.Open(virtual_host=unquote(address.path[1:]) or "/"), channel=0)
        await self._answer(spec.Connection.OpenOk)
        await self.ask(spec.Channel.Open(), spec.Channel.OpenOk)
        await self.ask(spec.Confirm.Select(), spec.Confirm.SelectOk)

    async def ask(self, question: Frame, kind: type[Any]) -> Any:  # noqa: ANN401 - whatever kind of answer was asked for
        """Send a method on the channel and wait for its answer."""
        self._send(question, channel=_CHANNEL)
        return await self._answer(kind)

    def publish(self, frame: bytes) -> None:
        """Send a command that `encode` has made."""
        self._transport.write(frame)

    async def failed(self) -> None:
        """Wait for what must not happen, and raise it."""
        await asyncio.shield(self._error)

    def close(self) -> None:
        """Say goodbye without waiting for an answer."""
        if not self._transport.is_closing():
            self._send(spec.Connection.Close(reply_code=200, reply_text="", class_id=0, method_id=0), channel=0)
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._fail(f"the connection was lost: {exc}")

    def data_received(self, portion: bytes) -> None:
        """Take whole frames apart and keep the rest."""
        data = self._rest + portion if self._rest else portion
        at, end = 0, len(data)
        while end - at >= 8:
            size = int.from_bytes(data[at + 3 : at + 7], "big")
            after = at + 8 + size
            if after > end:
                break
            kind = data[at]
            if kind == _HEADER:
                self._heard(self._consumer, _correlation_id(data, at + 7))
            elif kind == _METHOD:
                self._method(data, at, after)
            at = after
        self._rest = data[at:]
        self.changed()

    def _method(self, data: bytes, at: int, after: int) -> None:
        start = at + 7
        class_id = int.from_bytes(data[start : start + 2], "big")
        method_id = int.from_bytes(data[start + 2 : start + 4], "big")
        if class_id == _BASIC and method_id == _DELIVER:
            self._consumer = data[start + 5 : start + 5 + data[start + 4]]
        elif class_id == _BASIC and method_id in {_ACK, _NACK}:
            # A refusal fails the run, whichever command it was: only how many matters.
            self._confirm(int.from_bytes(data[start + 4 : start + 12], "big"), multiple=bool(data[start + 12] & 1))
            self.refused += method_id == _NACK
        elif class_id == _BASIC and method_id == _RETURN:
            self._fail("a command was returned: nobody takes it")
        else:
            _, _, answer = frames.unmarshal(data[at:after])
            assert isinstance(answer, Frame)
            if isinstance(answer, spec.Connection.Close | spec.Channel.Close):
                self._fail(f"the broker closed: {answer.reply_text}")
            elif not isinstance(answer, spec.Basic.Cancel):
                self._answers.put_nowait(answer)
            else:
                self._fail("the broker cancelled the driver's consumer")

    def _confirm(self, tag: int, *, multiple: bool) -> None:
        """Count what is answered; answers come in any order."""
        if multiple:
            self.confirmed = max(self.confirmed, tag)
            self._confirmed_early = {early for early in self._confirmed_early if early > tag}
        else:
            self._confirmed_early.add(tag)
        while self.confirmed + 1 in self._confirmed_early:
            self.confirmed += 1
            self._confirmed_early.remove(self.confirmed)

    def _send(self, method: Frame, *, channel: int) -> None:
        self._transport.write(frames.marshal(method, channel))

    async def _answer(self, kind: type[Any]) -> Any:  # noqa: ANN401 - as above
        answering = asyncio.ensure_future(self._answers.get())
        both: set[asyncio.Future[Any]] = {answering, self._error}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._error.done():
            answering.cancel()
            self._error.result()
        answer = answering.result()
        if not isinstance(answer, kind):
            raise WireError(f"expected {kind.__name__}, got {answer.name}")
        return answer

    def _fail(self, why: str) -> None:
        if not self._error.done():
            self._error.set_exception(WireError(why))
            # Whoever waits gets it; if nobody does, the work was over.
            self._error.exception()


async def connect(url: str, name: str, heard: Heard) -> Wire:
    """Connect to the broker at `url`."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(
        lambda: Wire(heard), address.hostname or "127.0.0.1", address.port or 5672
    )
    await wire.open(url, name)
    return wire


def encode(letter: Letter) -> bytes:
    """The frames that publish a letter: persistent and mandatory."""
    properties = spec.Basic.Properties(**{"delivery_mode": _PERSISTENT, **letter.properties})
    publish = spec.Basic.Publish(exchange=letter.exchange, routing_key=letter.routing_key, mandatory=True)
    header = ContentHeader(body_size=len(letter.body), properties=properties)
    return b"".join(frames.marshal(part, _CHANNEL) for part in (publish, header, ContentBody(letter.body)))


def _correlation_id(data: bytes, start: int) -> bytes:
    """The correlation id in a content header whose payload begins at `start`; empty if there is none."""
    flags = int.from_bytes(data[start + 12 : start + 14], "big")
    at = start + 14
    if not flags & 1 << 10:
        return b""
    if flags & 1 << 15:  # content type
        at += 1 + data[at]
    if flags & 1 << 14:  # content encoding
        at += 1 + data[at]
    if flags & 1 << 13:  # headers
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    at += (flags >> 12 & 1) + (flags >> 11 & 1)  # delivery mode, priority
    return data[at + 1 : at + 1 + data[at]]
