"""A real MariaDB for tests: one that is there, one that is started privately, or one in a container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncmy
import pytest
from asyncmy.cursors import DictCursor
from asyncmy.errors import MySQLError

NO_MARIADB = (
    "no MariaDB: set TEST_MARIADB_URL (mariadb://user:password@host:port/ of a user who may do everything), "
    "install one, or name an image in MARIADB_IMAGE"
)
_SECONDS_TO_START = 60
_PASSWORD = "saga"


@dataclass(frozen=True, slots=True)
class MariaDB:
    """A MariaDB server, by the URL of a user who may create databases."""

    url: str

    def named(self, name: str, *, port: int | None = None) -> str:
        """The URL of a database of this server, at another port if there is something in between."""
        parts = urlsplit(self.url)
        netloc = parts.netloc if port is None else f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{name}"))

    def create(self, name: str) -> str:
        """A new, empty database; its URL. Its collation is the one to fear: ours must come from the tables."""
        self.drop(name)
        self.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
        return self.named(name)

    def drop(self, name: str) -> None:
        """Remove a database."""
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")

    def execute(self, statement: str, database: str | None = None) -> None:
        """Run one statement, outside of any transaction."""
        asyncio.run(ask(self.named(database) if database else self.url, statement))


async def ask(url: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements over a connection of their own; the rows of the last one."""
    parts = urlsplit(url)
    connection = await asyncmy.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=unquote(parts.password or ""),
        db=parts.path[1:] or None,
        autocommit=True,
        connect_timeout=10,
    )
    try:
        async with connection.cursor(DictCursor) as cursor:
            for statement in statements:
                await cursor.execute(statement)
            return list(await cursor.fetchall())
    finally:
        connection.close()


async def empty(url: str) -> None:
    """Remove all rows but the record of migrations."""
    tables = await ask(
        url, "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()"
    )
    names = [row["name"] for row in tables if "migration" not in row["name"]]
    await ask(url, "SET foreign_key_checks = 0", *(f"TRUNCATE TABLE `{name}`" for name in names))


def is_there() -> bool:
    """Whether there is a MariaDB to be had."""
    return "TEST_MARIADB_URL" in os.environ or binaries() is not None or "MARIADB_IMAGE" in os.environ


@contextlib.contextmanager
def mariadb() -> Iterator[MariaDB]:
    """The MariaDB of TEST_MARIADB_URL, or one of our own that is gone afterwards; skips where neither is."""
    if url := os.environ.get("TEST_MARIADB_URL"):
        yield MariaDB(url)
    elif image := os.environ.get("MARIADB_IMAGE"):
        with _contained(image) as server:
            yield server
    elif programs := binaries():
        with private_mariadb(programs) as server:
            yield server
    else:
        pytest.skip(NO_MARIADB)


def binaries() -> tuple[str, str] | None:
    """What makes a MariaDB and what is one; None where it is not installed."""
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"])
    found = [shutil.which(name, path=paths) for name in ("mariadb-install-db", "mariadbd")]
    return (found[0], found[1]) if found[0] and found[1] else None


@contextlib.contextmanager
def private_mariadb(
    programs: tuple[str, str],
    *,
    prepare: Callable[[Path, str | None], Iterable[str]] = lambda _, __: (),
) -> Iterator[MariaDB]:
    """A server of our own; all of it is gone afterwards.

    `prepare` is given its folder and its user, None for our own, before it is started, and gives further options.
    """
    install, program = programs
    with tempfile.TemporaryDirectory(prefix="saga-mariadb-") as folder:
        # It leaves root's rights for those of the user that came with it.
        owner = "mysql" if os.geteuid() == 0 else None
        user = [f"--user={owner}"] if owner else []
        if owner:
            shutil.chown(folder, owner)
        data = Path(folder, "data")
        making = [install, "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"]
        making += ["--auth-root-authentication-method=normal"]
        subprocess.run(making, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120)
        more = prepare(Path(folder), owner)
        port = _free_port()
        socket_file = Path(folder, "socket")
        options = [f"--datadir={data}", f"--socket={socket_file}", f"--port={port}", "--bind-address=127.0.0.1"]
        # What a power cut would take is of no interest here.
        options += ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]
        options += more
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen([program, "--no-defaults", *user, *options], stdout=log, stderr=log) as server,
        ):
            try:
                yield _when_ready(MariaDB(f"mariadb://root@127.0.0.1:{port}/"))
            finally:
                server.terminate()


@contextlib.contextmanager
def _contained(image: str) -> Iterator[MariaDB]:
    port = _free_port()
    run = ["docker", "run", "--detach", "--rm", "--label=concert-saga=test"]
    run += [f"--env=MARIADB_ROOT_PASSWORD={_PASSWORD}", f"--publish=127.0.0.1:{port}:3306", image]
    started = subprocess.run(run, check=True, capture_output=True, text=True, timeout=120)
    container = started.stdout.strip()
    try:
        yield _when_ready(MariaDB(f"mariadb://root:{_PASSWORD}@127.0.0.1:{port}/"))
    finally:
        removing = ["docker", "rm", "--force", "--volumes", container]
        subprocess.run(removing, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)


def _when_ready(server: MariaDB) -> MariaDB:
    async def answers() -> None:
        async with asyncio.timeout(_SECONDS_TO_START):
            while True:
                with contextlib.suppress(OSError, MySQLError):
                    await ask(server.url, "SELECT 1")
                    return
                await asyncio.sleep(0.05)

    asyncio.run(answers())
    return server


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
