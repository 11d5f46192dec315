"""One database per test: a new SQLite file, or an emptied database of the service's own on a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from common import db, saga
from tests.support import databases
from tests.support.bench import SERVICES, Bench, Databases, Opens, bench
from tests.support.databases import IS_SQLITE, VENDOR, Server

#: Which vendors the tests with a marker are about.
_ONLY = {
    "sqlite_only": ({"sqlite"}, "about SQLite's files"),
    "postgres_only": ({"postgres"}, "about PostgreSQL; runs when TEST_DATABASE=postgres"),
    "mariadb_only": ({"mariadb"}, "about MariaDB; runs when TEST_DATABASE=mariadb"),
    "server_only": ({"postgres", "mariadb"}, "about a server of many connections; not on SQLite"),
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers for what only some vendors can show."""
    for marker, (_, about) in _ONLY.items():
        config.addinivalue_line("markers", f"{marker}: {about}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about this process's vendor; test_on_servers.py starts the others."""
    unwanted = [marker for marker, (vendors, _) in _ONLY.items() if VENDOR not in vendors]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in unwanted)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server of this process's vendor."""
    with databases.server() as running:
        yield running


@pytest.fixture(scope="session")
def prefix() -> str:
    """The beginning of the names of this run's databases: two runs may share a server."""
    return f"test_{os.getpid()}_"


@pytest.fixture(scope="session")
def prepared(request: pytest.FixtureRequest, prefix: str) -> Iterator[dict[str, str]]:
    """A database for each service, made once, with all its tables; on a server only."""
    if IS_SQLITE:
        yield {}
        return
    server: Server = request.getfixturevalue("server")
    urls = {service: server.create(prefix + service) for service in saga.SERVICES}

    async def migrate() -> None:
        for service, url in urls.items():
            async with db.open_database(url, SERVICES[service].modules, SERVICES[service].migrations):
                pass

    asyncio.run(migrate())
    yield urls
    for service in saga.SERVICES:
        server.drop(prefix + service)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SQLite file for each service, made once, with all its tables."""
    folder = tmp_path_factory.mktemp("templates")

    async def migrate() -> None:
        for service, what in SERVICES.items():
            async with db.open_database(f"sqlite://{folder}/{service}", what.modules, what.migrations):
                pass

    if IS_SQLITE:
        asyncio.run(migrate())
    return folder


@pytest.fixture
def database(prepared: dict[str, str], template: Path, tmp_path: Path) -> Databases:
    """The URL of an empty database of a service."""

    def url(service: str) -> str:
        if IS_SQLITE:
            path = tmp_path / f"{service}.sqlite3"
            path.write_bytes((template / service).read_bytes())
            return f"sqlite://{path}?synchronous=OFF"
        return prepared[service]

    return url


@pytest.fixture
def opened(database: Databases) -> Opens:
    """A way to open a service on an empty database, for tests that name it themselves."""

    @contextlib.asynccontextmanager
    async def open_empty(service: str) -> AsyncIterator[Bench]:
        url = database(service)
        if not IS_SQLITE:
            await databases.empty(url)
        async with bench(service, url) as opened:
            yield opened

    return open_empty


@pytest.fixture
async def payment(opened: Opens) -> AsyncIterator[Bench]:
    """The payment service on an empty database."""
    async with opened("payment") as service:
        yield service


@pytest.fixture
async def reservation(opened: Opens) -> AsyncIterator[Bench]:
    """The reservation service on an empty database."""
    async with opened("reservation") as service:
        yield service


@pytest.fixture
async def point(opened: Opens) -> AsyncIterator[Bench]:
    """The point service on an empty database."""
    async with opened("point") as service:
        yield service


@pytest.fixture
async def queue(opened: Opens) -> AsyncIterator[Bench]:
    """The queue service on an empty database."""
    async with opened("queue") as service:
        yield service


@pytest.fixture
async def notify(opened: Opens) -> AsyncIterator[Bench]:
    """The notify service on an empty database."""
    async with opened("notify") as service:
        yield service
