"""A service's life: whether it is to stop, how it feels, and its patience with a database that is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from common import db
from common.health import Health
from common.telemetry import log

T = TypeVar("T")

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
#: How often work may fail as if the database were away, while it answers, before the work is to blame.
_BENEFIT_OF_THE_DOUBT = 3


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


async def patiently(life: Life, operation: Callable[[], Awaitable[T]]) -> T:
    """Run `operation`; while the database is away, wait and run it again. A lost database is no attempt.

    Raises what `operation` raises for any other reason; StillThereError if it goes on losing its connection
    although the database answers; and the database's error if the service is to stop.
    """
    wait = _FIRST_WAIT
    blamed = 0
    while True:
        try:
            result = await operation()
        except Exception as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # asyncpg tells of the connection that it gave up, in place of the cancellation.
                raise asyncio.CancelledError from error
            if db.classify(error) is not db.Fault.AWAY or life.is_stopping():
                raise
            reason = f"{type(error).__name__}: {error}"[:200]
            if life.health.database in {"ok", "opening"}:
                life.health.database_waits += 1
                log.warning("the database is away; waiting for it", error=reason)
            life.health.database = reason
            blamed = blamed + 1 if db.may_be_the_work(error) and await db.answers() else 0
            if blamed > _BENEFIT_OF_THE_DOUBT:
                raise db.StillThereError(reason) from error
        else:
            if life.health.database not in {"ok", "opening"}:
                log.info("the database is back")
            life.health.database = "ok"
            return result
        await life.pause(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
