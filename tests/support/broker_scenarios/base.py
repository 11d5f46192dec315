"""What the scenarios build on: queues that are bound, queues whose messages die, and how long things take."""

from __future__ import annotations

from typing import Any

from tests.support.broker_stage import Client

#: Milliseconds: long enough to be seen before they are over, also on a busy machine.
SHORT, LONG = 600, 3600
#: Without the second the first is not followed.
AT_LEAST_ONCE = {"dead_letter_strategy": "at-least-once", "overflow": "reject-publish"}


async def bound(client: Client, queue: str, *keys: str, exchange: str = "ex", **arguments: Any) -> None:  # noqa: ANN401 - as AMQP has it
    """Declare a queue and bind it under these keys, or under its own name."""
    await client.exchange(exchange)
    await client.queue(queue, **arguments)
    await client.bind(queue, exchange, *(keys or (queue,)))


def to_the_dead() -> dict[str, str]:
    """The arguments of a queue that dead-letters at least once to the queue `dead`."""
    return {"dead_letter_exchange": "dlx", "dead_letter_routing_key": "gone", **AT_LEAST_ONCE}


async def passes(client: Client, milliseconds: int) -> None:
    """Let time pass by the broker's clock."""
    name = f"clock {milliseconds}"
    await bound(client, f"{name} is over", exchange="clocks")
    key = f"{name} is over"
    await bound(client, name, message_ttl=milliseconds, dead_letter_exchange="clocks", dead_letter_routing_key=key)
    await client.publish("ex", name, "tick")
    await client.read(key)


async def mortal(client: Client, **arguments: Any) -> None:  # noqa: ANN401 - as above
    """Declare a queue `work`, and a queue `dead` to which it dead-letters at least once."""
    await bound(client, "dead", "gone", exchange="dlx")
    await bound(client, "work", **to_the_dead(), **arguments)
