"""What happens to processes of services: crashes, stops, freezes, clocks that go wrong, and other versions."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from chaos.stage import Stage
from common import saga
from containers.node import Node
from containers.patience import eventually

_LEAVING = 12


async def killed(stage: Stage, seconds: float) -> str:
    """SIGKILL to every service, in some order, at some moments."""
    return await _struck(stage, seconds, signal.SIGKILL)


async def terminated(stage: Stage, seconds: float) -> str:
    """SIGTERM to every service, in some order, at some moments."""
    return await _struck(stage, seconds, signal.SIGTERM)


async def _struck(stage: Stage, seconds: float, number: signal.Signals) -> str:
    nodes = stage.chance.sample(stage.services, k=len(saga.SERVICES))
    for node in nodes:
        await asyncio.sleep(stage.chance.uniform(0, 2 * seconds / len(nodes)))
        await stage.strike(node, number)
        await stage.revive(node)
    return ", ".join(node.name for node in nodes)


async def all_killed(stage: Stage, seconds: float) -> str:
    """SIGKILL to all five at one moment."""
    await asyncio.gather(*(stage.strike(node) for node in stage.services))
    await asyncio.gather(*(stage.revive(node) for node in stage.services))
    await asyncio.sleep(seconds)
    return "all five"


async def frozen(stage: Stage, seconds: float) -> str:
    """A service is stopped in its tracks (SIGSTOP), for longer than the broker waits for a heartbeat."""
    node = stage.some_service()
    await node.freeze(seconds)
    return node.name


async def crash_loop(stage: Stage, seconds: float) -> str:
    """A service dies each time a moment after it took messages, often enough to reach the delivery limit."""
    node = stage.some_service()
    ends = asyncio.get_running_loop().time() + seconds
    deaths = 0
    while asyncio.get_running_loop().time() < ends:
        told = node.logs().count("taking messages")

        def takes(told: int = told) -> bool:
            return node.logs().count("taking messages") > told

        await stage.strike(node)
        await stage.revive(node)
        deaths += 1
        await eventually(takes, seconds=30)
        await asyncio.sleep(stage.chance.uniform(0, 0.2))
    return f"{node.name}, {deaths} deaths"


async def rolling_restart(stage: Stage, seconds: float) -> str:
    """Every service in turn is asked to leave and started again, as a rollout without a second replica does it."""
    for node in stage.services:
        await node.stop(seconds=_LEAVING)
        await node.start()
        await asyncio.sleep(seconds / len(saga.SERVICES))
    return "all five"


async def rolling_upgrade(stage: Stage, seconds: float) -> str:
    """Every service in turn is replaced by another version of it, and later by this one again."""
    newcomers = []
    try:
        for node in stage.services:
            newcomers.append(await stage.system.replica(node.name, image=stage.images["previous"]))
            await node.stop(seconds=_LEAVING)
        await asyncio.sleep(seconds)
    finally:
        for node in stage.services:
            await node.start()
        await _leave(stage, newcomers)
    return "to another version and back"


async def two_versions(stage: Stage, seconds: float) -> str:
    """Two versions of every service compete for the same messages over the same tables."""
    others = [await stage.system.replica(service, image=stage.images["previous"]) for service in saga.SERVICES]
    try:
        await asyncio.sleep(seconds)
    finally:
        await _leave(stage, others)
    return "all five twice"


async def scaled_out(stage: Stage, seconds: float) -> str:
    """Four replicas of every service, of which two are killed one after another, the first one among them."""
    replicas = [await stage.system.replica(service, waiting=False) for service in saga.SERVICES * 3]
    try:
        doomed = [*stage.services, *replicas[: len(saga.SERVICES)]]
        stage.chance.shuffle(doomed)
        for node in doomed:
            await asyncio.sleep(seconds / len(doomed))
            await node.kill()
    finally:
        await asyncio.gather(*(node.start() for node in stage.services))
        await _leave(stage, replicas)
    return f"{len(doomed)} of {4 * len(saga.SERVICES)} killed"


async def clock_skew(stage: Stage, seconds: float) -> str:
    """Two services live in other times: one a minute ahead, one a minute behind."""
    first, second = stage.chance.sample(stage.services, k=2)
    skewed = []
    try:
        for node, offset in ((first, "+60s"), (second, "-60s")):
            skewed.append(
                await stage.system.replica(
                    node.name,
                    image=stage.images["skewed"],
                    LD_PRELOAD="/usr/local/lib/libfaketime.so.1",
                    FAKETIME=offset,
                    FAKETIME_DONT_FAKE_MONOTONIC="1",
                )
            )
            await node.stop(seconds=_LEAVING)
        await asyncio.sleep(seconds)
    finally:
        for node in (first, second):
            await node.start()
        await _leave(stage, skewed)
    return f"{first.name} +60 s, {second.name} -60 s"


async def _leave(stage: Stage, replicas: list[Node]) -> None:
    """Have replicas leave in good order, and remove them."""

    async def leave(node: Node) -> None:
        with contextlib.suppress(Exception):
            await node.stop(seconds=_LEAVING)

    await asyncio.gather(*(leave(node) for node in replicas))
    await stage.system.remove_replicas(*replicas)
