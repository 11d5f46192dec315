"""A unit of work: a change with its outbox, all of it or nothing, run again for as long as the database is away.

While it runs its task is never cancelled: a service stops by asking (`Life.stop`), not by force.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from common import db
from common.life import Life, patiently
from common.outbox import Outbox, OutboxRow, Relay
from common.rows import Writes

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What a handler is given: messages to decide, the time, and where to stage what it emits.

    `careful`: a race was lost a moment ago, so look before writing, and lock what others may want. Care makes
    nothing safer, since what is written is inserted or compared anyway: it keeps the next race from being lost.
    """

    messages: Sequence[T]
    now: datetime
    outbox: Outbox
    careful: bool = False

    @property
    def writes(self) -> Writes:
        """Where to note what is to be written: all of it is written at the end, with what is emitted."""
        return self.outbox.writes


class UnitOfWork:
    """Runs units of work against this service's database and hands what they emit to the relay."""

    def __init__(self, life: Life, relay: Relay, committed: Callable[[float], None] = lambda _: None) -> None:
        """`committed` is told how many seconds each transaction took."""
        self._life = life
        self._relay = relay
        self._committed = committed

    async def run(self, unit: Callable[[datetime, Outbox], Awaitable[T]]) -> T:
        """Run `unit` so that all that it writes is written at once, its events included, and give what it gives.

        `unit` gets the time and an empty outbox, and may be run more than once: it must not keep anything
        from an earlier run. Raises what it raises, but for a database that is away: that is waited for,
        unless the service is to stop.
        """

        async def transact() -> tuple[T, Outbox]:
            now = datetime.now(UTC)
            began = time.perf_counter()
            outbox = Outbox(now)
            with self._relay.forgetting() as confirmed:
                async with db.unit():
                    result = await unit(now, outbox)
                    outbox.writes.delete(OutboxRow, confirmed)
                    await outbox.save()
            self._committed(time.perf_counter() - began)
            return result, outbox

        result, outbox = await patiently(self._life, transact)
        self._relay.put(outbox.events)
        outbox.committed()
        return result
