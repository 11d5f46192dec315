"""Times to live: of the queue, of the message, and only at the head."""

from __future__ import annotations

from tests.support.broker_scenarios.base import LONG, SHORT, bound, mortal, passes, to_the_dead
from tests.support.broker_stage import Stage


async def a_queue_lets_messages_expire(stage: Stage) -> None:
    """The queue's time to live counts for each message, and each dies for the reason that it expired."""
    client = await stage.client()
    await mortal(client, message_ttl=SHORT)
    for number in range(3):
        await client.publish("ex", "work", str(number))
    await client.waits("dead", 3)
    await client.read("dead", 3)
    await client.waits("work", 0)


async def a_message_can_expire_sooner_than_its_queue_says(stage: Stage) -> None:
    """The smaller of the queue's and the message's time counts; the message's own is told, and taken away."""
    client = await stage.client()
    await mortal(client, message_ttl=60_000)
    await client.publish("ex", "work", "sooner", expiration=str(SHORT))
    await client.read("dead")
    await bound(client, "quick", message_ttl=SHORT, **to_the_dead())
    await client.publish("ex", "quick", "not later", expiration="60000")
    await client.read("dead")
    await bound(client, "patient", **to_the_dead())
    await client.publish("ex", "patient", "its own time", expiration=str(SHORT))
    await client.read("dead")


async def only_the_head_of_a_queue_expires(stage: Stage) -> None:
    """A message that has run out waits behind one that has not; then both go, in order."""
    client = await stage.client()
    await mortal(client)
    await client.publish("ex", "work", "long", expiration=str(LONG))
    await client.publish("ex", "work", "short", expiration=str(SHORT))
    await client.publish("ex", "work", "for ever")
    await passes(client, 2 * SHORT)
    await client.waits("work", 3)
    await client.read("dead", 2)
    await client.read("work")


async def what_is_out_does_not_expire_until_it_comes_back(stage: Stage) -> None:
    """A consumer may keep a message past its time; returned late, it is given up at once."""
    client = await stage.client()
    await mortal(client, message_ttl=LONG)
    await client.publish("ex", "work", "kept")
    reader = await client.consume("work")
    kept = await reader.next()
    await client.publish("ex", "work", "kept as well")
    await reader.next()
    await passes(client, LONG + SHORT)
    await reader.nack(kept)
    await client.read("dead")


async def a_message_without_time_dies_at_once(stage: Stage) -> None:
    """An expiration of 0 lets nobody see the message who is not there, nor one who is."""
    client = await stage.client()
    await mortal(client)
    await client.publish("ex", "work", "nobody is there", expiration="0")
    await client.read("dead")
    await client.consume("work")
    await client.publish("ex", "work", "somebody is there", expiration="0")
    await client.waits("work", 0)
    await client.publish("ex", "work", "a marker")
