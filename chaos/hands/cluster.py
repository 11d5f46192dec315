"""What happens to a cluster of brokers: nodes that are lost, leaders that move, partitions."""

from __future__ import annotations

import asyncio
import contextlib

from chaos.hands.broker import leaders
from chaos.stage import Stage
from common import saga, topology
from containers.node import Node
from containers.patience import eventually


async def node_lost(stage: Stage, seconds: float) -> str:
    """One of three nodes is killed, stays away, and comes back."""
    node = stage.some_broker()
    await node.kill()
    try:
        await asyncio.sleep(seconds)
    finally:
        await node.start()
        await _all_there(stage)
    return node.name


async def leaders_lost(stage: Stage, seconds: float) -> str:
    """Each node that leads a queue is killed in turn, so that every queue loses its leader."""
    unharmed = {queue for queue in await leaders(stage) if queue in _OF_THE_SAGA}
    killed = []
    while unharmed:
        led = await leaders(stage)
        node = next(node for node in stage.system.brokers if node.name == led[min(unharmed)])
        unharmed -= {queue for queue, leader in led.items() if leader == node.name}
        await node.kill()
        killed.append(node.name)
        await asyncio.sleep(seconds)
        await node.start()
        await _all_there(stage)
    return ", then ".join(killed)


async def leaders_moved(stage: Stage, seconds: float) -> str:
    """Every queue's leader is moved to another node, in good order."""
    before = await leaders(stage)
    moves = []
    for queue, leader in sorted(before.items()):
        if queue in _OF_THE_SAGA:
            to = stage.chance.choice([node.name for node in stage.system.brokers if node.name != leader])
            moves.append(f"{{<<\"{queue}\">>, 'rabbit@{to}'}}")
    code = (
        '[begin {ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, Name)), '
        f"rabbit_quorum_queue:transfer_leadership(Q, To) end || {{Name, To}} <- [{', '.join(moves)}]]."
    )
    await stage.system.broker.run("rabbitmqctl", "--quiet", "eval", code)
    await asyncio.sleep(seconds)
    after = await leaders(stage)
    return f"{sum(after[queue] != leader for queue, leader in before.items() if queue in after)} queues"


async def partition(stage: Stage, seconds: float) -> str:
    """One node is cut off from the two others, and the cut heals; services and clients reach all three."""
    alone, *others = stage.chance.sample(stage.system.brokers, k=3)
    rules = [
        rule
        for other in others
        for address in [other.address]
        for rule in (f"-I INPUT -s {address} -j DROP", f"-I OUTPUT -d {address} -j DROP")
    ]
    async with stage.filtered(alone, *rules):
        await asyncio.sleep(seconds)
    await _all_there(stage)
    return f"{alone.name} alone"


async def all_killed(stage: Stage, seconds: float) -> str:
    """SIGKILL to all three nodes at one moment."""
    await asyncio.gather(*(node.kill() for node in stage.system.brokers))
    await asyncio.sleep(seconds)
    await asyncio.gather(*(node.start() for node in stage.system.brokers))
    await _all_there(stage)
    return "all three"


async def rolling_restart(stage: Stage, seconds: float) -> str:
    """The nodes are stopped in good order and started again, one after another, as for an upgrade."""
    for node in stage.system.brokers:
        await node.stop(seconds=60)
        await node.start()
        await _all_there(stage)
        await asyncio.sleep(seconds)
    return "all three"


async def _all_there(stage: Stage) -> None:
    """Wait until every node says that all three run."""

    async def joined() -> None:
        await asyncio.gather(*(_sees_all(stage, node) for node in stage.system.brokers))

    await eventually(joined, seconds=180)


async def _sees_all(stage: Stage, node: Node) -> None:
    with contextlib.suppress(OSError):
        await node.run(
            "rabbitmqctl", "--quiet", "await_online_nodes", str(len(stage.system.brokers)), "--timeout", "60"
        )


_OF_THE_SAGA = {
    queue(service) for service in saga.SERVICES for queue in (topology.events_queue, topology.dead_queue)
} | {topology.commands_queue(service) for service in saga.SERVICES if saga.command_keys(service)}
