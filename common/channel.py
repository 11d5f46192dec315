"""One channel of the broker, batch-wise: what is published leaves as one write, what is delivered costs no task.

aiormq opens the channel and keeps it: declarations, cancellations, closing. Its own way to publish and to be
delivered costs several tasks and queues for each message, so this module goes around it in two places, and only
here: it puts encoded frames into the connection's queue of writes, and it takes the frames of messages and of
their confirms where the connection's reader hands them over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common import wire
from common.messages import MAX_BODY
from common.outbox import Confirmation, Confirmed, Unconfirmed, Unroutable

_CONFIRMED = Confirmed()
_UNROUTABLE = Unroutable()
_REFUSED = Unconfirmed("the broker refused it: a queue is full or has lost its leader")
#: Bytes that are kept of a body over the limit, for the person who looks what it was. A broker carries 16 MiB, or
#: 128, and hundreds of deliveries are held at once.
KEPT_OF_TOO_LARGE = 4 * 1024


@dataclass(frozen=True, slots=True)
class Publish:
    """A persistent message on its way to an exchange. `mandatory`: it must find a queue."""

    exchange: str
    routing_key: str
    body: bytes
    properties: wire.Properties
    mandatory: bool


@dataclass(slots=True)
class Delivery:
    """One message as it came, untouched: nothing of it is believed yet.

    `left_out`: bytes of a body over the limit that were not kept.
    """

    queue: str
    tag: int
    routing_key: str
    body: bytes
    content_type: str | None
    content_encoding: str | None
    user_id: str | None
    correlation_id: str | None
    redelivered: bool
    headers: Mapping[str, Any]
    left_out: int = 0


class Channel:
    """Publishes and consumes on one of aiormq's channels, which nobody else publishes or consumes on."""

    def __init__(self, underlay: aiormq.Channel) -> None:
        self._underlay = underlay
        self._frames = _Frames(underlay.frames)
        # `put` is all that the connection's reader knows of it, `get` all that the channel's reader does.
        underlay.frames = cast("asyncio.Queue[Any]", self._frames)
        self._writing = asyncio.Lock()
        self._published = 0
        self._consumer_tag = ""

    async def publish(self, messages: Sequence[Publish]) -> list[Confirmation]:
        """Publish all at once and wait for the broker's word on each, in the same order.

        Raises what aiormq raises when the channel or its connection is lost.
        """
        answers: dict[int, Confirmation] = {}
        waiting = list(range(len(messages)))
        while waiting:
            # A message that comes back is known by its message id alone: never two alike in flight.
            window: dict[str, int] = {}
            later: list[int] = []
            for index in waiting:
                name = messages[index].properties.message_id or ""
                if name in window:
                    later.append(index)
                else:
                    window[name] = index
            words = await self._publish([messages[index] for index in window.values()])
            answers.update(zip(window.values(), words, strict=True))
            waiting = later
        return [answers[index] for index in range(len(messages))]

    async def _publish(self, window: Sequence[Publish]) -> list[Confirmation]:
        underlay = self._underlay
        self._must_be_open()
        frames = b"".join([self._encoded(message) for message in window])
        # The future belongs to the channel, so it fails when the channel is lost.
        awaited = _Awaited([message.properties.message_id or "" for message in window], underlay.create_future())
        # One after the other: the broker counts messages in the order in which they are written.
        async with self._writing:
            await underlay.write_queue.put(ChannelFrame(payload=frames, should_close=False))
            # Nothing was awaited since it was put there, so no confirm can be here yet.
            self._frames.awaited.append((self._published, awaited))
            self._published += len(window)
        await awaited.all_answered
        return awaited.answers

    def let_go(self, message: Publish) -> None:
        """Publish on a channel without confirms, and never know. What cannot be written at once is lost.

        Raises asyncio.QueueFull or what aiormq raises, and never waits.
        """
        self._must_be_open()
        if self._is_blocked():
            raise asyncio.QueueFull
        frame = ChannelFrame(payload=self._encoded(message), should_close=False)
        self._underlay.write_queue.put_nowait(frame)

    def _must_be_open(self) -> None:
        if self._frames.is_closing or self._underlay.is_closed:
            raise aiormq.exceptions.ChannelInvalidStateError(f"channel {self._underlay.number} is closed")

    def _is_blocked(self) -> bool:
        """Whether the broker reads nothing from publishers (an alarm): what is written meanwhile piles up here."""
        unblocked = getattr(self._underlay.connection, "_Connection__connection_unblocked", None)
        return unblocked is not None and not unblocked.is_set()

    def _encoded(self, message: Publish) -> bytes:
        return wire.publish(
            self._underlay.number,
            exchange=message.exchange,
            routing_key=message.routing_key,
            body=message.body,
            properties=message.properties,
            mandatory=message.mandatory,
            body_limit=self._underlay.max_content_size,
        )

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        """Start to consume; `deliver` is called for each delivery, in order, and must only note it down."""
        self._frames.queue, self._frames.deliver = queue, deliver
        await self._underlay.basic_qos(prefetch_count=prefetch)
        answer = await self._underlay.basic_consume(queue, _unused)
        self._consumer_tag = answer.consumer_tag or ""

    async def stop_consuming(self) -> None:
        """Ask for no more deliveries."""
        await self._underlay.basic_cancel(self._consumer_tag)

    async def ack(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge a delivery; `multiple`: and all before it. Nobody answers an ack."""
        await self._underlay.basic_ack(tag, multiple=multiple, wait=False)

    def ack_at_once(self, tag: int) -> None:
        """Acknowledge a delivery and all before it, and never wait.

        Raises asyncio.QueueFull if the connection cannot take it, or what aiormq raises.
        """
        self._must_be_open()
        ack = ChannelFrame.marshall(self._underlay.number, [spec.Basic.Ack(tag, multiple=True)])
        self._underlay.write_queue.put_nowait(ack)


class _Awaited:
    """The broker's words on one window of messages."""

    def __init__(self, ids: Sequence[str], all_answered: asyncio.Future[Any]) -> None:
        self.answers: list[Confirmation] = [_CONFIRMED] * len(ids)
        self.all_answered = all_answered
        self._places = {name: place for place, name in enumerate(ids)}
        self._unanswered = set(range(len(ids)))
        self._low = 0

    def came_back(self, message_id: str) -> None:
        """Note that the broker returned a message; its confirm is still to come."""
        if message_id in self._places:
            self.answers[self._places[message_id]] = _UNROUTABLE

    def answer(self, last: int, *, multiple: bool, confirmed: bool) -> None:
        """Note the broker's word on the message at place `last`; `multiple`: and on all before it."""
        places = self._unanswered & (set(range(self._low, last + 1)) if multiple else {last})
        if not confirmed:
            for place in places:
                self.answers[place] = _REFUSED
        self._unanswered -= places
        self._low = max(self._low, last + 1) if multiple else self._low
        if not self._unanswered and not self.all_answered.done():
            self.all_answered.set_result(None)

    @property
    def is_answered(self) -> bool:
        """Whether nothing is missing."""
        return not self._unanswered


class _Frames:
    """Stands before a channel's queue of frames, and takes out what belongs to messages and to their confirms."""

    def __init__(self, frames: asyncio.Queue[tuple[int, Any]]) -> None:
        self.get, self.task_done = frames.get, frames.task_done
        self.queue = ""
        self.deliver: Callable[[Delivery], None] = _drop
        #: From the moment the broker has closed the channel: to publish on it then would end the whole connection.
        self.is_closing = False
        #: Windows that wait for confirms, oldest first, each with how many messages were published before it.
        self.awaited: deque[tuple[int, _Awaited]] = deque()
        self._pass_on = frames.put
        self._method: spec.Basic.Deliver | spec.Basic.Return | None = None
        self._properties = spec.Basic.Properties()
        self._body: list[bytes] = []
        self._missing = 0
        self._left_out = 0
        self._room = 0

    async def put(self, item: tuple[int, Any]) -> None:
        """Take a frame of a message or a confirm; pass on any other."""
        match item[1]:
            case spec.Basic.Deliver() | spec.Basic.Return() as method:
                self._method = method
            case ContentHeader(body_size=size, properties=properties) if self._method is not None:
                self._properties, self._missing, self._body = properties, size, []
                self._room = size if size <= MAX_BODY else KEPT_OF_TOO_LARGE
                self._left_out = size - self._room
                self._complete()
            case ContentBody(value=part) if self._method is not None:
                if self._room:
                    self._body.append(part[: self._room])
                    self._room -= len(self._body[-1])
                self._missing -= len(part)
                self._complete()
            case spec.Basic.Ack(delivery_tag=tag, multiple=multiple):
                self._confirm(tag or 0, multiple=multiple, confirmed=True)
            case spec.Basic.Nack(delivery_tag=tag, multiple=multiple):
                self._confirm(tag or 0, multiple=multiple, confirmed=False)
            case spec.Channel.Close():
                self.is_closing = True
                await self._pass_on(item)
            case _:
                await self._pass_on(item)

    def _complete(self) -> None:
        if self._missing > 0:
            return
        method, self._method = self._method, None
        if isinstance(method, spec.Basic.Return):
            for _, awaited in self.awaited:
                awaited.came_back(self._properties.message_id or "")
        elif method is not None:
            self.deliver(
                Delivery(
                    queue=self.queue,
                    tag=method.delivery_tag or 0,
                    routing_key=method.routing_key or "",
                    body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
                    content_type=self._properties.content_type,
                    content_encoding=self._properties.content_encoding,
                    user_id=self._properties.user_id,
                    correlation_id=self._properties.correlation_id,
                    redelivered=method.redelivered,
                    headers=self._properties.headers or {},
                    left_out=self._left_out,
                )
            )

    def _confirm(self, tag: int, *, multiple: bool, confirmed: bool) -> None:
        """Tell the windows; `tag` counts this channel's publishes from 1, `multiple` means all up to it."""
        for before, awaited in self.awaited:
            last = min(tag - before, len(awaited.answers)) - 1
            if last >= 0 and (multiple or tag - before - 1 == last):
                awaited.answer(last, multiple=multiple, confirmed=confirmed)
        while self.awaited and self.awaited[0][1].is_answered:
            self.awaited.popleft()


def _drop(delivery: Delivery) -> None:
    raise AssertionError(f"{delivery.queue} is not consumed here")


async def _unused(_: DeliveredMessage) -> None:
    """The callback that aiormq asks for; deliveries never get so far."""
