"""A unit of work: one transaction with its outbox, run again for as long as the database is away.

While it runs its task is never cancelled: a service stops by asking (`Life.stop`), not by force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from common import db
from common.health import Health
from common.outbox import Outbox, Relay
from common.telemetry import log

T = TypeVar("T")

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What a handler is given: messages to decide, the time, and where to stage what it emits."""

    messages: Sequence[T]
    now: datetime
    outbox: Outbox


class Life:
    """Whether this service is to stop, and how it feels."""

    def __init__(self, service: str) -> None:
        self.health = Health(service)
        self._stopping = asyncio.Event()

    def is_stopping(self) -> bool:
        """Whether the service has been asked to leave."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Ask the service to finish its batch and leave."""
        self._stopping.set()

    async def stopping(self) -> None:
        """Wait until the service is asked to leave."""
        await self._stopping.wait()

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the service is asked to leave."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


class UnitOfWork:
    """Runs units of work against this service's database and hands what they emit to the relay."""

    def __init__(self, life: Life, relay: Relay) -> None:
        self._life = life
        self._relay = relay

    async def run(self, unit: Callable[[datetime, Outbox], Awaitable[T]]) -> T:
        """Run `unit` in one transaction, its events included, and give what it gives.

        `unit` gets the time and an empty outbox, and may be run more than once: it must not keep anything
        from an earlier run. Raises what it raises, but for a database that is away: that is waited for,
        unless the service is to stop.
        """

        async def transact() -> tuple[T, Outbox]:
            now = datetime.now(UTC)
            outbox = Outbox(now)
            async with db.transaction():
                result = await unit(now, outbox)
                await outbox.save()
            return result, outbox

        result, outbox = await patiently(self._life, transact)
        self._relay.put(outbox.rows)
        return result


async def patiently(life: Life, operation: Callable[[], Awaitable[T]]) -> T:
    """Run `operation`; while the database is away, wait and run it again. A lost database is no attempt."""
    wait = _FIRST_WAIT
    while True:
        try:
            result = await operation()
        except Exception as error:
            if db.classify(error) is not db.Fault.AWAY:
                raise
            reason = f"{type(error).__name__}: {error}"[:200]
            if life.health.database == "ok":
                log.warning("the database is away; waiting for it", error=reason)
            life.health.database = reason
            if life.is_stopping():
                raise
        else:
            if life.health.database != "ok":
                log.info("the database is back")
                life.health.database = "ok"
            return result
        await life.pause(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
