"""Real databases for tests: SQLite files, or a server that is there or is started privately.

One process works with one vendor, because Tortoise keeps its statements per model and not per vendor:
TEST_DATABASE chooses, `sqlite` (the default), `postgres` or `mariadb`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.support.mariadb import MariaDB, mariadb
from tests.support.mariadb import ask as ask_mariadb
from tests.support.mariadb import empty as empty_mariadb

VENDOR = os.environ.get("TEST_DATABASE", "sqlite")
IS_SQLITE = VENDOR == "sqlite"
NO_POSTGRES = (
    "no PostgreSQL: set TEST_POSTGRES_URL (postgres://user:password@host:port/name of a user who may create "
    "databases), or install one"
)
_SECONDS_TO_START = 30


@dataclass(frozen=True, slots=True)
class Postgres:
    """A PostgreSQL server, by the URL of one database and a user who may create others."""

    url: str

    def named(self, name: str, *, port: int | None = None) -> str:
        """The URL of another database of this server, at another port if there is something in between."""
        parts = urlsplit(self.url)
        netloc = parts.netloc if port is None else f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{name}"))

    def create(self, name: str) -> str:
        """A new, empty database; its URL."""
        self.drop(name)
        self.execute(f'CREATE DATABASE "{name}"')
        return self.named(name)

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str | None = None) -> None:
        """Run one statement, outside of any transaction."""

        async def run() -> None:
            connection = await asyncpg.connect(self.named(database) if database else self.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        asyncio.run(run())


Server = Postgres | MariaDB


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """The server of this process's vendor; skips where there is none."""
    with mariadb() if VENDOR == "mariadb" else postgres() as running:
        yield running


async def ask(url: str, *statements: str) -> list[dict[str, Any]]:
    """Run statements over a connection of their own; the rows of the last one."""
    if url.startswith("mariadb://"):
        return await ask_mariadb(url, *statements)
    connection = await asyncpg.connect(url)
    rows = []
    try:
        for statement in statements:
            rows = await connection.fetch(statement)
    finally:
        await connection.close()
    return [dict(row) for row in rows]


async def empty(url: str) -> None:
    """Remove all rows of a database but the record of migrations."""
    if url.startswith("mariadb://"):
        await empty_mariadb(url)
        return
    rows = await ask(
        url,
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%migration%'",
    )
    names = ", ".join(f'"{row["tablename"]}"' for row in rows)
    await ask(url, f"TRUNCATE {names} RESTART IDENTITY")


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return versions[-1].parent if versions else None


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL of TEST_POSTGRES_URL, or a private one that is gone afterwards; skips where neither is."""
    url = os.environ.get("TEST_POSTGRES_URL")
    if url:
        yield Postgres(url)
        return
    programs = binaries()
    if programs is None:
        pytest.skip(NO_POSTGRES)
    with private_postgres(programs) as running:
        yield running


@contextlib.contextmanager
def private_postgres(
    programs: Path, *, prepare: Callable[[Path, str | None], Iterable[str]] = lambda _, __: ()
) -> Iterator[Postgres]:
    """A server of our own; all of it is gone afterwards.

    `prepare` is given its folder and its user, None for our own, before it is started, and gives further options.
    """
    with tempfile.TemporaryDirectory(prefix="saga-postgres-") as folder:
        # PostgreSQL refuses to run as root, so root starts it as the user that came with it.
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(folder, user)
        data = Path(folder, "data")
        port = _free_port()
        initdb: list[str | Path] = [programs / "initdb", "-D", data]
        initdb += ["-U", "saga", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120)
        more = prepare(Path(folder), user)
        run: list[str | Path] = [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-F"]
        run += ["-c", "listen_addresses=127.0.0.1", *more]
        with (
            Path(folder, "log").open("wb") as log,
            subprocess.Popen(run, user=user, cwd=folder, stderr=log) as server,
        ):
            try:
                running = Postgres(f"postgres://saga@127.0.0.1:{port}/postgres")
                asyncio.run(_answers(running.url))
                yield running
            finally:
                server.send_signal(2)  # closes all connections, then leaves


async def _answers(url: str) -> None:
    async with asyncio.timeout(_SECONDS_TO_START):
        while True:
            with contextlib.suppress(OSError, asyncpg.PostgresError):
                await (await asyncpg.connect(url)).close()
                return
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Wire:
    """A way to a server that can be cut and mended: a TCP proxy at `port`."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = _free_port()

    async def mend(self) -> None:
        """Let connections through."""
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(_pump(reader, back), _pump(there, writer))
        self._writers -= {writer, back}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def wire(server: Server) -> AsyncIterator[Wire]:
    """A way to this server, open at first."""
    parts = urlsplit(server.url)
    way = Wire(parts.hostname or "127.0.0.1", parts.port or (3306 if isinstance(server, MariaDB) else 5432))
    await way.mend()
    try:
        yield way
    finally:
        await way.cut()
