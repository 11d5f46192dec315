"""The inbox: what nobody waits for gathers, what a saga waits for does not."""

from __future__ import annotations

import asyncio

from common.bus import Inbox
from common.channel import Channel, Delivery


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


def inbox(arrived: asyncio.Event, *, gather: float, batch: int = 3) -> Inbox:
    """An inbox that nothing is acked in."""
    return Inbox("payment.events", Channel.__new__(Channel), arrived, gather=gather, batch=batch)


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
