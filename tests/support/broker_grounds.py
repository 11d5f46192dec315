"""Where a scenario plays: a virtual host of a real broker, or a simulated one on virtual time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractConnection
from yarl import URL

from proof.broker import SimulatedBroker
from proof.simulator.clock import VirtualLoop
from tests.support.broker_scenarios import Scenario
from tests.support.broker_stage import Stage

T = TypeVar("T")

#: The versions that the simulated broker has been held against.
FOLLOWED = ("3.10.", "4.0.")
#: Seconds after which a dead letter that could not leave is sent again. RabbitMQ's own 180 are too long for tests.
DEAD_LETTER_RETRY = 1.0


def tell_dead_letter_retry(seconds: float) -> str:
    """What `rabbitmqctl eval` is given to set that in a real broker; for queues that are declared later."""
    name = "dead_letter_worker_publisher_confirm_timeout"
    return f"application:set_env(rabbit, {name}, {round(seconds * 1000)})."


class Simulated:
    """A simulated broker."""

    user = "saga"

    def __init__(self, broker: SimulatedBroker) -> None:
        self.broker = broker
        self.old = broker.core.old

    async def connect(self, *, breakable: bool) -> AbstractConnection:
        """Connect by aio-pika."""
        name = "breakable" if breakable else "steady"
        return await self.broker.connect(f"amqp://{self.user}:secret@simulated/?name={name}")

    async def break_connections(self) -> None:
        """Break those that are breakable."""
        self.broker.kill("breakable")

    async def restart(self) -> None:
        """Restart it."""
        self.broker.restart()


class Real:
    """A virtual host of a real broker."""

    def __init__(self, url: URL, *, version: str, restart: Callable[[], object] | None) -> None:
        self.user = url.user or ""
        self._restart = restart
        self.version = version
        self.old = version.startswith("3.")
        self._url = url
        self._relay: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self, *, breakable: bool) -> AbstractConnection:
        """Connect by aio-pika; a breakable connection goes through a relay of ours."""
        if not breakable:
            return await aio_pika.connect(self._url)
        self._relay = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        port = self._relay.sockets[0].getsockname()[1]
        return await aio_pika.connect(self._url.with_host("127.0.0.1").with_port(port))

    async def break_connections(self) -> None:
        """Break those that are breakable, as a pulled cable or a killed client does."""
        for writer in self._writers:
            writer.transport.abort()
        if self._relay is not None:
            self._relay.close()
            await self._relay.wait_closed()

    async def restart(self) -> None:
        """Restart it, if whoever owns it lets us."""
        assert self._restart is not None
        await asyncio.to_thread(self._restart)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._url.host, self._url.port)
        self._writers += [writer, back]
        await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65536):
            writer.write(part)


@contextlib.asynccontextmanager
async def virtual_host(
    amqp_url: str, management_url: str, restart: Callable[[], object] | None = None
) -> AsyncIterator[Real]:
    """A virtual host of its own on a real broker, removed with all that is in it."""
    url = URL(amqp_url)
    name = f"honest-{secrets.token_hex(4)}"

    def call(method: str, path: str, **content: str) -> Any:  # noqa: ANN401 - any JSON
        key = base64.b64encode(f"{url.user}:{url.password}".encode()).decode()
        connection = http.client.HTTPConnection(urlsplit(management_url).netloc, timeout=20)
        try:
            headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
            connection.request(method, f"/api/{path}", json.dumps(content), headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status < 300, f"{method} {path}: {answer.status} {said!r}"
            return json.loads(said) if said else None
        finally:
            connection.close()

    overview = await asyncio.to_thread(call, "GET", "overview")
    await asyncio.to_thread(call, "PUT", f"vhosts/{name}")
    try:
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await asyncio.to_thread(lambda: call("PUT", f"permissions/{name}/{url.user}", **everything))
        yield Real(url.with_path(f"/{name}"), version=overview["rabbitmq_version"], restart=restart)
    finally:
        await asyncio.to_thread(call, "DELETE", f"vhosts/{name}")


async def play(scenario: Scenario, ground: Real | Simulated) -> list[Any]:
    """What the scenario sees there."""
    stage = Stage(ground)
    try:
        await scenario(stage)
    finally:
        await stage.leave()
    return stage.seen


def virtually(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        with loop.rules_the_clocks():
            return runner.run(work)


def seen_on_the_simulated(scenario: Scenario, version: str, *, chance: random.Random | None = None) -> list[Any]:
    """What the scenario sees on a simulated broker of this version."""

    async def on_it() -> list[Any]:
        broker = SimulatedBroker(version=version, dead_letter_retry=DEAD_LETTER_RETRY, chance=chance)
        return await play(scenario, Simulated(broker))

    return virtually(on_it())


def hold_against(
    scenario: Scenario, amqp_url: str, management_url: str, *, restart: Callable[[], object] | None = None
) -> None:
    """Play on a real broker and on the simulated one; AssertionError unless both show the same."""

    async def on_it() -> tuple[list[Any], str]:
        async with virtual_host(amqp_url, management_url, restart) as ground:
            if not ground.version.startswith(FOLLOWED):
                pytest.skip(
                    f"the simulated broker follows RabbitMQ {' and '.join(FOLLOWED)}, not {ground.version}"
                )
            return await play(scenario, ground), ground.version

    really, version = asyncio.run(on_it())
    simulated = seen_on_the_simulated(scenario, version)
    assert simulated == really
