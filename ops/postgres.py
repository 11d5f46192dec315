"""A look into a PostgreSQL database: one connection, by a service's own URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from common import tls


async def connect(url: str, program: str, *, seconds: float) -> Any:  # noqa: ANN401 - asyncpg brings no types
    """Connect as the service does. `program` is the name under which the server lists the connection."""
    address, options = address_of(url, program)
    with tls.told(options.get("ssl")):
        return await asyncpg.connect(address, timeout=seconds, **options)


def address_of(url: str, program: str) -> tuple[str, dict[str, Any]]:
    """A service's URL as asyncpg takes it, without the options that only Tortoise knows; raises ValueError."""
    parts, given = urlsplit(url), tls.options_of(url)
    options: dict[str, Any] = {"server_settings": {"application_name": program}}
    if schema := given.get("schema"):
        options["server_settings"]["search_path"] = schema
    if encryption := tls.of_database(url):
        options["ssl"] = encryption
    return urlunsplit(("postgresql", parts.netloc, parts.path, "", "")), options
