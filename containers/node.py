"""One container, and the hands that break it: stop, kill, pause, cut off, start."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

import docker.errors  # type: ignore[import-untyped] # it brings no types
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, LogMessageWaitStrategy

from containers.patience import eventually


class Node:
    """One container, and what can be done to it."""

    def __init__(self, name: str, container: DockerContainer) -> None:
        self.name = name
        self._container = container

    def begin(self) -> Self:
        """Start it for the first time, and wait until it is ready."""
        self._container.start()
        return self

    def remove(self) -> None:
        """Remove it with all that it stored."""
        self._container.stop()

    def logs(self) -> str:
        """All it has said since it was made, over all its lives."""
        return str(self._raw.logs().decode())

    @property
    def id(self) -> str:
        """The engine's name for it."""
        return self._container.get_container_id()

    def wait_for(self, told: str) -> None:
        """Wait until its log tells this."""
        LogMessageWaitStrategy(told).with_startup_timeout(180).with_poll_interval(0.1).wait_until_ready(
            self._container
        )

    @property
    def pid(self) -> int:
        """Its first program, as this machine counts; 0 while it does not run."""
        return int(self.state["Pid"])

    @property
    def address(self) -> str:
        """Where it is on its network now."""
        self._raw.reload()
        (network,) = self._raw.attrs["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    @property
    def _raw(self) -> Any:  # noqa: ANN401 - docker brings no types
        return self._container.get_wrapped_container()

    @property
    def state(self) -> Mapping[str, Any]:
        """What the engine knows of it now."""
        self._raw.reload()
        state: Mapping[str, Any] = self._raw.attrs["State"]
        return state

    async def stop(self, *, seconds: int = 20) -> int:
        """SIGTERM, and SIGKILL when it has not left in time; its exit code."""
        await asyncio.to_thread(self._raw.stop, timeout=seconds)
        return int(self.state["ExitCode"])

    async def kill(self) -> None:
        """SIGKILL: no last word, as in a crash."""
        await asyncio.to_thread(self._raw.kill)
        await eventually(lambda: not self.state["Running"])

    async def start(self) -> None:
        """Start it again, with what it had stored."""
        await asyncio.to_thread(self._raw.start)

    async def ready(self) -> None:
        """Wait until its own health check is content."""
        await asyncio.to_thread(
            HealthcheckWaitStrategy().with_startup_timeout(180).with_poll_interval(0.1).wait_until_ready,
            self._container,
        )

    async def restart(self) -> None:
        """Stop it in good order and start it again."""
        await asyncio.to_thread(self._raw.restart, timeout=20)

    async def pause(self) -> None:
        """Freeze it: its connections stay open and nobody answers on them."""

        async def frozen() -> None:
            # On a busy machine the kernel may not get hold of a program that starts others all the time.
            try:
                await asyncio.to_thread(self._raw.pause)
            except docker.errors.APIError as error:
                raise AssertionError(f"{self.name} cannot be frozen: {error}") from error

        await eventually(frozen)

    async def unpause(self) -> None:
        """Let it go on as if no time had passed."""
        await asyncio.to_thread(self._raw.unpause)

    async def freeze(self, seconds: float) -> None:
        """Freeze it for so long."""
        await self.pause()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.unpause()

    async def cut_off(self, network: str) -> None:
        """Take it off the network without a word to anybody, as a pulled cable does."""
        await asyncio.to_thread(self._raw.client.networks.get(network).disconnect, self.id)

    async def reconnect(self, network: str) -> None:
        """Put it on the network again; its address may be another one now."""
        connect = self._raw.client.networks.get(network).connect
        await asyncio.to_thread(lambda: connect(self.id, aliases=[self.name]))

    async def run(self, *command: str) -> str:
        """Run a command inside; what it said. AssertionError if it fails, or if nothing runs there."""
        try:
            result = await asyncio.to_thread(self._container.exec, list(command))
        except docker.errors.APIError as error:
            raise AssertionError(f"{self.name} does not run: {error}") from error
        said = result.output.decode()
        assert result.exit_code == 0, said
        return said

    async def allow(self, cores: float) -> None:
        """Give it so much of the processors from now on; 0 means all there is."""
        quota = int(cores * 100_000) if cores else -1
        await asyncio.to_thread(lambda: self._raw.update(cpu_period=100_000, cpu_quota=quota))

    async def heal(self) -> None:
        """Bring it back from whatever a test did to it."""
        state = self.state
        if state["Paused"]:
            await self.unpause()
        elif not state["Running"]:
            await self.start()
