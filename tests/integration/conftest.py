"""One database per test: a new SQLite file, or an emptied PostgreSQL database of the service's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from common import db, saga
from tests.support.bench import SERVICES, Bench, Databases, Opens, bench
from tests.support.databases import IS_POSTGRES, Postgres, postgres


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker for what only a server of many connections can show."""
    config.addinivalue_line("markers", "postgres_only: needs PostgreSQL; runs when TEST_DATABASE=postgres")
    config.addinivalue_line("markers", "sqlite_only: about SQLite's files; not with TEST_DATABASE=postgres")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about this process's vendor; test_on_postgres.py starts the other half."""
    unwanted = "sqlite_only" if IS_POSTGRES else "postgres_only"
    left_out = [item for item in items if item.get_closest_marker(unwanted)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """The PostgreSQL server."""
    with postgres() as running:
        yield running


@pytest.fixture(scope="session")
def prefix() -> str:
    """The beginning of the names of this run's databases: two runs may share a server."""
    return f"test_{os.getpid()}_"


@pytest.fixture(scope="session")
def prepared(request: pytest.FixtureRequest, prefix: str) -> Iterator[dict[str, str]]:
    """A database for each service, made once, with all its tables; PostgreSQL only."""
    if not IS_POSTGRES:
        yield {}
        return
    server: Postgres = request.getfixturevalue("server")
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

    if not IS_POSTGRES:
        asyncio.run(migrate())
    return folder


@pytest.fixture
def database(prepared: dict[str, str], template: Path, tmp_path: Path) -> Databases:
    """The URL of an empty database of a service."""

    def url(service: str) -> str:
        if not IS_POSTGRES:
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
        if IS_POSTGRES:
            await _empty(url)
        async with bench(service, url) as opened:
            yield opened

    return open_empty


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '%migration%'"
        )
        names = ", ".join(f'"{row["tablename"]}"' for row in rows)
        await connection.execute(f"TRUNCATE {names} RESTART IDENTITY")
    finally:
        await connection.close()


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
