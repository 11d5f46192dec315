"""A whole saga system in containers of its own, and the hands that break it: stop, kill, pause, cut off, start.

One broker, one PostgreSQL with a database and a role for each service, and the five services. Everything is
labelled, so that what a run leaves behind when it is cut off is found and removed by the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import aio_pika
import aiohttp
import aiormq
import asyncpg
import docker  # type: ignore[import-untyped] # it brings no types
import docker.errors  # type: ignore[import-untyped] # as above
import pytest
from aio_pika.exceptions import PublishError
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, LogMessageWaitStrategy

from common import saga, topology
from common.messages import TYPES, Body
from tests.support.eventually import eventually
from tools.images import Images
from tools.loopback import free_ports

ROOT = Path(__file__).resolve().parents[2]
#: Every container and network of these tests; `make test` removes by this label, too.
LABEL = ("concert-saga", "test")
#: One checkout's run must not remove what another checkout's run is using.
CHECKOUT = ("concert-saga.checkout", hashlib.sha256(str(ROOT).encode()).hexdigest()[:12])
LABELS = dict((LABEL, CHECKOUT))
#: The name under which the test of compose.yaml runs it.
PROJECT = f"concert-saga-e2e-{CHECKOUT[1]}"

#: Spent retries take seconds, not minutes.
RETRY_DELAYS = "300ms,600ms"
USER = PASSWORD = "saga"
_SECOND = 1_000_000_000
_BROKER_IS_AWAY = (
    aiormq.exceptions.AMQPError,
    aiormq.exceptions.ChannelInvalidStateError,
    OSError,
    TimeoutError,
)

#: A command and the routing key under which it is published; bytes for what no client should send.
Command = tuple[str, Body | bytes]


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
            HealthcheckWaitStrategy().with_poll_interval(0.1).wait_until_ready, self._container
        )

    async def restart(self) -> None:
        """Stop it in good order and start it again."""
        await asyncio.to_thread(self._raw.restart, timeout=20)

    async def pause(self) -> None:
        """Freeze it: its connections stay open and nobody answers on them."""
        await asyncio.to_thread(self._raw.pause)

    async def unpause(self) -> None:
        """Let it go on as if no time had passed."""
        await asyncio.to_thread(self._raw.unpause)

    async def cut_off(self, network: str) -> None:
        """Take it off the network without a word to anybody, as a pulled cable does."""
        await asyncio.to_thread(self._raw.client.networks.get(network).disconnect, self.id)

    async def reconnect(self, network: str) -> None:
        """Put it on the network again; its address may be another one now."""
        connect = self._raw.client.networks.get(network).connect
        await asyncio.to_thread(lambda: connect(self.id, aliases=[self.name]))

    async def run(self, *command: str) -> str:
        """Run a command inside; what it said. AssertionError if it fails."""
        result = await asyncio.to_thread(self._container.exec, list(command))
        said = result.output.decode()
        assert result.exit_code == 0, said
        return said

    async def heal(self) -> None:
        """Bring it back from whatever a test did to it."""
        state = self.state
        if state["Paused"]:
            await self.unpause()
        elif not state["Running"]:
            await self.start()


class System:
    """Broker, PostgreSQL, and any number of replicas of each service on one network."""

    def __init__(self, images: Images) -> None:
        self._images = images
        self._network = Network(
            docker_network_kw={
                "labels": LABELS,
                # Published ports are for this machine alone; their passwords are known to everybody.
                "options": {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"},
            }
        )
        self.network = self._network.name
        # Fixed, because a port that the engine chooses changes when its container is started again.
        amqp, management, database = free_ports(3)
        self.amqp_url = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{amqp}/"
        self.management_url = f"http://127.0.0.1:{management}"
        self._database_port = database
        self.broker = Node("broker", self._broker(amqp, management))
        self.database = Node("database", self._database(database))
        self.services: dict[str, Node] = {}
        self._replicas: list[Node] = []

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Start all of it, and remove all of it at the end."""
        try:
            self._network.create()
            self.database.begin()
            self.broker.begin()
            # As anybody would start them: all at once, in any order, none waiting for another.
            self.services = {service: self._service(service, waiting=False) for service in saga.SERVICES}
            for node in self.services.values():
                self._wait_for_service(node)
            yield self
        finally:
            tidy()

    def _container(self, image: str, alias: str, **options: object) -> DockerContainer:
        container = DockerContainer(image).with_network(self._network).with_network_aliases(alias)
        return container.with_kwargs(labels=LABELS, hostname=alias, **options)

    def _broker(self, amqp: int, management: int) -> DockerContainer:
        return (
            self._container(
                self._images.rabbitmq, "rabbitmq", healthcheck=_every_moment("bash", "-c", _PORT_IS_OPEN)
            )
            .with_envs(
                RABBITMQ_DEFAULT_USER=USER,
                RABBITMQ_DEFAULT_PASS=PASSWORD,
                # As in compose.yaml: schedulers that spin take the cores from everybody else.
                RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+sbwt none +sbwtdcpu none +sbwtdio none +Q 65536",
            )
            .with_bind_ports(5672, amqp)
            .with_bind_ports(15672, management)
            .waiting_for(HealthcheckWaitStrategy().with_poll_interval(0.1))
        )

    def _database(self, port: int) -> DockerContainer:
        return (
            self._container(
                self._images.postgres,
                "postgres",
                # By TCP: while the databases are being made it answers on its socket only.
                healthcheck=_every_moment("pg_isready", "--quiet", "--host=127.0.0.1", "--username=postgres"),
            )
            .with_command(["postgres", "-c", "max_connections=200"])
            .with_env("POSTGRES_PASSWORD", PASSWORD)
            .with_volume_mapping(ROOT / "deploy" / "postgres", "/docker-entrypoint-initdb.d")
            .with_bind_ports(5432, port)
            .waiting_for(HealthcheckWaitStrategy().with_poll_interval(0.1))
        )

    def _service(
        self, service: str, *, waiting: bool = True, database: str = "", vhost: str = "", **settings: str
    ) -> Node:
        environment = {
            "RABBITMQ_URL": f"amqp://{USER}:{PASSWORD}@rabbitmq:5672/{vhost}",
            "DATABASE_URL": f"postgres://{service}:{service}@postgres:5432/{database or service}",
            "RETRY_DELAYS": RETRY_DELAYS,
            "SWEEP_SECONDS": "1",
            "LOG_FORMAT": "json",
        }
        container = (
            # A Python that starts every few seconds in each of ten containers would be the heaviest load of all;
            # the test of compose.yaml looks at health.
            self._container(self._images.service, service, healthcheck={"test": ["NONE"]})
            .with_command(["python", "-m", f"{service}_svc"])
            .with_envs(**(environment | settings))
        )
        node = Node(service, container).begin()
        if waiting:
            self._wait_for_service(node)
        return node

    def _wait_for_service(self, node: Node) -> None:
        LogMessageWaitStrategy("taking messages").with_startup_timeout(60).with_poll_interval(
            0.1
        ).wait_until_ready(node._container)

    async def replica(
        self, service: str, *, waiting: bool = True, database: str = "", vhost: str = "", **settings: str
    ) -> Node:
        """Start one more replica of a service; `heal` removes it. It may get a database and vhost of its own."""
        node = await asyncio.to_thread(
            lambda: self._service(service, waiting=waiting, database=database, vhost=vhost, **settings)
        )
        self._replicas.append(node)
        return node

    async def remove_replicas(self) -> None:
        """Remove all replicas but the first of each service."""
        replicas, self._replicas = self._replicas, []
        await asyncio.gather(*(asyncio.to_thread(replica.remove) for replica in replicas))

    async def heal(self) -> None:
        """Remove the replicas and bring back what is stopped or paused, whatever a test did."""
        await self.remove_replicas()
        for node in (self.database, self.broker, *self.services.values()):
            await node.heal()
        await self.database.ready()
        await self.broker.ready()
        try:
            await eventually(self.is_consuming)
        except pytest.fail.Exception:
            # A service hangs. That is this test's to tell; the next one begins with services that work.
            await asyncio.gather(*(node.restart() for node in self.services.values()))
            await eventually(self.is_consuming)
            raise

    async def is_consuming(self) -> None:
        """Assert that every queue of work has a consumer."""
        for queue in await self._declared(*_WORK):
            assert queue.consumer_count, f"nobody reads {queue.queue}"

    # Messages

    async def publish(self, *commands: Command | Body, seconds: float = 60) -> None:
        """Publish over AMQP, confirmed and mandatory; while the broker is away, try again, as a client should."""
        waiting = [_addressed(command) for command in commands]

        async def attempt() -> None:
            try:
                async with await aio_pika.connect(self.amqp_url, timeout=5) as connection:
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
        url = f"{self.management_url}/api/{path}"
        try:
            async with (
                aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(10)) as session,
                session.request(method, url, json=content or None) as answer,
            ):
                text = await answer.text()
                assert answer.ok, f"{answer.status} {text}"
                return json.loads(text) if text else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise AssertionError(f"the management API is away: {error!r}") from error

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
            async with await aio_pika.connect(self.amqp_url, timeout=5) as connection:
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

_PORT_IS_OPEN = ": < /dev/tcp/127.0.0.1/5672"


def _every_moment(*command: str) -> dict[str, object]:
    return {
        "test": ["CMD", *command],
        "interval": _SECOND // 2,
        "timeout": 5 * _SECOND,
        "start_period": 120 * _SECOND,
        "retries": 60,
    }


def _addressed(command: Command | Body) -> tuple[str, bytes]:
    key, body = (_KEYS[type(command)], command) if isinstance(command, Body) else command
    return key, body if isinstance(body, bytes) else body.encode().encode()


#: The routing key of each command: the one under which the language lists its class.
_KEYS = {TYPES[key]: key for service in saga.SERVICES for key in saga.command_keys(service)}


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


def engine() -> Any:  # noqa: ANN401 - docker brings no types
    """A client of the Docker engine; to be closed."""
    return docker.from_env()


def of_project(project: str) -> dict[str, list[str]]:
    """The filter that finds what compose made under a name."""
    return {"label": [f"com.docker.compose.project={project}"]}


def tidy(project: str | None = None) -> None:
    """Remove what this checkout's tests started, also in a run that was cut off; or only what compose did."""
    kinds = [of_project(PROJECT)]
    if project is None:
        kinds.append({"label": [f"{key}={value}" for key, value in LABELS.items()]})
    with contextlib.closing(engine()) as client:
        for mine in kinds:
            _remove(client.containers.list(all=True, filters=mine), lambda found: found.remove(force=True, v=True))
            _remove(client.networks.list(filters=mine), lambda found: found.remove())
            _remove(client.volumes.list(filters=mine), lambda found: found.remove())


def _remove(found: Iterable[Any], remove: Callable[[Any], None]) -> None:
    for one in found:
        # Somebody else, such as the trap of `make test`, may be at it as well.
        with contextlib.suppress(docker.errors.NotFound):
            remove(one)
