"""A whole saga system in containers of its own: brokers, PostgreSQL and the five services.

PostgreSQL has a database and a role for each service. This starts, asks and heals; `containers.node` breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self

import aio_pika
import aiohttp
import aiormq
import asyncpg
from aio_pika.exceptions import PublishError
from testcontainers.core.config import testcontainers_config
from testcontainers.core.network import Network

from common import saga, topology
from common.messages import TYPES, Body
from containers.labels import TESTS, tidy
from containers.node import Node
from containers.patience import TooLateError, eventually
from containers.recipes import PASSWORD, USER, Kitchen, Plan
from tools.images import Images
from tools.loopback import free_ports

#: Spent retries take seconds, not minutes.
RETRY_DELAYS = "300ms,600ms"
#: What Prometheus has to bring.
HEALTH_TOKEN = "only-for-prometheus"  # noqa: S105 - of systems that live for minutes
#: As the tests want it.
PLAIN = Plan(
    TESTS,
    # Prometheus asks from another container, as under compose.
    settings={
        "RETRY_DELAYS": RETRY_DELAYS,
        "SWEEP_SECONDS": "1",
        "HEALTH_HOST": "0.0.0.0",  # noqa: S104 - their own network
        "HEALTH_TOKEN": HEALTH_TOKEN,
    },
)
#: Which system a container belongs to.
_SYSTEM = "concert-saga.system"
_BROKER_IS_AWAY = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    OSError,
    TimeoutError,
)

#: A command and the routing key under which it is published; bytes for what no client should send.
Command = tuple[str, Body | bytes]


class System:
    """Brokers, PostgreSQL, and any number of replicas of each service on one network."""

    def __init__(self, images: Images, plan: Plan = PLAIN) -> None:
        # A label of its own: it must not remove, at its end, what others have started meanwhile.
        plan = replace(plan, labels={**plan.labels, _SYSTEM: secrets.token_hex(6)})
        self.plan = plan
        self._network = Network(
            docker_network_kw={
                "labels": dict(plan.labels),
                # Published ports are for this machine alone; their passwords are known to everybody.
                "options": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
            }
        )
        self.network = self._network.name
        # Fixed, because a port that the engine chooses changes when its container is started again.
        self._database_port, *ports = free_ports(1 + 2 * len(plan.brokers))
        amqp, management = ports[::2], ports[1::2]
        self.amqp_urls = [f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/" for port in amqp]
        self.management_urls = [f"http://127.0.0.1:{port}" for port in management]
        self.kitchen = Kitchen(images, self._network, plan)
        self._ports = list(zip(plan.brokers, amqp, management, strict=True))
        self.brokers = [Node(*self._broker(at)) for at in range(len(plan.brokers))]
        self.database = Node("postgres", self.kitchen.database(self._database_port))
        self.services: dict[str, Node] = {}
        self._replicas: list[Node] = []

    @property
    def broker(self) -> Node:
        """The broker, or its first node."""
        return self.brokers[0]

    @property
    def amqp_url(self) -> str:
        """Where the broker, or its first node, is seen from this machine."""
        return self.amqp_urls[0]

    @property
    def management_url(self) -> str:
        """Where its management API is."""
        return self.management_urls[0]

    @property
    def databases(self) -> Sequence[Node]:
        """The servers of the services' databases."""
        return [self.database]

    @property
    def replicas(self) -> Sequence[Node]:
        """The replicas that were started beside the first of each service."""
        return tuple(self._replicas)

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Start all of it, and remove all of it at the end."""
        # Its image cannot be had on a machine without a registry; `tidy` cleans up instead.
        testcontainers_config.ryuk_disabled = True
        try:
            self._network.create()
            if self.plan.database_volume:
                Node("keeper", self.kitchen.keeper("keeper")).begin()
            for database in self.databases:
                database.begin()
            # Nodes of a cluster look for one another when they start. A queue gets its members from those that are
            # there when it is declared, so all are there before the first service.
            with ThreadPoolExecutor() as pool:
                list(pool.map(Node.begin, self.brokers))
            # As anybody would start them: all at once, in any order, none waiting for another.
            self.services = {service: self._service(service, waiting=False) for service in saga.SERVICES}
            for node in self.services.values():
                node.wait_for("taking messages")
            yield self
        finally:
            tidy(self.plan.labels)

    def _broker(self, at: int) -> tuple[str, Any]:
        name, amqp, management = self._ports[at]
        return name, self.kitchen.broker(name, amqp, management)

    async def renew_broker(self, at: int = 0) -> None:
        """Remove a broker with its disk, and start another of its name that knows nothing."""
        await asyncio.to_thread(self.brokers[at].remove)
        self.brokers[at] = Node(*self._broker(at))
        await asyncio.to_thread(self.brokers[at].begin)

    def _service(
        self,
        service: str,
        *,
        waiting: bool = True,
        image: str = "",
        database: str = "",
        vhost: str = "",
        **settings: str,
    ) -> Node:
        container = self.kitchen.service(service, image=image, database=database, vhost=vhost, settings=settings)
        node = Node(service, container).begin()
        if waiting:
            node.wait_for("taking messages")
        return node

    async def replica(
        self,
        service: str,
        *,
        waiting: bool = True,
        image: str = "",
        database: str = "",
        vhost: str = "",
        **settings: str,
    ) -> Node:
        """Start one more replica of a service; `heal` removes it.

        It may be of another image, and get a database and virtual host of its own.
        """
        node = await asyncio.to_thread(
            lambda: self._service(
                service, waiting=waiting, image=image, database=database, vhost=vhost, **settings
            )
        )
        self._replicas.append(node)
        return node

    async def remove_replicas(self, *these: Node) -> None:
        """Remove these replicas, or all but the first of each service."""
        leaving = list(these) or self._replicas
        self._replicas = [replica for replica in self._replicas if replica not in leaving]
        await asyncio.gather(*(asyncio.to_thread(replica.remove) for replica in leaving))

    async def heal(self) -> None:
        """Remove the replicas and bring back what is stopped or paused, whatever a test did."""
        await self.remove_replicas()
        for node in (*self.databases, *self.brokers, *self.services.values()):
            await node.heal()
        for node in (*self.databases, *self.brokers):
            await node.ready()
        try:
            await eventually(self.is_consuming)
        except TooLateError:
            # A service hangs. That is this test's to tell; the next one begins with services that work.
            await asyncio.gather(*(node.restart() for node in self.services.values()))
            await eventually(self.is_consuming)
            raise

    async def is_consuming(self) -> None:
        """Assert that every queue of work has a consumer."""
        for queue in await self._declared(*_WORK):
            assert queue.consumer_count, f"nobody reads {queue.queue}"

    # Messages

    async def connect(self) -> aio_pika.abc.AbstractConnection:
        """Connect to the first node that answers, as a client that knows several; raises what the last did."""
        for url in self.amqp_urls[:-1]:
            with contextlib.suppress(*_BROKER_IS_AWAY):
                return await aio_pika.connect(url, timeout=5)
        return await aio_pika.connect(self.amqp_urls[-1], timeout=15)

    async def publish(self, *commands: Command | Body, seconds: float = 60) -> None:
        """Publish over AMQP, confirmed and mandatory; while the broker is away, try again, as a client should."""
        waiting = [_addressed(command) for command in commands]

        async def attempt() -> None:
            try:
                async with await self.connect() as connection:
                    channel = await connection.channel(on_return_raises=True)
                    exchange = await channel.get_exchange(topology.EVENTS)
                    while waiting:
                        await _confirmed(exchange, waiting[:100])
                        del waiting[:100]
            except PublishError:
                raise  # returned: there is no queue for it
            except _BROKER_IS_AWAY as error:
                raise AssertionError(f"the broker is away: {error!r}") from error

        await eventually(attempt, seconds=seconds)

    async def call(self, method: str, path: str, **content: object) -> Any:  # noqa: ANN401 - any JSON
        """Ask the management API; AssertionError unless it is content."""
        headers = {"Authorization": aiohttp.encode_basic_auth(USER, PASSWORD)}
        away: Exception | None = None
        for place in self.management_urls:
            try:
                async with (
                    aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(10)) as session,
                    session.request(method, f"{place}/api/{path}", json=content or None) as answer,
                ):
                    text = await answer.text()
                    assert answer.ok, f"{answer.status} {text}"
                    return json.loads(text) if text else None
            except (aiohttp.ClientError, TimeoutError) as error:
                away = error
        raise AssertionError(f"the management API is away: {away!r}") from away

    async def publish_by_hand(self, command: Body) -> bool:
        """Publish through the management API, as its form does; whether it was routed."""
        key, body = _addressed(command)
        answer = await self.call(
            "POST",
            f"exchanges/%2F/{topology.EVENTS}/publish",
            properties={},
            routing_key=key,
            payload=body.decode(),
            payload_encoding="string",
        )
        return bool(answer["routed"])

    async def look(self, queue: str, count: int = 1000) -> list[dict[str, Any]]:
        """The messages that wait in a queue, as "Get messages" of the management UI shows them; they stay."""
        found: list[dict[str, Any]] = await self.call(
            "POST", f"queues/%2F/{queue}/get", count=count, ackmode="ack_requeue_true", encoding="auto"
        )
        return found

    async def depth(self, queue: str) -> int:
        """How many messages are ready in a queue, by the broker's own and newest word."""
        (found,) = await self._declared(queue)
        return int(found.message_count)

    async def consumers(self, queue: str) -> int:
        """How many consumers a queue has."""
        (found,) = await self._declared(queue)
        return int(found.consumer_count)

    async def _declared(self, *queues: str) -> list[Any]:
        try:
            async with await self.connect() as connection:
                channel = await connection.channel()
                declared = [await channel.declare_queue(queue, passive=True) for queue in queues]
                return [queue.declaration_result for queue in declared]
        except _BROKER_IS_AWAY as error:
            raise AssertionError(f"the broker is away: {error!r}") from error

    # Databases

    def database_url(self, service: str) -> str:
        """Where a service's database is, seen from this machine."""
        return f"postgres://{service}:{service}@127.0.0.1:{self._database_port}/{service}"

    async def query(self, service: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Ask a service's database; AssertionError while it is away."""
        return await self._ask(self.database_url(service), query, *arguments)

    async def now(self, *, seconds: float = 0) -> datetime:
        """The time of the containers, which need not be this machine's, or a time so much later."""
        (row,) = await self.query("payment", "SELECT clock_timestamp() AS now")
        now: datetime = row["now"]
        return now + timedelta(seconds=seconds)

    async def let_leases_run_out(self) -> None:
        """Let the minutes pass for which a sender that was killed has leased its notices."""

        async def passed() -> None:
            await self.query("notify", "UPDATE notice SET due_at = now() WHERE state = 'PENDING'")

        await eventually(passed)

    async def administer(self, query: str) -> None:
        """Tell PostgreSQL something as its superuser."""
        await self._ask(f"postgres://postgres:{PASSWORD}@127.0.0.1:{self._database_port}/postgres", query)

    async def _ask(self, url: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        try:
            connection = await asyncpg.connect(url, timeout=10)
            try:
                return [dict(row) for row in await connection.fetch(query, *arguments, timeout=10)]
            finally:
                await connection.close(timeout=5)
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresConnectionError,
            asyncpg.OperatorInterventionError,
        ) as error:
            raise AssertionError(f"the database is away: {error!r}") from error

    @contextlib.asynccontextmanager
    async def broken(
        self, service: str, table: str, column: str, value: str, *, code: str = "P0001"
    ) -> AsyncIterator[None]:
        """Make every write of a row with this value fail, as no program foresees it, until the context ends.

        `code` is PostgreSQL's own for what went wrong.
        """
        name = f"broken_{secrets.token_hex(4)}"
        await self.query(
            service,
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.{column} = '{value}' THEN RAISE EXCEPTION 'a bad day' USING ERRCODE = '{code}'; "
            "END IF; RETURN NEW; END $$",
        )
        await self.query(
            service,
            f"CREATE TRIGGER {name} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
        )

        async def mended() -> None:
            await self.query(service, f"DROP FUNCTION IF EXISTS {name} CASCADE")

        try:
            yield
        finally:
            await eventually(mended)


#: The queues that somebody must read, or sagas stand still.
_WORK = [queue(service) for service in saga.SERVICES for queue in (topology.events_queue, topology.dead_queue)] + [
    topology.commands_queue(service) for service in saga.SERVICES if saga.command_keys(service)
]


def _addressed(command: Command | Body) -> tuple[str, bytes]:
    key, body = (KEYS[type(command)], command) if isinstance(command, Body) else command
    return key, body if isinstance(body, bytes) else body.encode().encode()


#: The routing key of each command: the one under which the language lists its class.
KEYS = {TYPES[key]: key for service in saga.SERVICES for key in saga.command_keys(service)}


async def _confirmed(exchange: aio_pika.abc.AbstractExchange, commands: Sequence[tuple[str, bytes]]) -> None:
    publishes = (
        exchange.publish(
            aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT), key, mandatory=True, timeout=10
        )
        for key, body in commands
    )
    for outcome in await asyncio.gather(*publishes, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
