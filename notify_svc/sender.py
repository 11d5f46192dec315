"""The sender: delivers pending notices, outside of any transaction, at least once.

A notice is leased, sent, and then settled. A sender that dies in between leaves the lease to run out, and another
one sends the notice again: towards mail and chat that is all that can be promised.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Literal, cast

from common import db, rows, saga
from common.history import NOTICE, REPLICA, Became, Entry, Observers, Record
from common.life import Life, patiently
from common.messages import Sent
from common.outbox import Outbox
from common.recovery import Deed
from common.telemetry import alarm, log
from common.unit_of_work import UnitOfWork
from notify_svc import domain
from notify_svc.domain import State
from notify_svc.handover import LEASE, SECONDS_PER_NOTICE, Handover
from notify_svc.models import Notice

_SENT = saga.step_of("notify").emits
_AT_ONCE = 200
#: The index of notices by state and time, as the ORM has named it.
_BY_TIME = "idx_notice_state_6c1f3c"
_IDLE_SECONDS = 0.5
_SECONDS_BETWEEN_COUNTS = 5
#: When the service is to stop, what is being sent gets this long.
_SECONDS_TO_FINISH = 3

#: Tells one user one thing; False or an exception if it could not be delivered.
Channel = Callable[[Notice], Awaitable[bool]]


async def to_log(notice: Notice) -> bool:
    """The channel where no other is set: the service's own log. The database keeps the notice anyway."""
    log.debug("notice", saga=notice.saga_id, user=notice.user_id, kind=notice.kind)
    return True


def to_urls(urls: tuple[str, ...]) -> Channel:
    """The channel to mail, Slack, Telegram, webhooks and a hundred more, each given by Apprise's URL.

    Raises ValueError for a URL that Apprise does not understand, without repeating it: it may hold a secret.
    """
    import apprise  # noqa: PLC0415 - heavy, and needed only where a URL is set

    channels = apprise.Apprise()
    for number, url in enumerate(urls, 1):
        if not channels.add(url):
            raise ValueError(f"NOTIFY_URLS: Apprise does not understand URL number {number}")

    async def send(notice: Notice) -> bool:
        title = f"Concert payment {notice.kind}"
        return bool(await channels.async_notify(title=title, body=notice.text))

    return send


async def run(
    life: Life, unit_of_work: UnitOfWork, observers: Observers, *, channel: Channel, handover: Handover
) -> None:
    """Deliver what is handed over, and what is due in the database, until the service is to stop."""
    handover.open(has_sender=True)
    try:
        next_look = next_count = -math.inf
        while not life.is_stopping():
            try:
                if fresh := handover.take(_AT_ONCE, datetime.now(UTC)):
                    await _deliver(life, unit_of_work, channel, fresh, observers)
                if time.monotonic() >= next_look:
                    found = await deliver(life, unit_of_work, channel, observers)
                    next_look = time.monotonic() + _IDLE_SECONDS if found < _AT_ONCE else -math.inf
                if time.monotonic() >= next_count:
                    next_count = time.monotonic() + _SECONDS_BETWEEN_COUNTS
                    life.health.notices = await patiently(life, count)
            except Exception:  # noqa: BLE001 - whatever it was, the notices are still in the database
                if life.is_stopping():
                    return
                log.exception("the sender stumbled; its notices are sent again when their lease is over")
                next_look = time.monotonic() + _IDLE_SECONDS
            await handover.wait(max(0, next_look - time.monotonic()))
    finally:
        handover.open(has_sender=False)


async def count() -> dict[str, int]:
    """Notices that are not sent, by state, for those who look on."""
    return {state.lower(): await Notice.filter(state=state).count() for state in (State.PENDING, State.PARKED)}


async def deliver(life: Life, unit_of_work: UnitOfWork, channel: Channel, observers: Observers) -> int:
    """Deliver one round of notices that are due in the database, and tell how many they were."""
    notices = await unit_of_work.run(_lease)
    if notices:
        await _deliver(life, unit_of_work, channel, notices, observers)
    return len(notices)


async def _deliver(
    life: Life, unit_of_work: UnitOfWork, channel: Channel, leased: list[Notice], observers: Observers
) -> None:
    began = time.perf_counter()
    delivered = await _send_all(life, leased, channel)
    entries = await _settled(unit_of_work, leased, delivered)
    took_ms = 1000 * (time.perf_counter() - began)
    if entries:
        observers.tell(
            lambda: Record(
                service="notify", replica=REPLICA, at=datetime.now(UTC), took_ms=took_ms, entries=entries
            )
        )


async def _lease(now: datetime, outbox: Outbox) -> list[Notice]:
    due = Notice.filter(state=State.PENDING, due_at__lte=now).order_by("due_at").limit(_AT_ONCE)
    # MariaDB locks whatever it reads: along this index that is what it gives. PostgreSQL takes no advice.
    notices = await due.force_index(_BY_TIME).select_for_update(skip_locked=True)
    for notice in notices:
        notice.attempts += 1
        notice.due_at = now + LEASE
    outbox.writes.update(Notice, notices, "attempts", "due_at")
    return notices


async def _send_all(life: Life, notices: list[Notice], channel: Channel) -> dict[str, bool | None]:
    """Whether each notice was delivered; None: nobody knows, because the service is to stop."""

    async def send(notice: Notice) -> bool:
        try:
            async with asyncio.timeout(SECONDS_PER_NOTICE):
                return await channel(notice)
        except Exception as error:  # noqa: BLE001 - a channel may fail in any way; it is retried
            log.warning("a notice could not be delivered", saga=notice.saga_id, error=str(error)[:200])
            return False

    sending = {notice.saga_id: asyncio.create_task(send(notice)) for notice in notices}
    all_sent = asyncio.ensure_future(asyncio.wait(sending.values()))
    stopping = asyncio.create_task(life.stopping())
    await asyncio.wait({all_sent, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({all_sent}, timeout=_SECONDS_TO_FINISH)
    outcomes = {saga_id: task.result() if task.done() else None for saga_id, task in sending.items()}
    for task in (*sending.values(), all_sent, stopping):
        task.cancel()
    await asyncio.wait({*sending.values(), all_sent, stopping})
    return outcomes


async def _settled(
    unit_of_work: UnitOfWork, leased: list[Notice], delivered: dict[str, bool | None]
) -> list[Entry]:
    """Settle these notices; begins anew if another sender takes one of them up meanwhile."""
    attempts = {notice.saga_id: notice.attempts for notice in leased}
    # Nearly always the leases still hold, and to write finds out if not. Whatever went wrong: the next time, look.
    unread = [leased]

    async def settle(now: datetime, outbox: Outbox) -> list[Entry]:
        return _settle(unread.pop() if unread else await _ours(attempts), delivered, now, outbox)

    while True:
        try:
            return await unit_of_work.run(settle)
        except db.LostRaceError:
            continue


async def _ours(attempts: dict[str, int]) -> list[Notice]:
    """The notices that are still leased as they were, by how many attempts each had."""
    found = await rows.find(Notice, attempts)
    # One whose lease ran out is somebody else's now: its count of attempts has moved on.
    return [
        notice for notice in found if (notice.state, notice.attempts) == (State.PENDING, attempts[notice.saga_id])
    ]


def _settle(ours: list[Notice], delivered: dict[str, bool | None], now: datetime, outbox: Outbox) -> list[Entry]:
    """Write what became of these notices, and tell it."""
    entries = []
    for notice in ours:
        notice.leased_as = notice.attempts
        kind = cast("Literal['completed', 'failed']", notice.kind)
        sent = Sent(payment_id=notice.saga_id, user_id=notice.user_id, kind=kind, sent_at=now)
        match delivered[notice.saga_id]:
            case True:
                notice.state = State.SENT
                notice.settled_at = now
                outbox.stage(_SENT, notice.saga_id, sent.encode(), notice.traceparent, cause=NOTICE)
                entries.append(_entry(notice))
            case None:
                notice.attempts -= 1
                notice.due_at = now
            case False:
                entries.append(_put_off(notice, sent, now, outbox))
    outbox.writes.update(Notice, ours, "attempts", "state", "due_at", "settled_at", only_if="leased_as")
    said: dict[str, list[tuple[str, str]]] = {}
    for event in outbox.events:
        said.setdefault(event.key, []).append((event.type, event.traceparent))
    for entry in entries:
        entry.said = said.get(entry.saga, ())
    return entries


def _entry(notice: Notice) -> Entry:
    """What those who look on are told of a notice that was delivered."""
    return Entry(
        saga=notice.saga_id,
        type=NOTICE,
        deed=Deed.SENT,
        attempt=notice.attempts,
        trace=notice.traceparent or "",
    )


def _put_off(notice: Notice, sent: Sent, now: datetime, outbox: Outbox) -> Entry:
    """Try again later, or, after the last attempt, put it before a person."""
    entry = _entry(notice)
    entry.deed, entry.reason = "", "channel_failed"
    if wait := domain.wait_after(notice.attempts):
        notice.due_at = now + wait
        entry.became, entry.detail = Became.RETRY, "no channel took it"
        entry.delay_ms = round(1000 * wait.total_seconds())
        return entry
    notice.state = State.PARKED
    notice.settled_at = now
    detail = f"no channel took it in {notice.attempts} attempts"
    alarm("a notice is parked", saga=notice.saga_id, detail=detail)
    outbox.park(_SENT, notice.saga_id, sent.encode(), reason="channel_failed", detail=detail)
    entry.became, entry.detail = Became.PARKED, detail
    return entry
