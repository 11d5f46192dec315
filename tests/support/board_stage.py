"""A board over a history that a test tells: no broker, the real web server, and a source that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from common.history import Record
from ops.board.feed import Feed
from ops.board.guard import Guard
from ops.board.site import application, open_site
from ops.board.watching import Places, Watch
from ops.output import CannotLookError

AWAY = "No broker answers at 127.0.0.1:5672 (user saga): is it running?"


class Cut:
    """Stands in the source for the loss of the broker."""


@dataclass(slots=True)
class Source:
    """What the board reads: told record by record, cut and mended at will."""

    records: list[Record] = field(default_factory=list)
    broken: bool = False
    _waiting: asyncio.Queue[Record | Cut] = field(default_factory=asyncio.Queue)

    def tell(self, records: Iterable[Record]) -> None:
        """Add records to the history."""
        for record in records:
            self.records.append(record)
            self._waiting.put_nowait(record)

    def cut(self) -> None:
        """Take the broker away."""
        self.broken = True
        self._waiting.put_nowait(Cut())

    def mend(self) -> None:
        """Bring it back, with all that was told."""
        self.broken = False

    async def follow(self, since: datetime) -> AsyncGenerator[Record | None, None]:
        """What `ops.board.running` does with a real broker."""
        if self.broken:
            raise CannotLookError(AWAY)
        self._waiting = asyncio.Queue()
        yield None
        for record in [record for record in self.records if record.at >= since]:
            yield record
        while True:
            told = await self._waiting.get()
            if isinstance(told, Cut):
                raise CannotLookError(AWAY)
            yield told

    async def read(self, id_: str, since: datetime | None) -> AsyncGenerator[Record, None]:
        """What is in the history of one saga."""
        for record in self.records:
            if (since is None or record.at >= since) and any(entry.saga == id_ for entry in record.entries):
                yield record


@dataclass(slots=True)
class Stage:
    """A board that is open."""

    address: str
    source: Source
    watch: Watch
    feed: Feed


@contextlib.asynccontextmanager
async def staged(
    *, places: Places | None = None, port: int = 0, guard: Guard | None = None
) -> AsyncIterator[Stage]:
    """A board for as long as the context is open."""
    feed, source = Feed(), Source()
    since = datetime.now(UTC) - timedelta(minutes=15)
    watch = Watch(
        feed, places or Places("127.0.0.1:5672"), source.follow, source.read, since=since, clock=time.time
    )
    site = application(feed, guard or Guard("127.0.0.1"), watch.story)
    async with open_site(site, "127.0.0.1", port) as listening:
        work = asyncio.create_task(watch.run())
        try:
            yield Stage(f"http://127.0.0.1:{listening}/", source, watch, feed)
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work
