"""The short way from a batch to the sender: what was just committed is handed over in memory, already leased.

A notice is leased by whoever may send it. One that is handed over is born leased, which saves the sender from
looking for it; if this process dies, the lease runs out and another sender takes the notice up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

from notify_svc.models import Notice

#: A channel that takes longer has failed.
SECONDS_PER_NOTICE = 10
#: Longer than a round can take, so that no other sender takes up what is being sent.
LEASE = timedelta(seconds=2 * SECONDS_PER_NOTICE)
#: More than this waits in the database.
_LIMIT = 10_000


class Handover:
    """Notices between the batches of this process and its sender, oldest first."""

    def __init__(self) -> None:
        self._notices: deque[Notice] = deque()
        self._arrived = asyncio.Event()
        self._has_sender = False

    @property
    def is_open(self) -> bool:
        """Whether a sender takes notices here, and has not too many of them."""
        return self._has_sender and len(self._notices) < _LIMIT

    def open(self, *, has_sender: bool) -> None:
        """A sender begins, or ends, to take notices here."""
        self._has_sender = has_sender

    def put(self, notices: Sequence[Notice]) -> None:
        """Hand over leased notices whose batch was committed."""
        self._notices.extend(notices)
        if self._notices:
            self._arrived.set()

    def take(self, limit: int, now: datetime) -> list[Notice]:
        """Up to `limit` notices whose lease lasts long enough to send them; the others are left to run out."""
        taken: list[Notice] = []
        while self._notices and len(taken) < limit:
            notice = self._notices.popleft()
            if notice.due_at - now > LEASE / 2:
                taken.append(notice)
        if not self._notices:
            self._arrived.clear()
        return taken

    async def wait(self, seconds: float) -> None:
        """Wait for notices, for so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._arrived.wait()
        except TimeoutError:
            return
