"""A look into a MariaDB database: one connection that only reads, and times that know their offset."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, cast
from urllib.parse import unquote, urlsplit

from asyncmy import connect
from asyncmy.constants import FIELD_TYPE
from asyncmy.converters import conversions, convert_datetime
from asyncmy.cursors import SSCursor
from asyncmy.errors import MySQLError

from common import tls

Row = tuple[Any, ...]


class Session:
    """A connection, and what it can be asked. What goes wrong is told as an OSError."""

    def __init__(self, connection: Any) -> None:  # noqa: ANN401 - asyncmy's types say little
        self._connection = connection
        self._aside = contextlib.ExitStack()

    async def rows(self, query: str, values: Sequence[object] = ()) -> list[Row]:
        """Give all rows of a query."""
        with _told():
            async with self._connection.cursor() as cursor:
                await cursor.execute(query, list(values) or None)
                return list(map(tuple, await cursor.fetchall()))

    async def pages(self, query: str, size: int) -> Callable[[], Any]:
        """Run a query whose rows are too many to keep; what is given reads the next page of them.

        A connection gives one result at a time, so it is put aside in a file.
        """
        aside = self._file()
        with _told():
            async with self._connection.cursor(SSCursor) as cursor:
                await cursor.execute(query)
                while page := await cursor.fetchmany(size):
                    aside.write(json.dumps(page, default=datetime.isoformat) + "\n")
        aside.seek(0)

        async def next_page() -> list[Row]:
            line = aside.readline()
            return list(map(tuple, json.loads(line))) if line else []

        return next_page

    def _file(self) -> IO[str]:
        return self._aside.enter_context(tempfile.TemporaryFile("w+"))

    def close(self) -> None:
        """Leave, and throw away what was put aside."""
        self._aside.close()
        self._connection.close()


@contextlib.asynccontextmanager
async def session(url: str, program: str, *, seconds: float) -> AsyncIterator[Session]:
    """Connect with a service's own URL, and leave again. `program` is how the server lists the connection."""
    parts = urlsplit(url)
    encryption = tls.of_database(url)
    with _told(), tls.told(encryption):
        async with asyncio.timeout(seconds):
            connection = await connect(
                host=parts.hostname,
                port=parts.port or 3306,
                user=unquote(parts.username or ""),
                password=unquote(parts.password or ""),
                db=parts.path[1:],
                program_name=program,
                ssl=encryption,
                conv=conversions | {FIELD_TYPE.DATETIME: _utc},
                init_command="SET SESSION time_zone = '+00:00', tx_isolation = 'REPEATABLE-READ', "
                "collation_connection = utf8mb4_nopad_bin",
                autocommit=True,
            )
    with contextlib.closing(Session(connection)) as opened:
        yield opened


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except MySQLError as error:
        raise OSError(str(error.args[-1] if error.args else type(error).__name__)) from error


def _utc(told: Any) -> datetime:  # noqa: ANN401 - text or bytes
    return cast("datetime", convert_datetime(told)).replace(tzinfo=UTC)
