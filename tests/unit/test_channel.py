"""A channel's windows: each message gets the broker's word on itself, however the broker says it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import aiormq
import pytest
from aiormq.abc import ChannelFrame
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from common import wire
from common.channel import KEPT_OF_TOO_LARGE, Channel, Delivery, Publish
from common.messages import MAX_BODY
from common.outbox import Confirmation, Confirmed, Unconfirmed, Unroutable
from common.wire import Properties


class Underlay:
    """Stands in for aiormq's channel: what is written stays in its queue, and frames are put by hand."""

    number = 1
    max_content_size = 1000
    is_closed = False

    def __init__(self, room: int = 0) -> None:
        self.connection: Any = SimpleNamespace(_Connection__connection_unblocked=asyncio.Event())
        self.connection._Connection__connection_unblocked.set()
        self.frames: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        self.write_queue: asyncio.Queue[ChannelFrame] = asyncio.Queue(room)
        self.futures: list[asyncio.Future[Any]] = []

    def create_future(self) -> asyncio.Future[Any]:
        """A future that fails when the channel is lost."""
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    async def says(self, *frames: Any) -> None:  # noqa: ANN401 - pamqp's frames have no type in common
        """The broker says something."""
        for frame in frames:
            await self.frames.put((1, frame))


def opened(room: int = 0) -> tuple[Underlay, Channel]:
    """A channel over such an underlay."""
    underlay = Underlay(room)
    return underlay, Channel(cast("aiormq.Channel", underlay))


def messages(*ids: str) -> list[Publish]:
    """Messages with these ids."""
    return [Publish("e", "k", name.encode(), Properties(message_id=name), mandatory=True) for name in ids]


def back(name: str) -> tuple[Any, ...]:
    """The frames by which the broker returns a message."""
    properties = wire.read_properties(b"\0\x3c\0\0" + bytes(8) + b"\x00\x80" + bytes((len(name),)) + name.encode())
    return (spec.Basic.Return(312, "NO_ROUTE", "e", "k"), ContentHeader(0, 1, properties), ContentBody(b"x"))


async def begun(channel: Channel, *ids: str) -> asyncio.Task[list[Confirmation]]:
    """Publishing that waits for the broker."""
    task = asyncio.create_task(channel.publish(messages(*ids)))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def words(answers: list[Confirmation]) -> str:
    """The broker's words in one letter each."""
    return "".join({Confirmed: "c", Unroutable: "u", Unconfirmed: "n"}[type(answer)] for answer in answers)


async def test_a_window_is_one_write() -> None:
    """The broker answers packets, not messages."""
    underlay, channel = opened()
    task = await begun(channel, "a", "b", "c")
    assert underlay.write_queue.qsize() == 1
    await underlay.says(spec.Basic.Ack(3, multiple=True))
    assert words(await task) == "ccc"


async def test_each_message_gets_its_own_word_in_any_order() -> None:
    """Confirms come late, together and mixed with refusals and returns; none is taken for another's."""
    underlay, channel = opened()
    first, second = await begun(channel, "a", "b", "c", "d"), await begun(channel, "e", "f")
    await underlay.says(spec.Basic.Nack(6), *back("b"), spec.Basic.Ack(2), spec.Basic.Nack(4))
    assert not first.done()
    await underlay.says(spec.Basic.Ack(5, multiple=True))
    assert words(await first) == "cucn"
    assert words(await second) == "cn"


async def test_two_messages_of_one_id_are_never_in_flight_together() -> None:
    """One that comes back is known by its id alone."""
    underlay, channel = opened()
    task = await begun(channel, "a", "b", "a")
    await underlay.says(*back("a"), spec.Basic.Ack(2, multiple=True))
    for _ in range(5):
        await asyncio.sleep(0)
    assert underlay.write_queue.qsize() == 2
    await underlay.says(spec.Basic.Ack(3))
    assert words(await task) == "ucc"


async def test_windows_are_written_in_the_order_of_their_numbers_when_there_is_no_room() -> None:
    """The broker counts what it gets; a window that overtook another would take its confirms."""
    underlay, channel = opened(room=1)
    tasks = [await begun(channel, name) for name in ("a", "b", "c")]
    written = [(await underlay.write_queue.get()).payload for _ in range(3)]
    assert [name in payload for name, payload in zip((b"a", b"b", b"c"), written, strict=True)] == [True] * 3
    await underlay.says(spec.Basic.Nack(2), spec.Basic.Ack(3), spec.Basic.Ack(1))
    assert [words(await task) for task in tasks] == ["c", "n", "c"]


async def test_a_window_fails_when_its_channel_is_lost() -> None:
    """Nobody knows what became of it: the session ends, and it is published again in the next one."""
    underlay, channel = opened()
    task = await begun(channel, "a")
    underlay.futures[0].set_exception(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await task
    underlay.is_closed = True
    with pytest.raises(aiormq.exceptions.ChannelInvalidStateError):
        await channel.publish(messages("b"))


async def test_a_delivery_is_put_together_from_its_frames_and_all_else_is_passed_on() -> None:
    """Bodies of none, one and several frames; what is aiormq's business reaches aiormq."""
    underlay, channel = opened()
    passed = underlay.frames
    got: list[Delivery] = []
    channel._frames.queue, channel._frames.deliver = "q", got.append
    ours = spec.Basic.Properties()
    deliver = spec.Basic.Deliver("tag", 1, redelivered=True, exchange="e", routing_key="k")
    await underlay.says(deliver, ContentHeader(0, 4, ours), ContentBody(b"ab"), spec.Basic.CancelOk("tag"))
    assert got == []
    await underlay.says(ContentBody(b"cd"), deliver, ContentHeader(0, 0, ours))
    assert [(one.body, one.redelivered, one.routing_key, one.queue) for one in got] == [
        (b"abcd", True, "k", "q"),
        (b"", True, "k", "q"),
    ]
    _, frame = await passed.get()
    assert isinstance(frame, spec.Basic.CancelOk)


@pytest.mark.parametrize("frame", [1_000, 5_000, 200_000])
@pytest.mark.parametrize("size", [0, 1, MAX_BODY, MAX_BODY + 1, 150_000])
async def test_of_a_body_over_the_limit_only_the_beginning_is_kept(size: int, frame: int) -> None:
    """The broker carries megabytes, and hundreds of deliveries are held at once; within the limit all is kept."""
    underlay, channel = opened()
    got: list[Delivery] = []
    channel._frames.deliver = got.append
    body = bytes(number % 251 for number in range(size))
    for tag in (1, 2):
        await underlay.says(
            spec.Basic.Deliver("ctag", tag, exchange="e", routing_key="k"),
            ContentHeader(0, size, spec.Basic.Properties()),
            *(ContentBody(body[start : start + frame]) for start in range(0, size, frame)),
        )
    kept = size if size <= MAX_BODY else KEPT_OF_TOO_LARGE
    assert [delivery.tag for delivery in got] == [1, 2]
    assert {delivery.body for delivery in got} == {body[:kept]}
    assert {delivery.left_out for delivery in got} == {size - kept}


async def test_what_is_let_go_is_written_and_nobody_waits() -> None:
    """The history is told without a word from the broker."""
    underlay, channel = opened(room=1)
    channel.let_go(messages("a")[0])
    assert b"a" in underlay.write_queue.get_nowait().payload
    assert not channel._frames.awaited


async def test_what_cannot_be_written_at_once_is_lost_and_not_waited_for() -> None:
    """A connection that is behind must not become a place where records pile up."""
    underlay, channel = opened(room=1)
    channel.let_go(messages("a")[0])
    with pytest.raises(asyncio.QueueFull):
        channel.let_go(messages("b")[0])
    underlay.write_queue.get_nowait()
    underlay.connection._Connection__connection_unblocked.clear()
    with pytest.raises(asyncio.QueueFull):
        channel.let_go(messages("c")[0])


async def test_nothing_is_published_on_a_channel_that_the_broker_has_closed() -> None:
    """Aiormq takes some turns to close it, and one frame on a closed channel ends the whole connection."""
    underlay, channel = opened()
    await underlay.says(spec.Channel.Close(403, "ACCESS_REFUSED", 0, 0))
    assert underlay.is_closed is False
    with pytest.raises(aiormq.exceptions.ChannelInvalidStateError):
        channel.let_go(messages("a")[0])
    with pytest.raises(aiormq.exceptions.ChannelInvalidStateError):
        await channel.publish(messages("a"))
    assert underlay.write_queue.empty()
