"""The project's own topology."""

from __future__ import annotations

from common import topology
from common.settings import Delay
from tests.support.broker_stage import Stage


async def the_topology_of_the_saga_is_walked_around(stage: Stage) -> None:
    """A copy to a retry level comes back to the events queue under the return key; all of it is declared twice."""
    client = await stage.client()
    objects, _ = topology.parts([Delay.parse("200ms"), Delay.parse("400ms")])
    for _ in range(2):
        for exchange in objects.exchanges:
            await client.exchange(exchange)
        for queue in objects.queues:
            arguments = {key.removeprefix("x-").replace("-", "_"): value for key, value in queue.arguments.items()}
            arguments.pop("queue_type")
            await client.queue(queue.name, **arguments)
        for binding in objects.bindings:
            await client.bind(binding.queue, binding.exchange, binding.key)
        for binding in objects.stale:
            await client.unbind(binding.queue, binding.exchange, binding.key)
    await client.publish(topology.EVENTS, "payment.pay", "a command", mandatory=True, user_id=stage.user)
    await client.publish(topology.EVENTS, "payment.paid", "an event", mandatory=True)
    await client.publish(topology.EVENTS, "point.failed", "a failure", mandatory=True)
    await client.publish(topology.EVENTS, "payment.completed", "for observers", mandatory=True)
    await client.publish(topology.EVENTS, "payment.pya", "a typing error", mandatory=True)
    for queue in objects.queues:
        stage.saw(queue.name, (await client.looks(queue.name))[0])
    await client.read("payment.commands")
    await client.read("reservation.events", 2)
    for level, expiration in (("200ms", "180"), ("400ms", "10000")):
        await client.publish(
            topology.RECOVERY,
            topology.retry_queue("point", Delay.parse(level)),
            f"by {level}",
            mandatory=True,
            headers={"x-type": "reservation.confirmed", "x-attempt": 1},
            expiration=expiration,
            user_id=stage.user,
        )
        await client.read("point.events", 2 if level == "200ms" else 1)
    await client.publish(topology.RECOVERY, "point.dead", "dead", mandatory=True)
    await client.publish(topology.RECOVERY, "point.parked", "parked", mandatory=True)
    await client.read("point.dead")
    await client.read("point.parked")
