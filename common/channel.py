"""One channel of the broker, batch-wise: what is published leaves as one write, what is delivered costs no task.

aiormq opens the channel and keeps it: declarations, confirms, closing. Its own way to publish and to be delivered
costs several tasks and queues for each message, so this module goes around it in two places, and only here: it
puts encoded frames into the connection's queue of writes, with its own entries among the awaited confirms, and it
takes deliveries where the connection's reader hands them over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import aiormq
from aiormq.abc import ChannelFrame, DeliveredMessage
from aiormq.exceptions import PublishError
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common import wire
from common.outbox import Confirmation, Confirmed, Unconfirmed, Unroutable

_CONFIRMED = Confirmed()
_UNROUTABLE = Unroutable()


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
    """One message as it came, untouched: nothing of it is believed yet."""

    queue: str
    tag: int
    routing_key: str
    body: bytes
    content_type: str | None
    content_encoding: str | None
    user_id: str | None
    correlation_id: str | None
    headers: Mapping[str, Any]


class Channel:
    """Publishes and consumes on one of aiormq's channels."""

    def __init__(self, underlay: aiormq.Channel) -> None:
        self._underlay = underlay
        self._consumer_tag = ""

    async def publish(self, messages: Sequence[Publish]) -> list[Confirmation]:
        """Publish all at once and wait for the broker's word on each, in the same order.

        Raises what aiormq raises when the channel or its connection is lost.
        """
        answers: list[Confirmation] = [_CONFIRMED] * len(messages)
        waiting = list(range(len(messages)))
        while waiting:
            # A message that comes back is known by its message id alone: never two alike in flight.
            ids = set[str | None]()
            window: list[int] = []
            later: list[int] = []
            for index in waiting:
                name = messages[index].properties.message_id
                (later if name in ids else window).append(index)
                ids.add(name)
            await self._publish(messages, window, answers)
            waiting = later
        return answers

    async def _publish(
        self, messages: Sequence[Publish], window: Sequence[int], answers: list[Confirmation]
    ) -> None:
        underlay = self._underlay
        if underlay.is_closed:
            raise aiormq.exceptions.ChannelInvalidStateError(f"channel {underlay.number} is closed")
        # It belongs to the channel, so it fails when the channel is lost.
        all_answered = underlay.create_future()
        awaited = _Awaited(answers, len(window), all_answered)
        frames = []
        for index in window:
            message = messages[index]
            underlay.delivery_tag += 1
            underlay.confirmations[underlay.delivery_tag] = cast("asyncio.Future[Any]", _Slot(awaited, index))
            underlay.message_id_delivery_tag[message.properties.message_id or ""] = underlay.delivery_tag
            frames.append(
                wire.publish(
                    underlay.number,
                    exchange=message.exchange,
                    routing_key=message.routing_key,
                    body=message.body,
                    properties=message.properties,
                    mandatory=message.mandatory,
                    body_limit=underlay.max_content_size,
                )
            )
        # No await since the numbers were given out, so they are the broker's.
        underlay.write_queue.put_nowait(ChannelFrame(payload=b"".join(frames), should_close=False))
        try:
            await all_answered
        finally:
            for index in window:
                underlay.message_id_delivery_tag.pop(messages[index].properties.message_id or "", None)

    async def consume(self, queue: str, prefetch: int, deliver: Callable[[Delivery], None]) -> None:
        """Start to consume; `deliver` is called for each delivery, in order, and must only note it down."""
        await self._underlay.basic_qos(prefetch_count=prefetch)
        # `put` is all that the connection's reader knows of it.
        self._underlay.frames = cast("asyncio.Queue[Any]", _Deliveries(queue, self._underlay.frames, deliver))
        answer = await self._underlay.basic_consume(queue, _unused)
        self._consumer_tag = answer.consumer_tag or ""

    async def stop_consuming(self) -> None:
        """Ask for no more deliveries."""
        await self._underlay.basic_cancel(self._consumer_tag)

    async def ack(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge a delivery; `multiple`: and all before it. Nobody answers an ack."""
        await self._underlay.basic_ack(tag, multiple=multiple, wait=False)


@dataclass(slots=True)
class _Awaited:
    """The broker's words on one window of messages."""

    answers: list[Confirmation]
    missing: int
    all_answered: asyncio.Future[Any]

    def answer(self, index: int, word: Confirmation) -> None:
        """Note the broker's word on one message."""
        self.answers[index] = word
        self.missing -= 1
        if not self.missing and not self.all_answered.done():
            self.all_answered.set_result(None)


class _Slot:
    """One message's place among aiormq's confirms, where it expects a future."""

    __slots__ = ("_awaited", "_index")

    def __init__(self, awaited: _Awaited, index: int) -> None:
        self._awaited = awaited
        self._index = index

    def done(self) -> bool:
        """Aiormq takes a slot away before it answers it."""
        return False

    def set_result(self, _: object) -> None:
        """The broker confirmed it."""
        self._awaited.answer(self._index, _CONFIRMED)

    def set_exception(self, error: Exception) -> None:
        """It came back, or the broker refused it."""
        refused = Unconfirmed("the broker refused it: a queue is full or has lost its leader")
        self._awaited.answer(self._index, _UNROUTABLE if isinstance(error, PublishError) else refused)


class _Deliveries:
    """Stands before a channel's queue of frames, and takes the deliveries out of it."""

    def __init__(
        self, queue: str, frames: asyncio.Queue[tuple[int, Any]], deliver: Callable[[Delivery], None]
    ) -> None:
        self._queue = queue
        self._frames = frames
        self._deliver = deliver
        self._method: spec.Basic.Deliver | None = None
        self._header: ContentHeader
        self._body: list[bytes] = []
        self._missing = 0
        self.get, self.task_done = frames.get, frames.task_done

    async def put(self, item: tuple[int, Any]) -> None:
        """Take a frame of a delivery; pass on any other."""
        frame = item[1]
        if isinstance(frame, spec.Basic.Deliver):
            self._method = frame
        elif self._method is None:
            await self._frames.put(item)
        elif isinstance(frame, ContentHeader):
            self._header, self._missing, self._body = frame, frame.body_size, []
            self._check()
        elif isinstance(frame, ContentBody):
            self._body.append(frame.value)
            self._missing -= len(frame.value)
            self._check()
        else:
            await self._frames.put(item)

    def _check(self) -> None:
        if self._missing > 0 or self._method is None:
            return
        method, self._method = self._method, None
        properties = self._header.properties
        self._deliver(
            Delivery(
                queue=self._queue,
                tag=method.delivery_tag or 0,
                routing_key=method.routing_key or "",
                body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
                content_type=properties.content_type,
                content_encoding=properties.content_encoding,
                user_id=properties.user_id,
                correlation_id=properties.correlation_id,
                headers=properties.headers or {},
            )
        )


async def _unused(_: DeliveredMessage) -> None:
    """The callback that aiormq asks for; deliveries never get so far."""
