"""What happens to the broker: crashes, alarms, connections, consumers and queues that are gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from chaos.stage import Stage
from common import saga, topology
from containers.patience import eventually

#: Of this RabbitMQ may use so much; it always uses more, so the alarm rings.
_NO_MEMORY = "0.00001"
_ALL_MEMORY = "0.6"
_NO_DISK = "1000000GB"
_SOME_DISK = "50MB"


async def killed(stage: Stage, seconds: float) -> str:
    """SIGKILL to the broker, and its start from what its disk holds."""
    node = stage.some_broker()
    await stage.strike(node)
    await stage.revive(node)
    await node.ready()
    await asyncio.sleep(seconds)
    return node.name


async def restarted(stage: Stage, seconds: float) -> str:
    """The broker is stopped in good order, and started again."""
    node = stage.some_broker()
    await node.restart()
    await node.ready()
    await asyncio.sleep(seconds)
    return node.name


async def frozen(stage: Stage, seconds: float) -> str:
    """The broker is stopped in its tracks (SIGSTOP) for longer than anybody waits for a heartbeat."""
    node = stage.some_broker()
    await node.freeze(seconds)
    return node.name


async def memory_alarm(stage: Stage, seconds: float) -> str:
    """The broker says that it has no memory left, and blocks all who publish."""
    return await _alarm(stage, seconds, "set_vm_memory_high_watermark", _NO_MEMORY, _ALL_MEMORY)


async def disk_alarm(stage: Stage, seconds: float) -> str:
    """The broker says that it has no disk left, and blocks all who publish."""
    return await _alarm(stage, seconds, "set_disk_free_limit", _NO_DISK, _SOME_DISK)


async def _alarm(stage: Stage, seconds: float, setting: str, alarming: str, calm: str) -> str:
    await stage.system.broker.run("rabbitmqctl", "--quiet", setting, alarming)
    try:
        await asyncio.sleep(seconds)
    finally:
        await stage.system.broker.run("rabbitmqctl", "--quiet", setting, calm)
    return "publishers blocked"


async def connections_closed(stage: Stage, seconds: float) -> str:
    """Every connection of the services is closed through the management API, one every moment."""
    connections: list[dict[str, Any]] = await eventually(lambda: stage.system.call("GET", "connections"))
    ours = [connection["name"] for connection in connections if _service_of(connection)]
    stage.chance.shuffle(ours)
    for name in ours:
        # It may be gone already, with the other one of its session.
        with contextlib.suppress(AssertionError):
            await stage.system.call("DELETE", f"connections/{quote(name, safe='')}")
        await asyncio.sleep(seconds / max(len(ours), 1))
    return f"{len(ours)} connections"


async def close_all(stage: Stage) -> None:
    """Close all connections at once, those of the clients, too."""
    await stage.system.broker.run("rabbitmqctl", "--quiet", "close_all_connections", "--vhost", "/", "a fault")


def _service_of(connection: dict[str, Any]) -> str:
    named = str((connection.get("client_properties") or {}).get("connection_name") or "")
    service = named.partition(" ")[0]
    return service if service in saga.SERVICES else ""


async def consumer_cancelled(stage: Stage, seconds: float) -> str:
    """The broker cancels a consumer, because its queue is gone: one that is empty, so that nothing is lost."""
    # Nothing is ever refused there, so nothing is in it.
    queue = topology.dead_queue(saga.SERVICES[-1])
    assert await stage.system.depth(queue) == 0
    await stage.system.call("DELETE", f"queues/%2F/{queue}")
    await asyncio.sleep(seconds)
    return queue


async def queue_deleted(stage: Stage, seconds: float) -> str:
    """A queue of work is deleted with all that waits in it."""
    queue = _some_queue(stage)
    await stage.system.call("DELETE", f"queues/%2F/{queue}")
    await asyncio.sleep(seconds)
    return queue


async def queue_purged(stage: Stage, seconds: float) -> str:
    """A queue of work is emptied while its service does not look, so that something is in it."""
    queue = _some_queue(stage)
    node = stage.system.services[queue.partition(".")[0]]
    await node.stop(seconds=12)
    try:
        await asyncio.sleep(seconds)
        await stage.system.call("DELETE", f"queues/%2F/{queue}/contents")
    finally:
        await node.start()
    return queue


def _some_queue(stage: Stage) -> str:
    return topology.events_queue(stage.chance.choice(saga.SERVICES))


async def disk_lost(stage: Stage, seconds: float) -> str:
    """The broker is gone with its disk; another of its name starts and knows nothing."""
    await stage.system.renew_broker()
    await asyncio.sleep(seconds)
    return "all queues and what was in them"


async def leaders(stage: Stage) -> dict[str, str]:
    """Of each queue, the host name of the node that leads it now."""
    found: Sequence[dict[str, Any]] = await stage.system.call("GET", "queues/%2F")
    return {
        queue["name"]: str(queue.get("leader") or queue.get("node")).partition("@")[2]
        for queue in found
        if queue["name"] != topology.HISTORY
    }
