"""The records of the history: what is there, or what comes for as long as one listens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime

from aio_pika.abc import AbstractConnection

from common import history, topology
from common.history import Record
from ops.broker import connected
from ops.output import warn
from ops.story import stream


async def records(
    url: str | None = None,
    *,
    since: datetime | None = None,
    follow: bool = False,
    progress: Callable[[int], None] | None = None,
    about: str | None = None,
) -> AsyncGenerator[Record, None]:
    """The history's records as they stand in the stream, by default all that are there when this begins.

    `since`: only what was settled then or later. `follow`: go on with what comes. `progress` is told now and then
    how many messages were read. `about`: pass over bodies that cannot mention this id, unread. What is no record
    is left out, counted, and told once on standard error. Raises CannotLookError.
    """
    reader = Reader(follow=follow)
    async with connected(url) as connection, stream.open_tap(connection, stream.offset_of(since)) as tap:
        end = None if follow else asyncio.create_task(_last(connection))
        if end is not None:
            end.add_done_callback(lambda _: tap.wake())
        try:
            async with contextlib.aclosing(stream.until(tap, end, progress)) as taken:
                async for bodies in taken:
                    for body in bodies:
                        if about is not None and not may_mention(body, about):
                            continue
                        for record in reader.read(body):
                            if since is None or record.at >= since:
                                yield record
        finally:
            reader.tell()
            if end is not None:
                end.cancel()
                await asyncio.gather(end, return_exceptions=True)


async def _last(connection: AbstractConnection) -> int | None:
    end = await stream.find_end(connection)
    return end.offset if end else None


class Reader:
    """Reads records; what is none is counted, and told once."""

    def __init__(self, *, follow: bool = False) -> None:
        self._follow = follow
        self._count = 0
        self._why = ""

    def read(self, body: bytes) -> Sequence[Record]:
        """The records that a body holds; none if it holds something else."""
        try:
            return history.decode(body)
        except ValueError as error:
            self._count += 1
            self._why = self._why or str(error)[:200]
            if self._follow and self._count == 1:
                warn(f"A message in {topology.HISTORY} is no record; left out, as others like it: {self._why}")
            return ()

    def tell(self) -> None:
        """Say how many were left out, unless the first of them has been told."""
        if self._count and not self._follow:
            warn(f"{self._count} of the messages in {topology.HISTORY} are no records; left out: {self._why}")


_PLAIN = re.compile(r"[A-Za-z0-9._-]+")


def may_mention(body: bytes, id_: str) -> bool:
    """Whether a body can tell of an id: cheap, and never wrong where it says no.

    >>> may_mention(b'{"saga":"p-1"}', "p-1"), may_mention(b'{"saga":"p-10"}', "p-1")
    (True, False)
    """
    if not _PLAIN.fullmatch(id_) or b"\\u" in body:
        return True  # JSON has several ways to write it
    return json.dumps(id_).encode() in body
