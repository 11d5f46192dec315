"""A virtual host of a real broker with the users of the table, and the services logged in under their own names.

Also what somebody can try there: each attempt has a channel of its own, since a refusal closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from pamqp import commands as spec

from common import bus, rights, saga, topology
from common.messages import Body
from common.settings import Delay
from tests.support.eventually import eventually
from tests.support.saga import SABOTAGE, Faults
from tools.rights import running
from tools.rights.secrets import Secrets
from tools.stack import ROOT, Stack

DELAYS = (Delay.parse("200ms"), Delay.parse("400ms"))
PATIENCE = 20.0
OBJECTS = topology.derive(DELAYS)
GRANTS = rights.grants(OBJECTS)
USERS = {one.user.name: one.user.role for one in GRANTS}

Attempt = Callable[[aiormq.Channel], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    code: int
    text: str


@dataclass(slots=True)
class House:
    """A virtual host, the users' files, and the services that are started in it."""

    broker: running.Broker
    secrets: Secrets
    stack: Stack
    administrator: str
    granted: tuple[rights.Grant, ...]
    _root: str
    _version: tuple[int, ...]
    lanes: tuple[str, ...] = ()

    def url(self, user: str) -> str:
        """The address at which a user logs in now."""
        return self.secrets.file(user).read_text().strip()

    def start(self, *names: str) -> None:
        """Start services, all or these, and wait until they take messages."""
        for name in names or saga.SERVICES:
            self.stack.start(
                name,
                "",
                RABBITMQ_URL_FILE=str(self.secrets.file(name)),
                DECLARE_TOPOLOGY="false",
                PUBLISHERS="owners",
                LANES=",".join(self.lanes),
                PYTHONPATH=f"{SABOTAGE}:{ROOT}",
                SABOTAGE=f"{name}={self.stack.home / name}.faults",
            )
        self.stack.wait_ready(*(names or saga.SERVICES))

    @contextlib.asynccontextmanager
    async def person(self, user: str) -> AsyncIterator[Person]:
        """Somebody who is logged in."""
        async with await aio_pika.connect(self.url(user)) as connection:
            yield Person(user, connection)

    @contextlib.asynccontextmanager
    async def root(self) -> AsyncIterator[Person]:
        """The administrator, who may publish whatever they like."""
        async with await aio_pika.connect(self._root) as connection:
            yield Person(self.administrator, connection)

    @property
    def checks_copies(self) -> bool:
        """Whether the broker looks at the keys in CC and BCC, too."""
        return self._version >= (4, 0, 3)

    @contextlib.contextmanager
    def hole_in_the_first_wall(self, user: str) -> Iterator[None]:
        """Let a user publish under every key, for as long as the context is open."""
        self.broker.ask("DELETE", f"topic-permissions/{self.broker.place(user)}")
        try:
            yield
        finally:
            list(running.apply(self.broker, self.granted, self.secrets))

    def faults(self, service: str) -> Faults:
        """The faults of a service."""
        return Faults(self.stack.home / f"{service}.faults")

    def forget_letters(self) -> None:
        """Empty the parked queues."""
        for service in saga.SERVICES:
            place = f"{quote(self.broker.vhost, safe='')}/{topology.parked_queue(service)}"
            self.broker.ask("DELETE", f"queues/{place}/contents")

    def peek(self, queue: str) -> list[dict[str, Any]]:
        """Look at what lies in a queue, as an administrator, and leave it there."""
        path = f"queues/{quote(self.broker.vhost, safe='')}/{queue}/get"
        wish = {"count": 1000, "ackmode": "ack_requeue_true", "encoding": "auto"}
        found: list[dict[str, Any]] = self.broker.ask("POST", path, wish)
        return found

    async def parked(self, service: str, key: str) -> dict[str, Any]:
        """The first message about `key` in a service's parked queue, waited for: its headers and its signature."""

        def there() -> dict[str, Any]:
            found = [it for it in self.peek(topology.parked_queue(service)) if key in it["payload"]]
            assert found, f"nothing about {key} is parked in {service}"
            properties: dict[str, Any] = found[0]["properties"]
            headers: dict[str, Any] = properties["headers"]
            return headers | {"user_id": properties.get("user_id")}

        return await eventually(there)

    async def saga(self, user: str, *words: str) -> Said:
        """Run the operators' command with a user's login."""
        api = self.broker.as_(user, self.secrets.password(user))
        environment = {"RABBITMQ_URL": self.url(user), "RABBITMQ_MANAGEMENT_URL": api.url}
        environment |= {f"DATABASE_URL_{name.upper()}": url for name, url in self.stack.database_urls().items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ops", *words),
            env=os.environ | environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        text, _ = await process.communicate()
        return Said(process.returncode or 0, text.decode())

    def rows(self, service: str, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read a service's database."""
        with contextlib.closing(self.stack.read_only(service)) as connection:
            return connection.execute(query, values).fetchall()


@dataclass(slots=True)
class Person:
    """Somebody who is logged in and tries things."""

    user: str
    connection: AbstractConnection
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(100))

    async def try_(self, attempt: Attempt) -> str:
        """What the broker says to an attempt: `done`, `returned`, or the code of its refusal."""
        # A number of its own: one that is free again to us may still be closing for the broker.
        number = next(self._numbers)
        channel = self.connection.channel(number, publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        try:
            await attempt(underlay)
        except aiormq.exceptions.PublishError:
            return "returned"
        except aiormq.exceptions.ChannelClosed as error:
            return type(error).__name__.removeprefix("Channel")
        finally:
            with contextlib.suppress(Exception):
                await channel.close()
        return "done"

    async def publish(
        self,
        exchange: str,
        key: str,
        body: bytes | Body = b"{}",
        *,
        signed: str | None = None,
        headers: Mapping[str, Any] | None = None,
        mandatory: bool = False,
        expiration: int | None = None,
    ) -> str:
        """Try to publish, signed with a name or not at all."""
        content = body if isinstance(body, bytes) else body.encode().encode()
        properties = spec.Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            user_id=signed,
            headers=dict(headers or {}),
            expiration=str(expiration) if expiration is not None else None,
        )
        return await self.try_(
            lambda channel: channel.basic_publish(
                content, exchange=exchange, routing_key=key, properties=properties, mandatory=mandatory, timeout=20
            )
        )


@contextlib.contextmanager
def house(amqp_url: str, management_url: str, home: Path, *, lanes: tuple[str, ...] = ()) -> Iterator[House]:
    """A virtual host of a running broker, whose administrator the addresses name; all is removed afterwards.

    The users are the node's, so there is one house at a time on it. `lanes`: clients more, each with a lane.
    """
    objects = topology.derive(DELAYS, lanes)
    clients = (rights.User(lane, rights.Role.CLIENT) for lane in lanes)
    granted = rights.grants(objects, (*rights.OTHERS, *clients))
    name = f"rights-{secrets.token_hex(4)}"
    address = urlsplit(amqp_url)
    api = urlsplit(management_url)
    login = address.netloc.rpartition("@")[0]
    broker = running.Broker(
        api._replace(netloc=f"{login}@{api.netloc.rpartition('@')[2]}", query=f"vhost={name}").geturl()
    )
    place = address._replace(netloc=address.netloc.rpartition("@")[2], path=f"/{name}").geturl()
    settings = {"RETRY_DELAYS": ",".join(delay.text for delay in DELAYS), "SWEEP_SECONDS": "0.5"}
    opened = House(
        broker,
        Secrets(home / "secrets", place),
        Stack(home, environment=settings),
        administrator=unquote(address.username or ""),
        granted=granted,
        _root=address._replace(path=f"/{name}").geturl(),
        _version=tuple(map(int, broker.ask("GET", "overview")["rabbitmq_version"].split("."))),
        lanes=lanes,
    )
    broker.ask("PUT", f"vhosts/{name}")
    # To look into queues.
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    broker.ask("PUT", f"permissions/{broker.place(address.username or '')}", everything)
    try:
        list(running.apply(broker, granted, opened.secrets))
        asyncio.run(_declare(opened.url(rights.DEPLOYER.name), objects))
        yield opened
    finally:
        stubborn = opened.stack.down()
        broker.ask("DELETE", f"vhosts/{name}")
        for one in granted:
            broker.ask("DELETE", f"users/{one.user.name}")
        assert not stubborn, stubborn


async def _declare(url: str, objects: topology.Topology) -> None:
    async with bus.open_session(url, rights.DEPLOYER.name) as session:
        await session.declare(objects)


def encoded(**fields: object) -> bytes:
    """A body."""
    return json.dumps(fields).encode()
