"""How each container of the system is made: the same images, names and settings as in compose.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, LogMessageWaitStrategy

from containers.labels import ROOT
from tools.images import Images

USER = PASSWORD = "saga"  # noqa: S105 - for containers that only this machine can reach
_SECOND = 1_000_000_000
_PORT_IS_OPEN = ": < /dev/tcp/127.0.0.1/5672"
#: Schedulers that do not spin while others need the cores, and tables that do not grow with the open files.
_ERLANG = "+sbwt none +sbwtdcpu none +sbwtdio none +Q 65536"


@dataclass(frozen=True, slots=True)
class Plan:
    """What all containers of one system share, and in what it differs from the plainest one."""

    labels: Mapping[str, str]
    brokers: tuple[str, ...] = ("rabbitmq",)
    """The host names of the broker's nodes; with more than one they form a cluster."""
    comes_back: bool = False
    """Whether the engine starts again what has ended, as it does under compose."""
    database_volume: str = ""
    """A volume for the database's files; by default the engine makes one."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What every service is told beside where broker and database are."""


class Kitchen:
    """Makes the containers of one system, none of them started."""

    def __init__(self, images: Images, network: Network, plan: Plan) -> None:
        self._images = images
        self._network = network
        self._plan = plan

    def broker(self, name: str, amqp: int, management: int) -> DockerContainer:
        """One node of the broker, which these two ports of this machine lead to."""
        container = self._container(
            self._images.rabbitmq, name, healthcheck=_every_moment("bash", "-c", _PORT_IS_OPEN)
        ).with_envs(
            RABBITMQ_DEFAULT_USER=USER,
            RABBITMQ_DEFAULT_PASS=PASSWORD,
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=_ERLANG,
        )
        if len(self._plan.brokers) > 1:
            # Nodes of one cluster know one another by a secret and by their names.
            container = container.with_env("RABBITMQ_ERLANG_COOKIE", PASSWORD).with_volume_mapping(
                ROOT / "deploy" / "cluster" / "rabbitmq.conf", "/etc/rabbitmq/conf.d/20-cluster.conf"
            )
        return (
            container.with_bind_ports(5672, amqp)
            .with_bind_ports(15672, management)
            .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(180).with_poll_interval(0.1))
        )

    def database(self, port: int) -> DockerContainer:
        """PostgreSQL with a database and a role for each service."""
        container = (
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
            .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(180).with_poll_interval(0.1))
        )
        if self._plan.database_volume:
            container = container.with_volume_mapping(
                self._plan.database_volume, "/var/lib/postgresql/data", mode="rw"
            )
        return container

    def mariadb(self, port: int) -> DockerContainer:
        """MariaDB with a database and a user for each service."""
        return (
            self._container(
                self._images.mariadb,
                "mariadb",
                # By TCP, as above.
                healthcheck=_every_moment("healthcheck.sh", "--connect"),
            )
            .with_env("MARIADB_ROOT_PASSWORD", PASSWORD)
            .with_volume_mapping(ROOT / "deploy" / "mariadb", "/docker-entrypoint-initdb.d")
            .with_bind_ports(3306, port)
            .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(180).with_poll_interval(0.1))
        )

    def service(
        self, service: str, *, image: str, database: str, vhost: str, settings: Mapping[str, str]
    ) -> DockerContainer:
        """One replica of a service."""
        brokers = (f"amqp://{USER}:{PASSWORD}@{broker}:5672/{vhost}" for broker in self._plan.brokers)
        environment = {
            "RABBITMQ_URL": ",".join(brokers),
            "DATABASE_URL": f"postgres://{service}:{service}@postgres:5432/{database or service}",
            "LOG_FORMAT": "json",
        }
        return (
            # A Python that starts every few seconds in each of ten containers would be the heaviest load of all;
            # the test of compose.yaml looks at health.
            self._container(image or self._images.service, service, healthcheck={"test": ["NONE"]})
            .with_command(["python", "-m", f"{service}_svc"])
            .with_envs(**(environment | dict(self._plan.settings) | dict(settings)))
        )

    def proxy(self, name: str, milliseconds: int, routes: Mapping[int, str]) -> DockerContainer:
        """A proxy that hands on what comes to its ports to these hosts, so much later."""
        return (
            self._container(self._images.service, name, healthcheck={"test": ["NONE"]})
            .with_volume_mapping(Path(__file__).with_name("proxy.py"), "/proxy.py")
            .with_command(
                ["python", "/proxy.py", str(milliseconds), *(f"{port}={host}" for port, host in routes.items())]
            )
            .waiting_for(LogMessageWaitStrategy("carrying").with_poll_interval(0.1))
        )

    def keeper(self, name: str) -> DockerContainer:
        """A container that only keeps the database's volume in use: one in memory ends with its last user."""
        return self._container(
            self._images.service, name, healthcheck={"test": ["NONE"]}, entrypoint=["sleep", "infinity"]
        ).with_volume_mapping(self._plan.database_volume, "/kept")

    def _container(self, image: str, alias: str, **options: object) -> DockerContainer:
        container = DockerContainer(image).with_network(self._network).with_network_aliases(alias)
        if self._plan.comes_back:
            options["restart_policy"] = {"Name": "always"}
        return container.with_kwargs(labels=dict(self._plan.labels), hostname=alias, **options)


def _every_moment(*command: str) -> dict[str, object]:
    return {
        "test": ["CMD", *command],
        "interval": _SECOND // 2,
        "timeout": 5 * _SECOND,
        "start_period": 120 * _SECOND,
        "retries": 60,
    }
