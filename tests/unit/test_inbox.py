"""The inbox: what nobody waits for gathers, what a saga waits for does not."""

from __future__ import annotations

import asyncio

import aiormq

from common.bus import Inbox
from common.channel import Channel, Delivery
from tests.support.eventually import eventually


def delivery(tag: int) -> Delivery:
    """Any delivery."""
    return Delivery(
        queue="payment.events",
        tag=tag,
        routing_key="queue.expired",
        body=b"{}",
        content_type=None,
        content_encoding=None,
        user_id=None,
        correlation_id=None,
        redelivered=False,
        headers={},
    )


class Acks(Channel):
    """A channel that keeps what is acked on it, and whether the broker may take it at once."""

    def __init__(self) -> None:
        self.acked: list[tuple[int, bool]] = []
        self.is_full = False
        self.error: Exception | None = None

    async def ack(self, tag: int, *, multiple: bool) -> None:
        """Keep it."""
        self.acked.append((tag, multiple))

    def ack_at_once(self, tag: int) -> None:
        """Keep it, or refuse."""
        if self.error is not None:
            raise self.error
        if self.is_full:
            self.is_full = False
            raise asyncio.QueueFull
        self.acked.append((tag, True))


def acking() -> tuple[Inbox, Acks]:
    """An inbox whose acks are kept."""
    channel = Acks()
    return Inbox("payment.events", channel, asyncio.Event()), channel


async def test_acks_gather_and_one_frame_says_them_all() -> None:
    """Each would cost the broker an entry in the log of the queue."""
    box, channel = acking()
    for tag in (1, 2, 3):
        await box.ack([delivery(tag)], all_before=True)
    assert channel.acked == []
    await eventually(lambda: channel.acked == [(3, True)])
    await box.ack([delivery(4)], all_before=True)
    await eventually(lambda: channel.acked == [(3, True), (4, True)])


async def test_many_acks_do_not_wait() -> None:
    """The broker sends no more than so many unanswered messages: under load it must hear soon."""
    box, channel = acking()
    await box.ack([delivery(1)], all_before=True)
    await box.ack([delivery(tag) for tag in range(2, 100)], all_before=True)
    assert channel.acked == [(99, True)]
    await box.ack_rest()
    assert channel.acked == [(99, True)], "nothing is left"


async def test_a_suspect_is_acked_at_once_and_all_before_it_first() -> None:
    """If the next message kills the process, it takes nobody along who is done."""
    box, channel = acking()
    await box.ack([delivery(1)], all_before=True)
    await box.ack([delivery(3), delivery(5)], all_before=False)
    assert channel.acked == [(1, True), (3, False), (5, False)]


async def test_an_ack_that_finds_no_room_is_said_later() -> None:
    """A timer cannot wait for the connection."""
    box, channel = acking()
    channel.is_full = True
    await box.ack([delivery(1)], all_before=True)
    await eventually(lambda: channel.acked == [(1, True)])


async def test_an_ack_on_a_lost_channel_is_no_error() -> None:
    """Its messages are delivered again, to whoever opens the next session."""
    box, channel = acking()
    channel.error = aiormq.exceptions.ChannelInvalidStateError("closed")
    await box.ack([delivery(1)], all_before=True)
    await eventually(lambda: box._acking is None)
    assert channel.acked == []


def inbox(arrived: asyncio.Event, *, gather: float = 0, pace: float = 0, batch: int = 3) -> Inbox:
    """An inbox that nothing is acked in."""
    return Inbox("payment.events", Channel.__new__(Channel), arrived, gather=gather, pace=pace, batch=batch)


async def test_a_message_that_somebody_waits_for_is_due_at_once() -> None:
    """The next step of a saga begins when this one is done."""
    arrived = asyncio.Event()
    box = inbox(arrived, gather=0)
    assert not box
    box.put(delivery(1))
    assert box
    assert arrived.is_set()
    assert [message.tag for message in box.take(10)] == [1]
    assert not box


async def test_messages_that_nobody_waits_for_gather() -> None:
    """Fifty completions a second would otherwise be fifty transactions."""
    arrived = asyncio.Event()
    box = inbox(arrived, gather=0.02)
    box.put(delivery(1))
    box.put(delivery(2))
    assert not box
    assert not arrived.is_set()
    async with asyncio.timeout(5):
        await arrived.wait()
    assert box
    assert [message.tag for message in box.take(10)] == [1, 2]


async def test_commands_that_come_close_together_go_together() -> None:
    """Each batch costs one in five services; but who comes alone must not pay for company that never comes."""
    arrived = asyncio.Event()
    box = inbox(arrived, pace=0.02)
    box.put(delivery(1))
    assert [message.tag for message in box.take(10)] == [1]
    arrived.clear()
    box.put(delivery(2))
    box.put(delivery(3))
    assert not box
    async with asyncio.timeout(5):
        await arrived.wait()
    assert [message.tag for message in box.take(10)] == [2, 3]
    assert not box


async def test_a_whole_batch_of_commands_keeps_no_pace() -> None:
    """Under load, nothing may be slower than it can be."""
    arrived = asyncio.Event()
    box = inbox(arrived, pace=3600)
    box.put(delivery(1))
    assert box.take(10)
    arrived.clear()
    for tag in (2, 3, 4):
        assert not box
        box.put(delivery(tag))
    assert box
    assert arrived.is_set()


async def test_a_whole_batch_does_not_wait() -> None:
    """Under load, gathering costs nothing."""
    arrived = asyncio.Event()
    box = inbox(arrived, gather=3600)
    for tag in range(1, 5):
        assert not box
        box.put(delivery(tag))
        if tag == 3:
            break
    assert box
    assert arrived.is_set()


async def test_what_is_left_by_a_batch_is_due() -> None:
    """It came with the others, and has waited as long."""
    arrived = asyncio.Event()
    box = inbox(arrived, gather=3600)
    for tag in range(1, 6):
        box.put(delivery(tag))
    assert [message.tag for message in box.take(3)] == [1, 2, 3]
    assert box
    assert [message.tag for message in box.take(3)] == [4, 5]
    assert not box
    box.put(delivery(6))
    assert not box, "and the next one waits for company again"
