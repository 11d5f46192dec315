"""The verdict over a run that has come to rest: the audit of the five databases, and what only a simulation knows.

The audit sees whether the databases agree. The simulation also knows what was asked for, what was said and what
users were told: so nothing may be missing, nothing parked without a reason, and no event left unsaid.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from common import recovery, saga
from ops.audit.look import Counts, Report, audit
from proof.simulator.clock import BEGINNING
from proof.simulator.simulation import Run
from proof.simulator.workload import Told, services_of

_LATER = timedelta(days=1)
_NOTICE = "notification.sent"
_NO_CHANNEL = "channel_failed"


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken, what shows it, and the saga or command that it is about."""

    rule: str
    evidence: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.key + ': ' if self.key else ''}{self.evidence}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong with a run, and what was counted in its databases."""

    violations: tuple[Violation, ...]
    counts: Counts

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return not self.violations


def judge(run: Run) -> Verdict:
    """Hold a run against the promise."""
    report = _audited(run)
    violations = [
        *_restless(run),
        *(Violation(found.rule, found.evidence, found.saga_id) for found in report.violations),
        *(
            Violation("unfinished", f"waits for {', '.join(it.waits_for) or 'the broker'}", it.saga_id)
            for it in report.under_way
        ),
        *_points(run),
        *_lost(run),
        *_parked(run),
        *_unsaid(run),
        *_told(run),
    ]
    return Verdict(tuple(violations), report.counts)


def _audited(run: Run) -> Report:
    """The audit, over copies of the databases in files."""
    now = BEGINNING + timedelta(seconds=run.virtual_seconds) + _LATER
    with tempfile.TemporaryDirectory(prefix="saga-simulation-") as folder:
        urls = {}
        for service, database in run.databases.items():
            path = Path(folder, f"{service}.sqlite3")
            with contextlib.closing(sqlite3.connect(path)) as copy:
                database.raw.backup(copy)
            urls[service] = f"sqlite://{path}"
        return asyncio.run(audit(urls, now=now, pause=timedelta()))


def _restless(run: Run) -> Iterator[Violation]:
    if not run.rested:
        yield Violation("rest", f"never comes to rest: {run.left}")
    for what in run.unexpected:
        yield Violation("stumbled", what)


def _rows(run: Run, service: str, query: str) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in run.databases[service].raw.execute(query).fetchall()]


def _points(run: Run) -> Iterator[Violation]:
    """Points are neither made nor lost, and no balance was ever below zero."""
    ((held,),) = _rows(run, "point", "SELECT COALESCE(SUM(balance), 0) FROM wallet")
    given = _rows(
        run,
        "point",
        "SELECT COALESCE(SUM(json_extract(answer, '$.amount')), 0) FROM command_record"
        " WHERE answer_type = 'point.topped_up'",
    )[0][0]
    ((spent,),) = _rows(run, "payment", "SELECT COALESCE(SUM(amount), 0) FROM payment WHERE state = 'COMPLETED'")
    if held != given - spent:
        yield Violation("points", f"{given} were given and {spent} spent, but {held} are left")
    balances: Counter[str] = Counter()
    for user, amount, saga_id in _rows(
        run, "point", "SELECT user_id, amount, saga_id FROM ledger_entry ORDER BY id"
    ):
        balances[user] += amount
        if balances[user] < 0:
            yield Violation("negative", f"the wallet of {user} was at {balances[user]}", saga_id)


def _lost(run: Run) -> Iterator[Violation]:
    """Every command that the broker took has its outcome."""
    known = {service: {key for (key,) in _rows(run, service, _KEYS)} for service in saga.SERVICES}
    for told in run.accepted:
        if told.parked and told.parked != saga.IDEMPOTENCY_CONFLICT:
            continue
        if told.id not in known[services_of(told.key)]:
            yield Violation("lost", f"{told.key} was confirmed by the broker and has no outcome", told.id)


_KEYS = "SELECT saga_id FROM saga_step UNION SELECT command_id FROM command_record"


def _parked(run: Run) -> Iterator[Violation]:
    """Whatever is parked is meant to be, and what is meant to be parked is."""
    poison = {told.body: told for told in run.accepted if told.parked}
    contradicted = {told.id for told in run.accepted if told.parked == saga.IDEMPOTENCY_CONFLICT}
    by_content: Mapping[bytes, Told] = {told.body: told for told in run.accepted}
    silent = {key for (key,) in _rows(run, "notify", "SELECT saga_id FROM notice WHERE state = 'PARKED'")}
    found: defaultdict[str, set[str]] = defaultdict(set)
    for service, messages in run.parked.items():
        for message in messages:
            reason = str((message.headers or {}).get(recovery.REASON))
            type_ = str((message.headers or {}).get(recovery.TYPE))
            told = by_content.get(message.body)
            key = told.id if told else str(message.properties.correlation_id)
            found[reason].add(key)
            if reason == _NO_CHANNEL and type_ == _NOTICE and key in silent:
                continue
            if reason == saga.IDEMPOTENCY_CONFLICT and key in contradicted:
                continue
            if message.body in poison and poison[message.body].parked == reason:
                continue
            detail = (message.headers or {}).get(recovery.DETAIL)
            yield Violation("parked", f"{service} parked {type_}: {reason} ({detail})", key)
    for told in poison.values():
        if told.id not in found[told.parked]:
            yield Violation("parked", f"{told.key} {told.body[:60]!r} is not parked: {told.parked}", told.id)
    for key in sorted(silent - found[_NO_CHANNEL]):
        yield Violation("parked", "the notice is parked, but no person can see it", key)


def _unsaid(run: Run) -> Iterator[Violation]:
    """Every change was told: the broker has confirmed the event of each."""
    for service in saga.SERVICES:
        step = saga.step_of(service)
        for saga_id, state in _rows(run, service, "SELECT saga_id, state FROM saga_step"):
            wanted = []
            if state in {"done", "settled", "undone"} and step.refusals:
                wanted.append(step.emits)
            if state == "undone" and step.compensation:
                wanted.append(step.compensation)
            if state == "failed":
                wanted.append(step.failed)
            yield from _missing(run, service, saga_id, *wanted)
        for command_id, answer in _rows(run, service, "SELECT command_id, answer_type FROM command_record"):
            yield from _missing(run, service, command_id, answer)
    for (saga_id,) in _rows(run, "payment", "SELECT payment_id FROM payment WHERE state = 'COMPLETED'"):
        yield from _missing(run, "payment", saga_id, saga.COMPLETED)
    for (saga_id,) in _rows(run, "notify", "SELECT saga_id FROM notice WHERE state = 'SENT'"):
        yield from _missing(run, "notify", saga_id, _NOTICE)


def _missing(run: Run, service: str, key: str, *types: str) -> Iterator[Violation]:
    for type_ in types:
        if (service, type_, key) not in run.confirmed:
            yield Violation("unsaid", f"{service} never said {type_}", key)


def _told(run: Run) -> Iterator[Violation]:
    """Users are told one kind of thing, and what counts as sent was sent."""
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for saga_id, kind in run.sent:
        kinds[saga_id].add(kind)
    for saga_id, told in kinds.items():
        if len(told) > 1:
            yield Violation("notice", "the user was told both that it is done and that it failed", saga_id)
    for saga_id, kind in _rows(run, "notify", "SELECT saga_id, kind FROM notice WHERE state = 'SENT'"):
        if kind not in kinds[saga_id]:
            yield Violation("notice", f"{kind} counts as sent, but nobody was told", saga_id)
