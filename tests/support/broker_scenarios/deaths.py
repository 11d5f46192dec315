"""Giving up: delivery limits and rejections, and what a dead letter tells of its death."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.support.broker_scenarios.base import AT_LEAST_ONCE, LONG, SHORT, bound, mortal, passes, to_the_dead
from tests.support.broker_stage import Stage


async def a_message_that_comes_back_too_often_dies(stage: Stage) -> None:
    """After so many returns a message goes to the dead queue, and tells what happened to it."""
    client = await stage.client()
    await mortal(client, delivery_limit=2)
    await client.publish("ex", "work", "deadly", message_id="m", headers={"kept": "yes"})
    await client.publish("ex", "work", "neighbour")
    reader = await client.consume("work", prefetch=1)
    for _ in range(3):
        await reader.nack(await reader.next())
    await reader.ack(await reader.next())
    await client.read("dead")
    await client.waits("work", 0)


async def neighbours_that_were_prefetched_die_too(stage: Stage) -> None:
    """Every lost channel counts for all that it held: innocent messages die of a deadly neighbour."""
    client = await stage.client()
    await mortal(client, delivery_limit=1)
    for number in range(3):
        await client.publish("ex", "work", str(number))
    for dead in (0, 3):
        other = await client.sibling()
        reader = await other.consume("work")
        await reader.arrived(3)
        await other.close_channel()
        await client.waits("dead", dead)
    await client.read("dead", 3)


async def a_limit_below_nothing(stage: Stage) -> None:
    """A delivery limit of -1 means none to RabbitMQ 4, and death at the first return to RabbitMQ 3."""
    client = await stage.client()
    await mortal(client, delivery_limit=-1)
    await client.publish("ex", "work", "one")
    reader = await client.consume("work")
    await reader.nack(await reader.next())
    if stage.old:
        await client.read("dead")
    else:
        await reader.ack(await reader.next())
    await client.waits("work", 0)


async def a_limit_by_default(stage: Stage) -> None:
    """Where no argument says so, RabbitMQ 4 gives a message up after 20 returns, and RabbitMQ 3 never."""
    client = await stage.client()
    await mortal(client)
    await client.publish("ex", "work", "one")
    reader = await client.consume("work")
    for _ in range(21):
        await reader.nack(await reader.next())
    if stage.old:
        await reader.ack(await reader.next())
    else:
        await client.read("dead")
    await client.waits("work", 0)


async def what_is_rejected_dies(stage: Stage) -> None:
    """A nack without requeue is a dead letter, of one message or of several, in order."""
    client = await stage.client()
    await mortal(client)
    for number in range(3):
        await client.publish("ex", "work", str(number))
    reader = await client.consume("work")
    zero, one, two = await reader.some(3)
    await reader.nack(two, requeue=False)
    await client.read("dead")
    await reader.nack(one, multiple=True, requeue=False)
    await client.read("dead", 2)
    stage.saw(zero.body)
    await bound(client, "no dead letters")
    await client.publish("ex", "no dead letters", "dropped")
    last = await (await client.sibling()).consume("no dead letters")
    await last.nack(await last.next(), requeue=False)
    await client.waits("no dead letters", 0)


async def a_dead_letter_keeps_its_keys_without_one_of_its_own(stage: Stage) -> None:
    """With no dead-letter key, the keys it was published with lead on, copies included; with one, they do not."""
    client = await stage.client()
    await bound(client, "dead", "own", "copy", exchange="dlx")
    await bound(client, "dead too", "copy", exchange="dlx")
    await bound(client, "dead in secret", "hidden", exchange="dlx")
    await bound(client, "own", dead_letter_exchange="dlx", **AT_LEAST_ONCE)
    await client.publish("ex", "own", "with a copy", headers={"CC": ["copy"], "BCC": ["hidden"]})
    reader = await client.consume("own")
    await reader.nack(await reader.next(), requeue=False)
    await client.read("dead")
    await client.read("dead too")
    await client.read("dead in secret")
    await mortal(client)
    await bound(client, "other", **to_the_dead())
    await client.publish("ex", "other", "with a copy", headers={"CC": ["copy"], "BCC": ["hidden"]})
    last = await client.consume("other")
    await last.nack(await last.next(), requeue=False)
    await client.read("dead")


async def a_lost_channel_counts_twice(stage: Stage) -> None:
    """RabbitMQ 4 takes failures, not nacks, along with a dead letter and shows them, but does not count on."""
    client = await stage.client()
    await bound(client, "last", "last", exchange="dlx")
    dead = {"dead_letter_exchange": "dlx", **AT_LEAST_ONCE}
    await bound(client, "second", exchange="dlx", delivery_limit=4, dead_letter_routing_key="last", **dead)
    await bound(client, "first", delivery_limit=10, dead_letter_routing_key="second", **dead)
    await client.publish("ex", "first", "much travelled")
    for queue, steps in (("first", "nncncr"), ("second", "nncnn")):
        other = await client.sibling()
        reader = await other.consume(queue)
        for step in steps:
            delivered = await reader.next(f"{queue} {step}")
            if step == "c":
                await other.close_channel()
                other = await client.sibling()
                reader = await other.consume(queue)
            else:
                await reader.nack(delivered, requeue=step == "n")
    await client.read("last")


async def a_count_of_returns_goes_with_a_dead_letter(stage: Stage) -> None:
    """What a dead letter tells of the deliveries where it died depends on how it died."""
    client = await stage.client()
    await mortal(client, delivery_limit=10)
    reader = await client.consume("work")
    await client.publish("ex", "work", "rejected")
    await reader.nack(await reader.next())
    await reader.nack(await reader.next())
    await reader.nack(await reader.next(), requeue=False)
    await client.read("dead")
    await client.publish("ex", "work", "expired", expiration=str(LONG))
    await reader.nack(await reader.next())
    await reader.nack(await reader.next())
    last = await reader.next()
    await passes(client, LONG + SHORT)
    await reader.nack(last)
    await client.read("dead")
    await reader.cancel()
    await client.publish("ex", "work", "lost, then expired", expiration=str(LONG))
    other = await client.sibling()
    lost = await other.consume("work")
    await lost.next()
    await other.close_channel()
    await client.read("dead")


async def deaths_of_the_same_kind_are_counted(stage: Stage) -> None:
    """A message that is rejected, goes round and is rejected again has one entry with a count."""
    client = await stage.client()
    dead = {"dead_letter_exchange": "ex", **AT_LEAST_ONCE}
    await bound(client, "wait", message_ttl=SHORT, dead_letter_routing_key="work", **dead)
    await bound(client, "work", dead_letter_routing_key="wait", **dead)
    await client.publish("ex", "work", "round and round")
    reader = await client.consume("work")
    for _ in range(3):
        await reader.nack(await reader.next(), requeue=False)
    await reader.ack(await reader.next())
    await client.waits("wait", 0)


async def deaths_that_a_client_tells_of(stage: Stage) -> None:
    """RabbitMQ 4 does not believe a death record that a client published; RabbitMQ 3 counts on."""
    client = await stage.client()
    await mortal(client)
    death = {
        "count": 5,
        "reason": "rejected",
        "queue": "work",
        "exchange": "ex",
        "routing-keys": ["work"],
        "time": datetime(2020, 1, 1, tzinfo=UTC),
    }
    headers = {"x-death": [death], "x-first-death-queue": "made-up", "x-first-death-reason": "rejected"}
    await client.publish("ex", "work", "foreign deaths", headers=headers)
    reader = await client.consume("work")
    await reader.nack(await reader.next(), requeue=False)
    await client.read("dead")
