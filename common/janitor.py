"""The janitor: offers again what stays open too long, and forgets what has long been final.

A part that is done and not settled waits for somebody's word. If that word was lost, with a broker's disk or by a
purge, saying the event again walks the saga on, or brings the failure that got lost: a repeated message repeats
the answer. So a broker that lost all its queues costs time, and not consistency.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from common import retention, saga
from common.barrier import SagaStep, State, final_states
from common.life import Life
from common.messages import decode_stored
from common.outbox import Outbox, Relay
from common.retention import Forget
from common.settings import Settings
from common.telemetry import log
from common.unit_of_work import UnitOfWork

#: Rows offered again in one transaction.
PAGE = 200
#: It looks so often in the time that a row may stay open, but at least once in the longest pause.
_LOOKS = 4
_LONGEST_PAUSE = 60.0
_SHORTEST_PAUSE = 1.0
#: How long a saga may take that is walked once more to a service which was restored.
_ANOTHER_DEADLINE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Janitor:
    """Looks after the rows of one service, now and then, beside its messages. Any number of replicas may."""

    service: str
    settings: Settings
    life: Life
    relay: Relay
    also_forget: Forget = retention.nothing_else

    async def run(self, unit_of_work: UnitOfWork) -> None:
        """Offer again and forget, until the service is to stop."""
        pause = min(self.settings.janitor_seconds / _LOOKS, _LONGEST_PAUSE)
        settled = _Settled(self.settings.offer_again_since)
        while not self.life.is_stopping():
            await self.life.pause(pause if settled.all_offered else _SHORTEST_PAUSE)
            try:
                if saga.awaits_settlement(self.service):
                    await self._offer(unit_of_work, settled.offer)
                    await self._offer(unit_of_work, partial(offer_again, patience=self._patience))
                if retention.forgets(self.service):
                    await self._forget(unit_of_work)
            except Exception:  # noqa: BLE001 - whatever it was, the next round begins from nothing
                if not self.life.is_stopping():
                    log.exception("the janitor stumbled; it comes again")

    async def _offer(self, unit_of_work: UnitOfWork, offer: Callable[[datetime, Outbox], Awaitable[int]]) -> None:
        # Where the broker is away nothing could be published, and the outbox would only grow.
        while not self.life.is_stopping() and self.life.health.is_ready and await self.relay.has_room(seconds=0):
            offered = await unit_of_work.run(offer)
            self.life.health.offered_again += offered
            if offered < PAGE:
                return

    async def _forget(self, unit_of_work: UnitOfWork) -> None:
        for state in final_states(self.service):
            kept, page = 0, retention.PAGE
            while page == retention.PAGE and not self.life.is_stopping():
                forget = partial(
                    retention.forget, state=state, also=self.also_forget, retention=self._retention, kept=kept
                )
                page, gone = await unit_of_work.run(forget)
                self.life.health.forgotten += gone
                kept += page - gone

    @property
    def _patience(self) -> timedelta:
        return timedelta(seconds=self.settings.janitor_seconds)

    @property
    def _retention(self) -> timedelta:
        return timedelta(hours=self.settings.retention_hours)


class _Settled:
    """What was settled since a time and is to be offered again, once, since the next service has lost its part."""

    def __init__(self, since: datetime | None) -> None:
        self.all_offered = since is None
        self._since = since
        self._offered = 0

    async def offer(self, now: datetime, outbox: Outbox) -> int:
        """Say the events of the next page again, and give how many they are.

        Nobody may refuse what is past the pivot, so what was said gets another deadline.
        """
        if self.all_offered:
            return 0
        settled = SagaStep.filter(state=State.SETTLED, changed_at__gte=self._since)
        page = await settled.order_by("changed_at", "saga_id").offset(self._offered).limit(PAGE)
        for row in page:
            said = decode_stored(row.answer_type, row.answer)
            again = said.model_copy(update={"expires_at": now + _ANOTHER_DEADLINE})
            outbox.stage(row.answer_type, row.saga_id, again.encode(), None)
        if page:
            log.warning("a database was restored; saying what was settled again", sagas=len(page))
        outbox.once_committed(lambda: self._note(len(page)))
        return len(page)

    def _note(self, offered: int) -> None:
        self._offered += offered
        self.all_offered = offered < PAGE


async def offer_again(now: datetime, outbox: Outbox, *, patience: timedelta) -> int:
    """Say again what was said of sagas that are open for longer than `patience`: a page of them, the oldest first.

    Gives how many they were. Each is offered once in that time.
    """
    open_ = SagaStep.filter(state=State.DONE, changed_at__lt=now - patience)
    overdue = await open_.order_by("changed_at", "saga_id").limit(PAGE)
    for row in overdue:
        outbox.stage(row.answer_type, row.saga_id, row.answer, None)
        row.changed_at = now
    # Compared with itself: one that is settled or undone meanwhile has nothing more to say.
    outbox.writes.update(SagaStep, overdue, "state", "changed_at", only_if="state")
    if overdue:
        log.warning(
            "sagas are open for too long; saying their events again", sagas=len(overdue), first=overdue[0].saga_id
        )
    return len(overdue)
