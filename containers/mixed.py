"""The same system with a different vendor under each service: where no common transaction could ever exist."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncmy
from asyncmy.cursors import DictCursor
from asyncmy.errors import MySQLError
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from containers.node import Node
from containers.recipes import PASSWORD, Kitchen, Plan
from containers.system import PLAIN, System
from tools.images import Images
from tools.loopback import free_ports

#: Who stores where.
VENDORS: Mapping[str, str] = {
    "payment": "postgres",
    "reservation": "mariadb",
    "point": "postgres",
    "queue": "sqlite",
    "notify": "mariadb",
}
#: Where the folder of SQLite's files is in a container.
_FOLDER = "/data"


class _Kitchen(Kitchen):
    """The services whose files outlive their containers have them in a folder of this machine."""

    def __init__(self, images: Images, network: Network, plan: Plan, folder: Path) -> None:
        super().__init__(images, network, plan)
        self._folder = folder

    def service(
        self, service: str, *, image: str, database: str, vhost: str, settings: Mapping[str, str]
    ) -> DockerContainer:
        """One replica of a service, on its own vendor."""
        where = {
            "postgres": f"postgres://{service}:{service}@postgres:5432/{service}",
            "mariadb": f"mariadb://{service}:{service}@mariadb:3306/{service}",
            "sqlite": f"sqlite://{_FOLDER}/{service}.sqlite3",
        }[VENDORS[service]]
        told = {"DATABASE_URL": where} | dict(settings)
        container = super().service(service, image=image, database=database, vhost=vhost, settings=told)
        if VENDORS[service] == "sqlite":
            container = container.with_volume_mapping(self._folder, _FOLDER, mode="rw")
        return container


class MixedSystem(System):
    """Brokers, PostgreSQL, MariaDB and the services, each on the vendor that `VENDORS` gives it."""

    def __init__(self, images: Images, folder: Path, plan: Plan = PLAIN) -> None:
        """`folder` is where SQLite's files will be; whoever the services run as must be able to write there."""
        super().__init__(images, plan)
        self._folder = folder
        (self._mariadb_port,) = free_ports(1)
        self.kitchen = _Kitchen(images, self._network, self.plan, folder)
        self.mariadb = Node("mariadb", self.kitchen.mariadb(self._mariadb_port))

    @property
    def databases(self) -> Sequence[Node]:
        """PostgreSQL and MariaDB."""
        return [self.database, self.mariadb]

    def database_url(self, service: str) -> str:
        """Where a service's database is, seen from this machine."""
        match VENDORS[service]:
            case "mariadb":
                return f"mariadb://{service}:{service}@127.0.0.1:{self._mariadb_port}/{service}"
            case "sqlite":
                return f"sqlite://{self._folder}/{service}.sqlite3"
        return super().database_url(service)

    async def query(self, service: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        """Ask a service's database in PostgreSQL's words; AssertionError while it is away."""
        match VENDORS[service]:
            case "mariadb":
                asked = re.sub(r"\$\d", "%s", query).replace("now()", "UTC_TIMESTAMP(6)")
                return await self._ask_mariadb(self.database_url(service), asked, *arguments)
            case "sqlite":
                asked = re.sub(r"\$(\d)", r"?\1", query)
                return await asyncio.to_thread(self._ask_sqlite, service, asked, *arguments)
        return await super().query(service, query, *arguments)

    async def administer_mariadb(self, query: str) -> list[dict[str, Any]]:
        """Tell MariaDB something as its root."""
        return await self._ask_mariadb(f"mariadb://root:{PASSWORD}@127.0.0.1:{self._mariadb_port}/mysql", query)

    async def _ask_mariadb(self, url: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(10):
                connection = await asyncmy.connect(
                    host=parts.hostname,
                    port=parts.port,
                    user=parts.username,
                    password=parts.password,
                    database=parts.path[1:],
                    autocommit=True,
                )
                try:
                    async with connection.cursor(DictCursor) as cursor:
                        await cursor.execute(query, list(arguments) or None)
                        return list(await cursor.fetchall())
                finally:
                    connection.close()
        except (OSError, TimeoutError, MySQLError) as error:
            raise AssertionError(f"the database is away: {error!r}") from error

    def _ask_sqlite(self, service: str, query: str, *arguments: object) -> list[dict[str, Any]]:
        path = self._folder / f"{service}.sqlite3"
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, arguments).fetchall()]
        except sqlite3.Error as error:
            raise AssertionError(f"the database is away: {error!r}") from error
        finally:
            connection.close()
