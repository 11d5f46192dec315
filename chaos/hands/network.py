"""What happens between containers: cuts, one-way cuts, loss, delay, confirms that never arrive, no names."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from chaos.hands.broker import close_all
from chaos.hands.database import terminate_connections
from chaos.stage import Stage
from containers.node import Node

_DELAY_MS = 100
_LOSS = 0.1
_PROXY = "proxy"


async def cut(stage: Stage, seconds: float) -> str:
    """Nothing goes between a service and the broker or the database; nobody is told."""
    node, other = _pair(stage)
    address = other.address
    async with stage.filtered(node, f"-I INPUT -s {address} -j DROP", f"-I OUTPUT -d {address} -j DROP"):
        await asyncio.sleep(seconds)
    return f"{node.name} and {other.name}"


async def one_way_cut(stage: Stage, seconds: float) -> str:
    """Nothing arrives at a service from broker or database, while what it sends arrives there."""
    node, other = _pair(stage)
    async with stage.filtered(node, f"-I INPUT -s {other.address} -j DROP"):
        await asyncio.sleep(seconds)
    return f"from {other.name} to {node.name}"


async def loss(stage: Stage, seconds: float) -> str:
    """Every tenth packet that arrives at any service is lost."""
    async with _everywhere(stage, f"-I INPUT -m statistic --mode random --probability {_LOSS} -j DROP"):
        await asyncio.sleep(seconds)
    return f"{_LOSS:.0%} at all five"


async def confirms_lost(stage: Stage, seconds: float) -> str:
    """The broker takes what services publish, but no confirm arrives; then it closes their connections."""
    address = stage.system.broker.address
    rules = f"-I INPUT -s {address} -p tcp --sport 5672 -j DROP"
    async with _everywhere(stage, rules):
        await asyncio.sleep(seconds)
        await close_all(stage)
    return "all five"


async def no_names(stage: Stage, seconds: float) -> str:
    """No name is resolved any more, and all connections are closed, so that names are asked for."""
    async with _everywhere(stage, "-I OUTPUT -d 127.0.0.11 -j DROP"):
        await close_all(stage)
        await terminate_connections(stage)
        await asyncio.sleep(seconds)
    return "all five"


async def delay(stage: Stage, seconds: float) -> str:
    """Every byte between services and broker or database takes a tenth of a second more, each way."""
    system = stage.system
    proxy = await asyncio.to_thread(
        lambda: Node(_PROXY, system.kitchen.proxy(_PROXY, _DELAY_MS, {5672: "rabbitmq", 5432: "postgres"})).begin()
    )
    try:
        to = proxy.address
        redirects = [
            f"-t nat -I OUTPUT -p tcp -d {there.address} --dport {port} -j DNAT --to-destination {to}:{port}"
            for there, port in ((system.broker, 5672), (system.database, 5432))
        ]
        async with _everywhere(stage, *redirects):
            # Connections that are open go the way that they were opened.
            await close_all(stage)
            await terminate_connections(stage)
            await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(proxy.remove)
    return f"{_DELAY_MS} ms each way"


def _pair(stage: Stage) -> tuple[Node, Node]:
    return stage.some_service(), stage.chance.choice([stage.some_broker(), stage.system.database])


@contextlib.asynccontextmanager
async def _everywhere(stage: Stage, *rules: str) -> AsyncIterator[Sequence[Node]]:
    """The same rules in the network of every service."""
    async with contextlib.AsyncExitStack() as stack:
        for node in stage.services:
            await stack.enter_async_context(stage.filtered(node, *rules))
        yield stage.services
