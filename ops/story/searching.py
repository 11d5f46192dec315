"""All that the history tells of one id, looked for from the end backwards: what is asked for is mostly young.

A stream has no index, and a full one takes minutes to read. So the last ten minutes are read first, then the hour
before, and so on, each stretch up to where the one after it began, until the beginning of what is asked for has
come up. What lies before that is not read, and is said to be unread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from aio_pika.abc import AbstractConnection

from common import saga
from common.history import Became, Record
from common.recovery import Deed
from ops.broker import connected
from ops.story import stream
from ops.story.reading import Reader, may_mention
from ops.story.stream import SKEW, End

#: How far back each stretch begins, counted from the last record.
STRETCHES = (timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6), timedelta(days=1))

_COMMANDS = {saga.FIRST.on, *(command.on for command in saga.COMMANDS)}


@dataclass(slots=True)
class Found:
    """Records about one id, with no other entries, the oldest first; `unread_before`: nothing before was read."""

    id: str
    records: list[Record] = field(default_factory=list)
    unread_before: datetime | None = None

    def begins_after(self, moment: datetime) -> bool:
        """Whether the beginning is among the records, and not so close to `moment` that more may lie before it."""
        return any(
            entry.type in _COMMANDS
            and entry.became == Became.DONE
            and entry.deed in {Deed.DID, Deed.ANSWERED, Deed.FAILED}
            and entry.attempt <= 1
            for record in self.records
            if record.at - SKEW > moment
            for entry in record.entries
        )


async def search(
    id_: str,
    *,
    since: datetime | None = None,
    whole: bool = False,
    progress: Callable[[int], None] | None = None,
    url: str | None = None,
) -> Found:
    """What the history tells of one id; raises CannotLookError.

    `since`: nothing that was settled earlier. `whole`: read all of it, even if the beginning was found.
    """
    found, reader, read = Found(id_), Reader(), 0

    def told(count: int) -> None:
        if progress is not None:
            progress(read + count)

    try:
        async with connected(url) as connection:
            end = await stream.find_end(connection)
            last = end.offset if end else None
            stretches = () if whole else STRETCHES
            for begin in _begins(reader, end, since, stretches):
                first, count = await _read(connection, found, reader, begin, last, told)
                read += count
                if begin is None or begin == since or first == 0:
                    break
                if first is None:
                    # The broker's clock is far behind that of the services: further back there is more.
                    continue
                if found.begins_after(begin):
                    found.unread_before = begin
                    break
                last = first - 1
    finally:
        reader.tell()
    found.records = [it for it in found.records if since is None or it.at >= since]
    return found


def _begins(
    reader: Reader, end: End | None, since: datetime | None, stretches: tuple[timedelta, ...]
) -> list[datetime | None]:
    """Where each stretch begins, the latest first; the last one begins at `since`, or, None, with the stream."""
    told = reader.read(end.body) if end else ()
    # An idle broker's last record may be old, and before it nothing is to be waited for.
    newest = min(told[-1].at, datetime.now(UTC)) if told else datetime.now(UTC)
    begins = [newest - length for length in stretches]
    return [*(begin for begin in begins if since is None or begin > since), since]


def _about(record: Record, id_: str) -> Record:
    """What a record tells of one saga."""
    return replace(record, entries=[entry for entry in record.entries if entry.saga == id_])


async def _read(
    connection: AbstractConnection,
    found: Found,
    reader: Reader,
    begin: datetime | None,
    last: int | None,
    progress: Callable[[int], None],
) -> tuple[int | None, int]:
    """Read one stretch up to the offset `last`; the offset with which it began, and how much was read."""
    stretch: list[Record] = []
    count = 0
    end: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
    end.set_result(last)
    async with stream.open_tap(connection, stream.offset_of(begin)) as tap:
        async with contextlib.aclosing(stream.until(tap, end, progress)) as taken:
            async for bodies in taken:
                # What comes beyond the end has been read with the stretch after this one.
                count += len(bodies)
                for body in bodies:
                    told = reader.read(body) if may_mention(body, found.id) else ()
                    stretch += [its for record in told if (its := _about(record, found.id)).entries]
        first = tap.first
    found.records[:0] = stretch
    return first, count
