"""What a restart leaves behind; apart from the others, since nobody else may be using that broker."""

from __future__ import annotations

from tests.support.broker_scenarios.base import mortal
from tests.support.broker_stage import Stage


async def a_restart_counts_for_what_was_out(stage: Stage) -> None:
    """What is confirmed is there again, in order; what was out comes first and is counted."""
    client = await stage.client()
    await mortal(client, delivery_limit=1)
    for body in ("a", "b", "c"):
        await client.publish("ex", "work", body)
    reader = await client.consume("work", prefetch=2)
    await reader.some(2)
    await stage.restarts()
    client = await stage.client()
    await client.waits("work", 3)
    await client.read("work", 3)
    await client.waits("dead", 0)
