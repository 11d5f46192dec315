"""Asks each service's database how it is: read-only, all five at once, and none for longer than some seconds."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import re
import sqlite3
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from ops import postgres, where
from ops.doctor.facts import Database
from ops.output import printable

_SECONDS = 8.0
_MIGRATION = re.compile(r"(\d+_\w+)\.py")

_MIGRATIONS = "SELECT name FROM tortoise_migrations ORDER BY name"
_OUTBOX = "SELECT COUNT(*), MIN(staged_at) FROM outbox"


async def look(urls: Mapping[str, str]) -> dict[str, Database]:
    """What each database tells of itself; one that cannot be read tells why."""
    found = await asyncio.gather(*(_look(service, url) for service, url in urls.items()))
    return dict(zip(urls, found, strict=True))


async def _look(service: str, url: str) -> Database:
    place = where.without_password(url)
    facts: dict[str, Any] = {"place": place, "wanted": _wanted(service)}
    ask = {
        "sqlite": _sqlite,
        "postgres": _postgres,
        "postgresql": _postgres,
        "asyncpg": _postgres,
        "mariadb": _mariadb,
    }
    try:
        scheme = urlsplit(url).scheme
        if scheme not in ask:
            return Database(place=place, refusal=f"no way to read {scheme!r} is known here")
        async with asyncio.timeout(_SECONDS):
            return Database(**facts, **await ask[scheme](url))
    except TimeoutError:
        return Database(place=place, refusal=f"no answer within {_SECONDS:.0f} s")
    except (OSError, ValueError, sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        lines = str(error).strip().splitlines()
        return Database(place=place, refusal=printable(lines[0] if lines else type(error).__name__))


def _wanted(service: str) -> tuple[str, ...]:
    """The migrations that this checkout has for a service."""
    files = importlib.resources.files(f"{service}_svc.migrations").iterdir()
    return tuple(sorted(match[1] for file in files if (match := _MIGRATION.fullmatch(file.name))))


async def _sqlite(url: str) -> dict[str, Any]:
    return await asyncio.to_thread(_read_file, url.removeprefix("sqlite://").partition("?")[0])


def _read_file(name: str) -> dict[str, Any]:
    path = Path(name).absolute()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; the service makes it when it starts")
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_SECONDS / 2)) as file:
        applied = file.execute(_MIGRATIONS).fetchall()
        unpublished, oldest = file.execute(_OUTBOX).fetchone()
    return {
        "vendor": "SQLite",
        "version": sqlite3.sqlite_version,
        "applied": tuple(name for (name,) in applied),
        "unpublished": unpublished,
        "oldest": datetime.fromisoformat(oldest) if oldest else None,
    }


async def _postgres(url: str) -> dict[str, Any]:
    connection = await postgres.connect(url, "saga-doctor", seconds=_SECONDS / 2)
    try:
        asked = datetime.now(UTC)
        now, standby, used, limit = await connection.fetchrow(
            "SELECT clock_timestamp(), pg_is_in_recovery(),"
            " (SELECT COUNT(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
            " current_setting('max_connections')::int"
        )
        between = asked + (datetime.now(UTC) - asked) / 2
        applied = await connection.fetch(_MIGRATIONS)
        unpublished, oldest = await connection.fetchrow(_OUTBOX)
        version = await connection.fetchval("SHOW server_version")
        configured = await connection.fetchval(
            "SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'"
        )
    finally:
        with contextlib.suppress(Exception):
            await connection.close(timeout=2)
    return {
        "vendor": "PostgreSQL",
        "version": version,
        "applied": tuple(name for (name,) in applied),
        "read_only": standby or configured == "on",
        "connections": used,
        "connections_limit": limit,
        "unpublished": unpublished,
        "oldest": oldest,
        "ahead": now - between,
    }


async def _mariadb(url: str) -> dict[str, Any]:
    from ops import mariadb  # noqa: PLC0415 - loads a driver that is needed only here

    async with mariadb.session(url, "saga-doctor", seconds=_SECONDS / 2) as session:
        asked = datetime.now(UTC)
        ((now, version, read_only, limit),) = await session.rows(
            "SELECT UTC_TIMESTAMP(6), VERSION(), @@global.read_only, @@global.max_connections"
        )
        between = asked + (datetime.now(UTC) - asked) / 2
        ((_, used),) = await session.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
        applied = await session.rows(_MIGRATIONS)
        ((unpublished, oldest),) = await session.rows(_OUTBOX)
    return {
        "vendor": "MariaDB",
        "version": version.partition("-")[0],
        "applied": tuple(name for (name,) in applied),
        "read_only": bool(read_only),
        "connections": int(used),
        "connections_limit": limit,
        "unpublished": unpublished,
        "oldest": oldest,
        "ahead": now - between,
    }
