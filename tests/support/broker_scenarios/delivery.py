"""Who gets what, in which order, and what becomes of it when it is not acked."""

from __future__ import annotations

from typing import Any

from tests.support.broker_scenarios.base import bound
from tests.support.broker_stage import Stage


async def no_more_than_the_prefetch_is_out(stage: Stage) -> None:
    """A consumer gets as many as it may hold; each ack makes room for one."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(6):
        await client.publish("ex", "q", str(number))
    reader = await client.consume("q", prefetch=2)
    await client.waits("q", 4)
    await reader.arrived(2)
    first, second = await reader.some(2)
    await reader.ack(second)
    await client.waits("q", 3)
    await reader.arrived(1)
    third = await reader.next()
    await reader.ack(third, multiple=True)
    await client.waits("q", 1)
    await reader.arrived(2)
    stage.saw(first.body, second.body, third.body)


async def consumers_take_turns(stage: Stage) -> None:
    """Messages go to the consumers one after the other, while they have room."""
    client = await stage.client()
    await bound(client, "q")
    one = await (await client.sibling()).consume("q", prefetch=3)
    two = await (await client.sibling()).consume("q", prefetch=1)
    for number in range(6):
        await client.publish("ex", "q", str(number))
    await client.waits("q", 2)
    await one.arrived(3)
    await two.arrived(1)
    for _ in range(3):
        await one.ack(await one.next("one"))
    await one.arrived(2)
    await one.some(2, "one")
    await two.next("two")
    stage.saw(await client.looks("q"))


async def one_ack_can_answer_for_all_before(stage: Stage) -> None:
    """`multiple` acks all deliveries up to a tag; what came later is still out."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(5):
        await client.publish("ex", "q", str(number))
    other = await client.sibling()
    reader = await other.consume("q")
    delivered = await reader.some(5)
    await reader.ack(delivered[1])
    await reader.ack(delivered[3], multiple=True)
    await other.close_channel()
    await client.waits("q", 1)
    await client.read("q")


async def an_ack_of_an_unknown_tag_closes_the_channel(stage: Stage) -> None:
    """A tag that was never given, or was answered for already, is a fault; what was out goes back."""
    client = await stage.client()
    await bound(client, "q")
    await client.publish("ex", "q", "one")
    for tag_of in ("never given", "answered twice", "answered twice, multiple"):
        other = await client.sibling()
        reader = await other.consume("q")
        delivered = await reader.next(tag_of)
        if tag_of == "never given":
            await other.acks(99)
        else:
            await reader.nack(delivered, requeue=True)
            again = await reader.next("again")
            await other.acks(delivered.tag, multiple="multiple" in tag_of)
            stage.saw(again.body)
        await other.ends()
    await client.waits("q", 1)


async def what_comes_back_goes_first_and_is_counted(stage: Stage) -> None:
    """Each return of a message is counted, and it is delivered before those that wait; in order of return."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(5):
        await client.publish("ex", "q", str(number))
    reader = await client.consume("q", prefetch=3)
    zero, one, two = await reader.some(3)
    await reader.nack(two)
    two = await reader.next("again")
    await reader.nack(one)
    one = await reader.next("again")
    await reader.nack(zero)
    zero = await reader.next("again")
    await reader.nack(zero, multiple=True)
    for _ in range(3):
        await reader.ack(await reader.next("after all"))
    for _ in range(2):
        await reader.ack(await reader.next("the rest"))
    await client.waits("q", 0)


async def what_is_rejected_one_by_one_waits_in_that_order(stage: Stage) -> None:
    """With nobody to take them at once, messages wait in the order in which they came back."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(4):
        await client.publish("ex", "q", str(number))
    other = await client.sibling()
    reader = await other.consume("q", prefetch=3)
    zero, one, two = await reader.some(3)
    await reader.cancel()
    await reader.nack(one)
    await reader.nack(two)
    await reader.nack(zero)
    await client.waits("q", 4)
    await client.read("q", 4)


async def what_is_nacked_goes_last_where_there_is_no_limit(stage: Stage) -> None:
    """Without a delivery limit a nacked message goes behind all others; a lost one still goes first."""
    client = await stage.client()
    no_limit: dict[str, Any] = {} if stage.old else {"delivery_limit": -1}
    await bound(client, "q", **no_limit)
    for number in range(4):
        await client.publish("ex", "q", str(number))
    other = await client.sibling()
    reader = await other.consume("q", prefetch=2)
    zero, _ = await reader.some(2)
    await reader.cancel()
    await reader.nack(zero)
    await client.waits("q", 3)
    await other.close_channel()
    await client.waits("q", 4)
    await client.read("q", 4)


async def a_closed_channel_gives_everything_back(stage: Stage) -> None:
    """All that was out with a channel comes back in order, counted; its neighbours' stays out."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(6):
        await client.publish("ex", "q", str(number))
    leaving, staying = await client.sibling(), await client.sibling()
    gone = await leaving.consume("q", prefetch=2)
    await gone.arrived(2)
    kept = await staying.consume("q", prefetch=2)
    await kept.arrived(2)
    await leaving.close_channel()
    await client.waits("q", 4)
    await client.read("q", 4)
    for delivered in await kept.some(2, "kept"):
        await kept.ack(delivered)


async def a_closed_connection_gives_everything_back(stage: Stage) -> None:
    """Everything that was out with all channels of a connection comes back and is counted."""
    client, other = await stage.client(), await stage.client()
    await bound(client, "q")
    for number in range(4):
        await client.publish("ex", "q", str(number))
    # One consumer: in which order the channels of a connection end is nobody's promise.
    reader = await other.consume("q", prefetch=3)
    await reader.arrived(3)
    await reader.ack(await reader.next())
    await reader.arrived(3)
    await other.close()
    await client.waits("q", 3)
    await client.read("q", 3)


async def a_broken_connection_gives_everything_back(stage: Stage) -> None:
    """When a connection breaks without a word, what was out comes back and is counted, as after a goodbye."""
    client, other = await stage.client(), await stage.client(breakable=True)
    await bound(client, "q")
    for number in range(4):
        await client.publish("ex", "q", str(number))
    reader = await other.consume("q", prefetch=3)
    await reader.arrived(3)
    await reader.ack(await reader.next())
    await reader.arrived(3)
    await other.breaks()
    await client.waits("q", 3)
    await client.read("q", 3)


async def a_cancelled_consumer_still_answers(stage: Stage) -> None:
    """After a cancel nothing more is delivered; what is out stays out until it is answered for."""
    client = await stage.client()
    await bound(client, "q")
    for number in range(4):
        await client.publish("ex", "q", str(number))
    reader = await client.consume("q", prefetch=2)
    zero, one = await reader.some(2)
    await reader.cancel()
    await reader.ack(zero)
    await client.waits("q", 2)
    await reader.nack(one)
    await client.waits("q", 3)
    stage.saw(await client.looks("q"))
    await client.read("q", 3)


async def a_consumer_is_told_when_its_queue_is_deleted(stage: Stage) -> None:
    """Deleting a queue cancels its consumers; a late ack harms nobody, and the name is free."""
    client = await stage.client()
    await bound(client, "q")
    await client.publish("ex", "q", "one")
    await client.publish("ex", "q", "two")
    other = await client.sibling()
    reader = await other.consume("q", prefetch=1)
    delivered = await reader.next()
    await client.delete("q")
    await other.is_cancelled()
    await reader.ack(delivered)
    await client.publish("ex", "q", "to nobody", mandatory=True)
    await bound(client, "q")
    await client.waits("q", 0)
    await client.publish("ex", "q", "new", mandatory=True)
    await client.read("q")
