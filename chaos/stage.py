"""What the hands work on: the system, chance, and what only some machines allow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

from common import saga
from containers.node import Node
from containers.patience import eventually
from containers.system import System


@dataclass(slots=True)
class Stage:
    """One system under load, and the chance that chooses among its parts."""

    system: System
    chance: random.Random
    images: Mapping[str, str] = field(default_factory=dict)
    """Images beside the services' own: `previous`, an older version; `skewed`, one whose clock can be set."""

    @property
    def services(self) -> Sequence[Node]:
        """The first replica of every service."""
        return list(self.system.services.values())

    def some_service(self) -> Node:
        """Any of the five."""
        return self.system.services[self.chance.choice(saga.SERVICES)]

    def some_broker(self) -> Node:
        """Any node of the broker."""
        return self.chance.choice(self.system.brokers)

    async def strike(self, node: Node, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a container's first program, as if it came from within: the engine starts it again."""
        before = node.pid
        if os.geteuid() == 0 and self.system.plan.comes_back:
            os.kill(before, number)
        elif number == signal.SIGKILL:
            await node.kill()
        else:
            await node.stop()

        def ended() -> bool:
            return node.pid != before

        await eventually(ended)

    async def revive(self, node: Node) -> None:
        """Wait until the engine has started it again; start it where the engine was not told to."""
        if not self.system.plan.comes_back or os.geteuid() != 0:
            await node.start()

        def runs() -> bool:
            return bool(node.state["Running"])

        await eventually(runs)

    @contextlib.asynccontextmanager
    async def filtered(self, node: Node, *rules: str) -> AsyncIterator[None]:
        """Put rules into the packet filter of a container's own network, and take them out again."""
        pid = node.pid
        done: list[str] = []
        try:
            for rule in rules:
                await _iptables(pid, rule)
                done.append(rule)
            yield
        finally:
            for rule in reversed(done):
                # A container that was started anew has a new network, without rules.
                with contextlib.suppress(RuntimeError):
                    await _iptables(pid, rule.replace("-I ", "-D ", 1))


async def _iptables(pid: int, rule: str) -> None:
    words = ["nsenter", "--target", str(pid), "--net", "iptables", "--wait", "5", *rule.split()]
    child = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"{' '.join(words)}: {said.decode().strip()}")


def may_filter_packets() -> bool:
    """Whether this user may enter a container's network and change its packet filter."""
    return os.geteuid() == 0 and all(shutil.which(program) for program in ("nsenter", "iptables"))
