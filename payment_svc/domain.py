"""Rules of payments: pure functions. A payment is provisional until the whole saga has happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class State(StrEnum):
    """A payment's life: PAID is provisional, the other two are the end."""

    PAID = "PAID"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: a stable code, and a sentence for the person."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What the business may set."""

    limit: int
    """Most points that one payment may take."""
    deadline: timedelta
    """How long a payment may take when its command does not say."""
    repeatable: timedelta
    """How long after a payment its command, given once more, walks the whole saga again."""


def pay(amount: int, expires_at: datetime | None, *, rules: Rules, now: datetime) -> datetime | Refusal:
    """The deadline of an accepted payment.

    >>> rules = Rules(limit=100, deadline=timedelta(minutes=10), repeatable=timedelta(days=27))
    >>> pay(101, None, rules=rules, now=datetime(2026, 1, 1))
    Refusal(reason='over_limit', detail='one payment takes at most 100 points, not 101')
    """
    if amount > rules.limit:
        return Refusal("over_limit", f"one payment takes at most {rules.limit} points, not {amount}")
    deadline = expires_at or now + rules.deadline
    if now > deadline:
        return Refusal("deadline_passed", f"the payment had to be done by {deadline.isoformat()}")
    return deadline


def walks_again(paid_at: datetime, *, rules: Rules, now: datetime) -> bool:
    """Whether the others still know a payment of that time, so that asking them again makes sense."""
    return now - paid_at < rules.repeatable


def complete(state: State) -> State | None:
    """The state once the whole saga has happened; None for a payment that was undone."""
    return None if state is State.CANCELLED else State.COMPLETED


def cancel(state: State) -> State | None:
    """The state once the saga has failed; None for a payment that is complete, where no failure can be."""
    return None if state is State.COMPLETED else State.CANCELLED
