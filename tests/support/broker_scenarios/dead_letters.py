"""The way of dead letters: at least once or at most, round in circles, waiting for a target."""

from __future__ import annotations

from typing import Any

from tests.support.broker_scenarios.base import AT_LEAST_ONCE, LONG, SHORT, bound, passes, to_the_dead
from tests.support.broker_stage import Stage


async def a_dead_letter_goes_from_queue_to_queue(stage: Stage) -> None:
    """Retry to return to events: the key changes, and the record of its deaths grows, newest first."""
    client = await stage.client()
    await bound(client, "last", "final", exchange="dlx")
    dead: dict[str, Any] = {"dead_letter_exchange": "dlx", **AT_LEAST_ONCE}
    await bound(
        client, "two", "second", exchange="dlx", message_ttl=SHORT, dead_letter_routing_key="final", **dead
    )
    await bound(client, "one", message_ttl=SHORT, dead_letter_routing_key="second", **dead)
    await client.publish("ex", "one", "traveller", headers={"CC": ["nowhere"], "kept": 1}, expiration="60000")
    await client.read("last")


async def a_circle_without_a_rejection_is_no_way(stage: Stage) -> None:
    """A message that would expire its way back into the queue it died in is not let in again; others get it."""
    client = await stage.client()
    # At most once: it is dropped. At least once it would be kept, in vain, for ever.
    dead: dict[str, Any] = {"dead_letter_exchange": "ex", "message_ttl": SHORT}
    await bound(client, "two", dead_letter_routing_key="one", **dead)
    await bound(client, "one", dead_letter_routing_key="two", **dead)
    await bound(client, "witness", "one", "two")
    await client.publish("ex", "one", "round and round")
    await client.read("witness", 3)
    await passes(client, LONG)
    for queue in ("one", "two", "witness"):
        await client.waits(queue, 0)


async def a_dead_letter_waits_until_there_is_a_target(stage: Stage) -> None:
    """At least once: without a target it is kept, ready for nobody, and goes when the target is bound."""
    client = await stage.client()
    await client.exchange("dlx")
    await bound(client, "work", message_ttl=SHORT, **to_the_dead())
    for number in range(3):
        await client.publish("ex", "work", str(number))
    await client.waits("work", 0)
    await bound(client, "dead", "gone", exchange="dlx")
    await client.read("dead", 3)


async def a_dead_letter_waits_until_there_is_an_exchange(stage: Stage) -> None:
    """The same, when not even the exchange is there."""
    client = await stage.client()
    await bound(client, "work", message_ttl=SHORT, **to_the_dead())
    await client.publish("ex", "work", "early")
    await client.waits("work", 0)
    await bound(client, "dead", "gone", exchange="dlx")
    await client.read("dead")


async def a_dead_letter_waits_until_its_target_has_room(stage: Stage) -> None:
    """A target that refuses because it is full gets the dead letter later."""
    client = await stage.client()
    await bound(client, "dead", "gone", exchange="dlx", max_length=1, overflow="reject-publish")
    for number in range(3):
        await client.publish("dlx", "gone", f"in the way {number}")
    await bound(client, "work", message_ttl=SHORT, **to_the_dead())
    await client.publish("ex", "work", "patient")
    await client.waits("work", 0)
    await client.waits("dead", 2)
    await client.read("dead", 3)
    await client.waits("dead", 0)


async def without_at_least_once_a_dead_letter_can_be_lost(stage: Stage) -> None:
    """At most once: without a target it is gone."""
    client = await stage.client()
    await client.exchange("dlx")
    once = {"dead_letter_exchange": "dlx", "dead_letter_routing_key": "gone"}
    await bound(client, "work", message_ttl=SHORT, **once)
    # Without reject-publish the strategy is not followed.
    await bound(client, "half", message_ttl=SHORT, dead_letter_strategy="at-least-once", **once)
    await client.publish("ex", "work", "lost")
    await client.publish("ex", "half", "lost as well")
    await client.waits("work", 0)
    await client.waits("half", 0)
    await bound(client, "dead", "gone", exchange="dlx")
    for queue in ("work", "half"):
        await client.publish("ex", queue, f"in time for {queue}")
        await client.read("dead")
    await passes(client, LONG)
    await client.waits("dead", 0)


async def dead_letters_that_cannot_leave_hold_up_the_others(stage: Stage) -> None:
    """At least once, 32 are under way at a time: so many without a target let nobody past, one fewer does."""
    client = await stage.client()
    await bound(client, "dead", "known", exchange="dlx")
    await bound(client, "work", "#", message_ttl=SHORT, dead_letter_exchange="dlx", **AT_LEAST_ONCE)
    for number in range(31):
        await client.publish("ex", "unknown", str(number))
    await client.publish("ex", "known", "past 31")
    await client.read("dead")
    await client.publish("ex", "unknown", "the 32nd")
    await client.waits("work", 0)
    await client.publish("ex", "known", "held up by 32")
    await client.waits("work", 0)
    await client.waits("dead", 0)
    await client.bind("dead", "dlx", "unknown")
    await client.read("dead", 33)


async def a_dead_letter_goes_again_only_where_it_has_not_arrived(stage: Stage) -> None:
    """Of two targets one is full: the other gets the dead letter once, however often it is sent again."""
    client = await stage.client()
    await bound(client, "full", "gone", exchange="dlx", max_length=1, overflow="reject-publish")
    for number in range(3):
        await client.publish("dlx", "gone", f"in the way {number}")
    await bound(client, "free", "gone", exchange="dlx")
    await bound(client, "work", message_ttl=SHORT, **to_the_dead())
    await client.publish("ex", "work", "patient")
    await client.waits("free", 1)
    await passes(client, LONG)
    await client.waits("free", 1)
    await client.read("full", 3)
    await client.waits("full", 0)
    await client.waits("free", 1)
