"""What stands while contenders take turns: an empty RabbitMQ and an empty PostgreSQL, with their own defaults.

In containers where there is a Docker engine, reached at their own addresses, so that no proxy of Docker's takes
part; else a private RabbitMQ and an installed PostgreSQL. Durability is nowhere touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import docker  # type: ignore[import-untyped] # it brings no types

from tools import images
from tools.broker import start_private
from tools.docker_engine import SetupError
from tools.images import Images
from tools.loopback import ask, free_ports, speaks_amqp
from tools.processes import until

_LABELS = {"concert-saga": "bench"}
_USER = "saga"
_PASSWORD = _USER
_SECONDS_TO_START = 120


@dataclass(frozen=True, slots=True)
class Stand:
    """Where broker and database are, and how they are told apart in the machine's books."""

    amqp_url: str
    management_url: str
    postgres_url: str
    """Empty where there is no PostgreSQL."""
    how: str
    """`containers` or `processes`, for the report."""
    groups: dict[str, int]
    """The first process of the broker and of the database: theirs are all that descend from it."""
    user: str = _USER
    password: str = _PASSWORD

    def broker(self, path: str) -> Any:  # noqa: ANN401 - any JSON
        """Ask the management API; ConnectionError unless it is content."""
        status, answer = ask(f"{self.management_url}/api/{path}", user=self.user, password=self.password)
        if status != 200:
            raise ConnectionError(f"the management API answers {status} to {path}")
        return answer

    def describe(self) -> dict[str, str]:
        """Versions and settings that matter to the figures, as the servers themselves tell them."""
        overview = self.broker("overview")
        facts = {
            "rabbitmq": f"{overview['rabbitmq_version']} on Erlang {overview['erlang_version']}, {self.how}",
        }
        if self.postgres_url:
            names = "server_version", "fsync", "synchronous_commit", "shared_buffers", "max_wal_size"
            shown = {name: self.query(f"SHOW {name}")[0][0] for name in names}
            version = shown.pop("server_version")
            facts["postgresql"] = f"{version}, {', '.join(f'{name} {value}' for name, value in shown.items())}"
        return facts

    def query(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement in a database of PostgreSQL, outside of any transaction."""
        url = urlunsplit(urlsplit(self.postgres_url)._replace(path=f"/{database}"))

        async def run() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(url)
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return asyncio.run(run())


@contextlib.contextmanager
def standing(how: str = "auto") -> Iterator[Stand]:
    """Start broker and database, and remove them with all they hold at the end.

    In `containers`, as `processes`, or, `auto`, whatever the machine has; raises SetupError or BrokerError.
    """
    found = None
    if how != "processes":
        try:
            found = images.ensure(service=False)
        except SetupError:
            if how == "containers":
                raise
    with _containers(found) if found else _processes() as stand:
        yield stand


@contextlib.contextmanager
def _containers(found: Images) -> Iterator[Stand]:
    with contextlib.ExitStack() as stack:
        client = docker.from_env()
        stack.callback(client.close)

        def run(image: str, **options: Any) -> Any:  # noqa: ANN401 - docker brings no types
            container = client.containers.run(image, detach=True, labels=_LABELS, **options)
            stack.callback(container.remove, force=True, v=True)
            container.reload()
            return container

        broker = run(
            found.rabbitmq,
            hostname="rabbitmq",
            environment={
                "RABBITMQ_DEFAULT_USER": _USER,
                "RABBITMQ_DEFAULT_PASS": _PASSWORD,
                # As in compose.yaml.
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none +Q 65536",
            },
        )
        database = run(
            found.postgres,
            command=["postgres", "-c", "max_connections=200"],
            environment={"POSTGRES_PASSWORD": _PASSWORD},
        )
        stand = Stand(
            amqp_url=f"amqp://{_USER}:{_PASSWORD}@{_address(broker)}:5672/",
            management_url=f"http://{_address(broker)}:15672",
            postgres_url=f"postgres://postgres:{_PASSWORD}@{_address(database)}:5432/postgres",
            how="containers",
            groups={"rabbitmq": broker.attrs["State"]["Pid"], "postgresql": database.attrs["State"]["Pid"]},
        )
        _wait(stand, _address(broker), 5672)
        yield stand


def _address(container: Any) -> str:  # noqa: ANN401 - docker brings no types
    networks = container.attrs["NetworkSettings"]["Networks"]
    return str(next(iter(networks.values()))["IPAddress"])


@contextlib.contextmanager
def _processes() -> Iterator[Stand]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-bench-")))
        node = start_private(folder / "broker")
        stack.callback(node.remove)
        broker = node.broker
        database, pid = stack.enter_context(_postgres())
        stand = Stand(
            amqp_url=broker.amqp_url,
            management_url=broker.management_url,
            postgres_url=database,
            how="processes",
            groups={"rabbitmq": broker.pid or 0} | ({"postgresql": pid} if pid else {}),
            user=broker.user,
            password=broker.password,
        )
        address = urlsplit(broker.amqp_url)
        _wait(stand, address.hostname or "127.0.0.1", address.port or 5672)
        yield stand


@contextlib.contextmanager
def _postgres() -> Iterator[tuple[str, int]]:
    """An installed PostgreSQL, started privately: its URL and process; nothing where there is none."""
    # Debian keeps them off the PATH.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    programs = found[-1] if found else Path(shutil.which("initdb") or "").parent
    if not (programs / "initdb").exists():
        yield "", 0
        return
    with tempfile.TemporaryDirectory(prefix="saga-bench-postgres-") as folder:
        # PostgreSQL refuses to run as root, so root starts it as the user that came with it.
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        (port,) = free_ports(1)
        data = Path(folder, "data")
        initdb: list[str | Path] = [programs / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8"]
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)
        options: list[str | Path] = [
            *("-D", data),
            *("-p", str(port)),
            *("-k", folder),
            *("-c", "listen_addresses=127.0.0.1"),
            *("-c", "max_connections=200"),
        ]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen([programs / "postgres", *options], user=user, cwd=folder, stderr=log) as server,
        ):
            try:
                yield f"postgres://{_USER}@127.0.0.1:{port}/postgres", server.pid
            finally:
                server.send_signal(2)  # closes all connections, then leaves


def _wait(stand: Stand, host: str, port: int) -> None:
    def ready() -> bool:
        with contextlib.suppress(OSError, asyncpg.PostgresError):
            if stand.postgres_url:
                stand.query("SELECT 1")
            return speaks_amqp(host, port) and bool(stand.broker("overview"))
        return False

    if not until(ready, seconds=_SECONDS_TO_START, pause=0.3):
        raise TimeoutError("broker and database did not start in time")
