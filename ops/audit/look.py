"""The audit: whether the five databases, together, kept the promise that all of it happened or none of it did.

It only reads, and it may run beside a running system. The databases are looked at one after another, so a saga
that moves meanwhile can look torn: what looks wrong is read again, twice, before it is called a violation. A saga
that still moves is reported as under way. It moves if one of its rows changed lately, if one of its events is
still to be published, or, where the broker's management API may be asked, if messages wait for a service whose
word is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from common import saga, topology
from common.settings import Settings
from ops.audit import queues
from ops.audit.reading import Books, open_books
from ops.audit.report import Counts, Report, UnderWay, Violation
from ops.audit.rules import Finding, Saga, contradictions, waits_for
from ops.audit.within import RULES

__all__ = ["STUCK_AFTER", "Counts", "Report", "UnderWay", "Violation", "audit"]

STUCK_AFTER = timedelta(minutes=2)
#: How long the services keep what is over, where nobody says otherwise.
RETENTION = timedelta(hours=Settings.model_fields["retention_hours"].default)
_READINGS_MORE = 2
_PAUSE = timedelta(seconds=3)

Ending = Literal["completed", "undone", "failed"]


async def audit(
    databases: Mapping[str, str],
    *,
    rabbitmq_management: str | None = None,
    stuck_after: timedelta = STUCK_AFTER,
    now: datetime | None = None,
    pause: timedelta | None = None,
    retention: timedelta = RETENTION,
) -> Report:
    """Look at the five databases, given by service, and tell what is wrong.

    A saga that does not move for longer than `stuck_after` is stuck. `rabbitmq_management` is the management API's
    address, user and password included; a virtual host other than `/` is given as `?vhost=name`. `pause` lies
    between two readings of what looks wrong; where nothing does, nobody waits. `retention`: how long the services
    keep the rows of sagas that are over, as in RETENTION_HOURS. Raises CannotLookError.
    """
    look = _Look(databases, rabbitmq_management, stuck_after, now, retention)
    await look.at_all()
    for _ in range(_READINGS_MORE):
        if look.suspects:
            await asyncio.sleep((_PAUSE if pause is None else pause).total_seconds())
            await look.again()
    return look.report()


@dataclass(slots=True)
class _Look:
    """One audit: what was counted, and which sagas looked wrong in every reading so far."""

    databases: Mapping[str, str]
    management: str | None
    stuck_after: timedelta
    fixed_now: datetime | None
    retention: timedelta
    suspects: dict[str, list[Finding]] = field(default_factory=dict)
    _violations: list[Violation] = field(default_factory=list)
    _under_way: dict[str, UnderWay] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _waiting: Mapping[str, int] | None = None

    async def at_all(self) -> None:
        """Read everything once."""
        await self._ask_broker()
        async with open_books(self.databases) as books:
            async for it in books.sagas():
                self._count(it)
                if findings := self._findings(it):
                    self.suspects[it.id] = findings
                else:
                    self._settle(it)
            await self._within(books)

    async def again(self) -> None:
        """Read once more what looked wrong; a rule that holds now was only seen in passing."""
        await self._ask_broker()
        async with open_books(self.databases) as books:
            found = {it.id: it for it in await books.pick(self.suspects)}
        for saga_id, before in list(self.suspects.items()):
            it = found.get(saga_id, Saga(saga_id))
            rules = {finding.rule for finding in before}
            findings = self._findings(it)
            persisting = [finding for finding in findings if finding.rule in rules]
            if persisting:
                self.suspects[saga_id] = persisting
            else:
                del self.suspects[saga_id]
                self._settle(it, moves=bool(findings))

    def report(self) -> Report:
        """What was seen, the rest of the suspicions as violations."""
        violations = [
            Violation(saga_id, finding.rule, finding.evidence)
            for saga_id, findings in self.suspects.items()
            for finding in findings
        ]
        counts = Counts(
            **self._counts,
            under_way=len(self._under_way),
            violated=len(self.suspects),
            messages_waiting=_total(self._waiting, parked=False),
            messages_parked=_total(self._waiting, parked=True),
        )
        return Report(
            violations=self._violations + violations,
            under_way=list(self._under_way.values()),
            counts=counts,
            looked_at=self._now(),
        )

    def _findings(self, it: Saga) -> list[Finding]:
        findings = contradictions(it, kept_since=self._kept_since())
        limit = self._now() - self.stuck_after
        for event in it.unpublished:
            if event.staged_at < limit:
                evidence = f"{event.type} is in {event.service}'s outbox since {event.staged_at.isoformat()}"
                findings.append(Finding("outbox", evidence))
        waits = waits_for(it, kept_since=self._kept_since())
        if waits and not findings and not self._moves(it, waits, limit):
            since = f"; nothing has changed since {it.changed_at.isoformat()}" if it.changed_at else ""
            findings.append(Finding("stuck", f"it waits for {', '.join(waits)}{since}"))
        return findings

    def _moves(self, it: Saga, waits: list[str], limit: datetime) -> bool:
        if it.changed_at and it.changed_at >= limit:
            return True
        if it.notice and it.notice.state == "PENDING" and it.notice.due_at >= limit:
            return True
        waiting = self._waiting or {}
        return any(
            count and queue.startswith(f"{service}.") and queue != topology.parked_queue(service)
            for queue, count in waiting.items()
            for service in waits
        )

    def _count(self, it: Saga) -> None:
        self._counts["unpublished"] += len(it.unpublished)
        self._counts["seats_sold"] += len(it.reservations)
        self._counts["tokens_used"] += len(it.tokens)
        if it.notice:
            self._counts["notices_pending"] += it.notice.state == "PENDING"
            self._counts["notices_parked"] += it.notice.state == "PARKED"

    def _settle(self, it: Saga, *, moves: bool = False) -> None:
        """Put down a saga that breaks no rule: how it ended, or that it is under way, as one that `moves` is."""
        if not it.exists:
            return
        waits = tuple(waits_for(it, kept_since=self._kept_since()))
        if moves or waits or it.unpublished:
            self._under_way[it.id] = UnderWay(it.id, waits, it.changed_at)
        else:
            self._counts[_ending(it)] += 1

    async def _within(self, books: Books) -> None:
        for service, rule, evidence, query in RULES:
            for row in await books.select(service, query):
                self._violations.append(Violation(row[0], rule, evidence.format(*row)))
        ((wallets, points),) = await books.select(
            "point", "SELECT COUNT(*), COALESCE(SUM(balance), 0) FROM wallet"
        )
        self._counts["wallets"], self._counts["points"] = wallets, int(points)

    async def _ask_broker(self) -> None:
        if self.management is not None:
            self._waiting = await queues.messages(self.management)

    def _kept_since(self) -> datetime:
        """Sagas that were over before may be forgotten; a tenth less, since clocks differ and rows age apart."""
        return self._now() - 0.9 * self.retention

    def _now(self) -> datetime:
        return self.fixed_now or datetime.now(UTC)


def _ending(it: Saga) -> Ending:
    if it.state(saga.PIVOT.service) == "done" or (it.payment and it.payment.state == "COMPLETED"):
        return "completed"
    return "failed" if it.failed_at == [saga.FIRST.service] else "undone"


def _total(queues: Mapping[str, int] | None, *, parked: bool) -> int | None:
    if queues is None:
        return None
    kept = {topology.parked_queue(service) for service in saga.SERVICES}
    return sum(count for queue, count in queues.items() if (queue in kept) is parked)
