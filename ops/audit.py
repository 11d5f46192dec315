"""The audit: whether the five databases, together, kept the promise that all of it happened or none of it did.

    python -m ops.audit [--json] [--database payment=URL ...] [--management URL]

It only reads, and it may run beside a running system. The databases are looked at one after another, so a saga
that moves meanwhile can look torn: what looks wrong is read again, twice, before it is called a violation. A saga
that still moves is reported as under way. It moves if one of its rows changed lately, if one of its events is
still to be published, or, where the broker's management API may be asked, if messages wait for a service whose
word is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

import aiohttp
from rich.console import Console
from rich.text import Text

from common import saga, topology
from ops.reading import Books, CouldNotLookError, open_books
from ops.rules import Finding, Saga, contradictions, waits_for

STUCK_AFTER = timedelta(minutes=2)
_READINGS_MORE = 2
_PAUSE = timedelta(seconds=3)
_LINES = 20

Ending = Literal["completed", "undone", "failed"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken rule. `saga_id` is the saga; of what belongs to none, the user, the seat or the command."""

    saga_id: str
    rule: str
    evidence: str

    def __str__(self) -> str:
        return f"{self.saga_id}: {self.rule}: {self.evidence}"


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A saga that has not come to its end yet, and whose word it waits for; `since` its last change."""

    saga_id: str
    waits_for: tuple[str, ...]
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of everything there is. Messages are counted where the management API was asked."""

    completed: int = 0
    undone: int = 0
    failed: int = 0
    """Refused by the first step, so there was nothing to undo."""
    under_way: int = 0
    violated: int = 0
    wallets: int = 0
    points: int = 0
    """In all wallets together."""
    seats_sold: int = 0
    tokens_used: int = 0
    notices_pending: int = 0
    notices_parked: int = 0
    unpublished: int = 0
    messages_waiting: int | None = None
    messages_parked: int | None = None

    @property
    def sagas(self) -> int:
        """All of them."""
        return self.completed + self.undone + self.failed + self.under_way + self.violated


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit saw."""

    violations: list[Violation]
    under_way: list[UnderWay]
    counts: Counts
    looked_at: datetime

    @property
    def clean(self) -> bool:
        """Whether no rule is broken; sagas may be under way."""
        return not self.violations

    def to_json(self) -> str:
        """The whole report for programs."""
        document = {"clean": self.clean, **asdict(self)}
        return json.dumps(document, default=datetime.isoformat, indent=2)


#: Rules within one database, whose snapshot is one moment: no need to look twice. Each query gives what is wrong,
#: first whom it is about.
_WITHIN: tuple[tuple[str, str, str, str], ...] = (
    (
        "point",
        "wallet",
        "the wallet holds {1} points, its ledger says {2}",
        (
            "SELECT w.user_id, w.balance, COALESCE(l.total, 0) FROM wallet w LEFT JOIN"
            " (SELECT user_id, SUM(amount) AS total FROM ledger_entry GROUP BY user_id) l ON l.user_id = w.user_id"
            " WHERE w.balance <> COALESCE(l.total, 0)"
        ),
    ),
    (
        "point",
        "wallet",
        "the ledger has entries of {1} points, but there is no wallet",
        (
            "SELECT l.user_id, SUM(l.amount) FROM ledger_entry l LEFT JOIN wallet w ON w.user_id = l.user_id"
            " WHERE w.user_id IS NULL GROUP BY l.user_id"
        ),
    ),
    ("point", "negative", "the wallet holds {1} points", "SELECT user_id, balance FROM wallet WHERE balance < 0"),
    (
        "reservation",
        "seat",
        "the seat names {1}, which is {2}",
        (
            "SELECT s.seat, s.reservation_id, COALESCE(r.state, 'unknown') FROM seat s LEFT JOIN reservation r"
            " ON r.reservation_id = s.reservation_id AND r.seat = s.seat"
            " WHERE s.reservation_id IS NOT NULL AND COALESCE(r.state, 'unknown') NOT IN ('HELD', 'CONFIRMED')"
        ),
    ),
    (
        "reservation",
        "seat",
        "{1} is {2}, but the seat names {3}",
        (
            "SELECT r.seat, r.reservation_id, r.state, COALESCE(s.reservation_id, 'nobody') FROM reservation r"
            " LEFT JOIN seat s ON s.seat = r.seat WHERE r.state IN ('HELD', 'CONFIRMED')"
            " AND COALESCE(s.reservation_id, '') <> r.reservation_id"
        ),
    ),
    (
        "reservation",
        "reservation",
        "the reservation is CONFIRMED, but by no payment",
        "SELECT reservation_id FROM reservation WHERE state = 'CONFIRMED' AND payment_id IS NULL",
    ),
    (
        "queue",
        "token",
        "the token is EXPIRED, but by no payment",
        "SELECT token FROM token WHERE state = 'EXPIRED' AND payment_id IS NULL",
    ),
)


async def audit(
    databases: Mapping[str, str],
    *,
    rabbitmq_management: str | None = None,
    stuck_after: timedelta = STUCK_AFTER,
    now: datetime | None = None,
    pause: timedelta = _PAUSE,
) -> Report:
    """Look at the five databases, given by service, and tell what is wrong.

    A saga that does not move for longer than `stuck_after` is stuck. `rabbitmq_management` is the management API's
    address, user and password included; a virtual host other than `/` is given as `?vhost=name`. `pause` lies
    between two readings of what looks wrong; where nothing does, nobody waits. Raises CouldNotLookError.
    """
    look = _Look(databases, rabbitmq_management, stuck_after, now)
    await look.at_all()
    for _ in range(_READINGS_MORE):
        if look.suspects:
            await asyncio.sleep(pause.total_seconds())
            await look.again()
    return look.report()


@dataclass(slots=True)
class _Look:
    """One audit: what was counted, and which sagas looked wrong in every reading so far."""

    databases: Mapping[str, str]
    management: str | None
    stuck_after: timedelta
    fixed_now: datetime | None
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
        findings = contradictions(it)
        limit = self._now() - self.stuck_after
        for event in it.unpublished:
            if event.staged_at < limit:
                evidence = f"{event.type} is in {event.service}'s outbox since {event.staged_at.isoformat()}"
                findings.append(Finding("outbox", evidence))
        waits = waits_for(it)
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
        waits = tuple(waits_for(it))
        if moves or waits or it.unpublished:
            self._under_way[it.id] = UnderWay(it.id, waits, it.changed_at)
        else:
            self._counts[_ending(it)] += 1

    async def _within(self, books: Books) -> None:
        for service, rule, evidence, query in _WITHIN:
            for row in await books.select(service, query):
                self._violations.append(Violation(row[0], rule, evidence.format(*row)))
        ((wallets, points),) = await books.select(
            "point", "SELECT COUNT(*), COALESCE(SUM(balance), 0) FROM wallet"
        )
        self._counts["wallets"], self._counts["points"] = wallets, int(points)

    async def _ask_broker(self) -> None:
        if self.management is not None:
            self._waiting = await _messages(self.management)

    def _now(self) -> datetime:
        return self.fixed_now or datetime.now(UTC)


def _ending(it: Saga) -> Ending:
    if it.state(saga.PIVOT.service) == "done":
        return "completed"
    return "failed" if it.failed_at == [saga.FIRST.service] else "undone"


def _total(queues: Mapping[str, int] | None, *, parked: bool) -> int | None:
    if queues is None:
        return None
    kept = {topology.parked_queue(service) for service in saga.SERVICES}
    return sum(count for queue, count in queues.items() if (queue in kept) is parked)


async def _messages(management: str) -> dict[str, int]:
    """How many messages there are in each of the services' queues."""
    url = urlsplit(management)
    vhost = parse_qs(url.query).get("vhost", ["/"])[0]
    address = f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.rstrip('/')}"
    queues_of = f"{address}/api/queues/{quote(vhost, safe='')}?columns=name,messages"
    login = aiohttp.encode_basic_auth(unquote(url.username or "guest"), unquote(url.password or "guest"))
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session,
            session.get(queues_of, headers={"Authorization": login}) as answer,
        ):
            answer.raise_for_status()
            queues = await answer.json()
    except aiohttp.ClientResponseError as error:
        raise CouldNotLookError(f"the management API answers {error.status} {error.message}") from error
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CouldNotLookError(f"the management API: {error or type(error).__name__}") from error
    ours = tuple(f"{service}." for service in saga.SERVICES)
    return {queue["name"]: queue.get("messages", 0) for queue in queues if queue["name"].startswith(ours)}


def default_databases(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Where the services' databases are: DATABASE_URL_<SERVICE>, or the files of the local stack."""
    return {
        service: environment.get(f"DATABASE_URL_{service.upper()}") or f"sqlite://var/data/{service}.sqlite3"
        for service in saga.SERVICES
    }


def main(arguments: list[str] | None = None) -> int:
    """Audit, tell, and give the exit code: 0 clean, 1 violated, 2 could not look."""
    parser = argparse.ArgumentParser(
        prog="python -m ops.audit",
        description="Check that the five databases agree on every saga. Reads only; may run beside the services.",
        epilog="Exit code: 0 clean, 1 a rule is broken, 2 could not look. A database not given here is that of "
        "DATABASE_URL_<SERVICE>, or var/data/<service>.sqlite3.",
    )
    parser.add_argument("--json", action="store_true", help="the whole report, for programs")
    parser.add_argument(
        "--database", action="append", default=[], type=_database, metavar="SERVICE=URL", help="may be repeated"
    )
    parser.add_argument(
        "--management",
        metavar="URL",
        help="http://user:password@host:15672 of RabbitMQ: sagas whose messages wait in queues are not stuck",
    )
    parser.add_argument(
        "--stuck-after",
        type=float,
        default=STUCK_AFTER.total_seconds(),
        metavar="SECONDS",
        help="how long a saga may stand still (default: %(default).0f)",
    )
    options = parser.parse_args(arguments)
    looking = audit(
        default_databases() | dict(options.database),
        rabbitmq_management=options.management,
        stuck_after=timedelta(seconds=options.stuck_after),
    )
    try:
        report = asyncio.run(looking)
    except CouldNotLookError as error:
        print(f"could not look: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(report.to_json())
    else:
        _tell(report)
    return 0 if report.clean else 1


def _database(text: str) -> tuple[str, str]:
    service, _, url = text.partition("=")
    if service not in saga.SERVICES or not url:
        raise argparse.ArgumentTypeError(f"{text!r} is not SERVICE=URL, with one of {', '.join(saga.SERVICES)}")
    return service, url


def _tell(report: Report) -> None:
    """The report for a person: in colours on a terminal, one plain line per finding in a pipe."""
    # In a pipe no line is broken, so that each can be searched for; on a terminal nothing is cut off.
    console = Console(highlight=False, soft_wrap=True)
    counts = report.counts
    endings = {
        "completed": counts.completed,
        "undone": counts.undone,
        "refused at the first step": counts.failed,
        "under way": counts.under_way,
        "in violation": counts.violated,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in endings.items() if count)
    console.print(f"{counts.sagas:,} sagas" + (f": {told}" if told else ""))
    console.print(
        f"{counts.points:,} points in {counts.wallets:,} wallets; "
        f"{counts.seats_sold:,} seats sold, {counts.tokens_used:,} tokens used up"
    )
    leftovers = {
        "events to publish": counts.unpublished,
        "notices to send": counts.notices_pending,
        "notices parked for a person": counts.notices_parked,
        "messages in queues": counts.messages_waiting,
        "messages parked for a person": counts.messages_parked,
    }
    for name, count in leftovers.items():
        if count:
            console.print(f"{count:,} {name}", style="yellow")
    shown = report.under_way[:_LINES]
    for it in shown:
        since = f" since {it.since.isoformat(timespec='seconds')}" if it.since else ""
        waits = ", ".join(it.waits_for) or "its events to be published"
        console.print(Text(f"under way: {it.saga_id} waits for {waits}{since}", style="yellow"))
    if len(report.under_way) > len(shown):
        console.print(f"... and {len(report.under_way) - len(shown):,} more under way (--json lists them)")
    for violation in report.violations:
        console.print(Text(f"violation: {violation}", style="red"))
    if report.clean:
        console.print("clean: the five databases agree", style="bold green")
    else:
        console.print(f"{len(report.violations):,} violations", style="bold red")


if __name__ == "__main__":
    sys.exit(main())
