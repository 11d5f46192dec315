"""What must be true of one saga: pure functions over the rows that the five services keep of it.

Two questions. What contradicts itself, so that no message could mend it? And whose word is still missing? Each
service's business rows must agree with its own `saga_step` row, and the five `saga_step` rows with one another:
together that says that all of it happened, or none of it did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from common import saga

_BEFORE_PIVOT = saga.SERVICES[: saga.SERVICES.index(saga.PIVOT.service)]
_FIRST = saga.FIRST.service
_PIVOT = saga.PIVOT.service
_LAST = saga.SERVICES[-1]


@dataclass(frozen=True, slots=True)
class Step:
    """A service's `saga_step` row."""

    state: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """A row of a service's outbox: said, but not yet confirmed by the broker."""

    service: str
    type: str
    staged_at: datetime


@dataclass(frozen=True, slots=True)
class Payment:
    """The payment itself."""

    state: str
    user_id: str
    reservation_id: str
    token: str
    amount: int
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Deed:
    """A reservation or a token that names this saga as its payment; a token has no price."""

    id: str
    state: str
    user_id: str
    price: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A deduction or a restoration in the ledger."""

    kind: str
    user_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class Notice:
    """What the user is told."""

    kind: str
    state: str
    user_id: str
    due_at: datetime


@dataclass(slots=True)
class Saga:
    """All that the five databases know of one saga."""

    id: str
    steps: dict[str, Step] = field(default_factory=dict)
    unpublished: list[Event] = field(default_factory=list)
    payment: Payment | None = None
    reservations: list[Deed] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    tokens: list[Deed] = field(default_factory=list)
    notice: Notice | None = None

    def state(self, service: str) -> str | None:
        """What became of the saga in a service; None: it has not heard of it. What is settled was done."""
        step = self.steps.get(service)
        return ("done" if step.state == "settled" else step.state) if step else None

    @property
    def settled(self) -> list[str]:
        """The services that were told that the whole saga is complete."""
        return [service for service, step in self.steps.items() if step.state == "settled"]

    def may_be_forgotten(self, before: datetime) -> bool:
        """Whether it was over before that time, so that every service but the first may have forgotten it."""
        first = self.steps.get(_FIRST)
        return first is not None and first.state != "done" and first.changed_at < before

    @property
    def exists(self) -> bool:
        """Whether this is a saga at all: an outbox also tells of commands beside the sagas."""
        rows = self.payment, self.reservations, self.entries, self.tokens, self.notice
        return bool(self.steps) or any(rows)

    @property
    def failed_at(self) -> list[str]:
        """The services that say that the saga failed with them; more than one is a contradiction."""
        return [service for service in saga.SERVICES if self.state(service) == "failed"]

    @property
    def changed_at(self) -> datetime | None:
        """When anything of it last changed, as far as that is written down."""
        times = [step.changed_at for step in self.steps.values()]
        times += [event.staged_at for event in self.unpublished]
        if self.payment:
            times.append(self.payment.changed_at)
        return max(times, default=None)


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that is broken, by its stable name, and what shows it."""

    rule: str
    evidence: str


def contradictions(it: Saga, *, kept_since: datetime) -> list[Finding]:
    """What is wrong with this saga however long one waits.

    `kept_since`: of a saga that was over before, the business rows alone must be right; they are kept for ever.
    """
    found = {
        "torn": _torn(it),
        "settled": _settled(it),
        "payment": _payment(it),
        "reservation": _reservation(it),
        "points": _points(it),
        "token": _token(it),
        "notice": _notice(it),
        "amount": _amount(it),
        "owner": _owner(it),
    }
    if it.may_be_forgotten(kept_since):
        found = {"forgotten": _forgotten(it), "amount": _amount(it), "owner": _owner(it)}
    return [Finding(rule, evidence) for rule, evidences in found.items() for evidence in evidences]


def waits_for(it: Saga, *, kept_since: datetime) -> list[str]:
    """The services whose word is missing until this saga has come to its end."""
    waits = [] if it.may_be_forgotten(kept_since) else _silent(it)
    if it.notice and it.notice.state == "PENDING" and _LAST not in waits:
        waits.append(_LAST)
    return waits


def _silent(it: Saga) -> list[str]:
    if not it.steps:
        return []
    if it.state(_PIVOT) == "done":
        first = [_FIRST] if it.payment and it.payment.state == "PAID" else []
        return first + [service for service in saga.SERVICES if it.state(service) is None]
    if it.failed_at:
        # Whoever comes after the failure has nothing to undo, and if he never hears of it, nothing is wrong.
        done = [service for service in saga.SERVICES if it.state(service) == "done"]
        return done + ([_LAST] if it.state(_LAST) is None else [])
    return next(([service] for service in saga.SERVICES if it.state(service) is None), [])


def _torn(it: Saga) -> Iterator[str]:
    """The five rows against one another: the first ones done; or one failed, undone before it, closed after."""
    failed = it.failed_at
    if it.payment and it.payment.state == "COMPLETED" and it.state(_PIVOT) != "done":
        yield f"the payment is COMPLETED, but {_says(it, _PIVOT)}"
    if it.state(_PIVOT) == "done":
        for service in saga.SERVICES:
            if it.state(service) not in ({"done"} if service in _BEFORE_PIVOT else {"done", None}):
                yield f"{_PIVOT} is done, but {_says(it, service)}"
    elif failed:
        yield from _torn_after_failure(it, failed[0])
    else:
        yield from _torn_before_failure(it)


def _torn_after_failure(it: Saga, failed: str) -> Iterator[str]:
    at = saga.SERVICES.index(failed)
    for place, service in enumerate(saga.SERVICES):
        allowed = {"done", "undone"} if place < at else {"closed", None}
        if place != at and it.state(service) not in allowed:
            yield f"{failed} failed, but {_says(it, service)}"


def _torn_before_failure(it: Saga) -> Iterator[str]:
    over = [service for service in saga.SERVICES if it.state(service) in {"undone", "closed"}]
    if over:
        yield f"{_says(it, over[0])}, but no service failed"
        return
    for before, after in pairwise(saga.SERVICES):
        if it.state(after) == "done" and it.state(before) is None:
            yield f"{after} is done, but {_says(it, before)}"


def _settled(it: Saga) -> Iterator[str]:
    """Only what is complete is settled."""
    if it.settled and (it.payment is None or it.payment.state != "COMPLETED"):
        yield f"{', '.join(it.settled)} was told that it is complete, but the payment is {_state_of(it.payment)}"


def _forgotten(it: Saga) -> Iterator[str]:
    """What is left of a saga of long ago: all that was taken, or none of it."""
    complete = it.payment is not None and it.payment.state == "COMPLETED"
    taken = sum(entry.amount for entry in it.entries)
    left = [
        *(f"reservation {deed.id} {deed.state}" for deed in it.reservations),
        *(f"token {deed.id} {deed.state}" for deed in it.tokens),
        *([f"{taken} points"] if taken else []),
    ]
    if complete and (len(it.reservations), len(it.tokens), len(it.entries)) != (1, 1, 1):
        yield f"the payment is COMPLETED, but what it has is {', '.join(left) or 'nothing'}"
    if not complete and left:
        yield f"the payment is {_state_of(it.payment)}, but it has {', '.join(left)}"


def _state_of(payment: Payment | None) -> str:
    return payment.state if payment else "missing"


def _payment(it: Saga) -> Iterator[str]:
    allowed = {"done": {"PAID", "COMPLETED"}, "undone": {"CANCELLED"}}.get(it.state(_FIRST) or "", {None})
    state = it.payment.state if it.payment else None
    if state not in allowed:
        yield f"{_says(it, 'payment')}, but the payment is {state or 'missing'}"


def _reservation(it: Saga) -> Iterator[str]:
    yield from _taken(it, "reservation", it.reservations, "CONFIRMED")


def _token(it: Saga) -> Iterator[str]:
    yield from _taken(it, "queue", it.tokens, "EXPIRED")


def _taken(it: Saga, service: str, deeds: list[Deed], state: str) -> Iterator[str]:
    """A service whose part is done has exactly one thing in its final state; any other has none."""
    held = [f"{deed.id} {deed.state}" for deed in deeds]
    wanted = 1 if it.state(service) == "done" else 0
    if len(deeds) != wanted or any(deed.state != state for deed in deeds):
        yield f"{_says(it, service)}, but this payment has {', '.join(held) or 'nothing'}"


def _points(it: Saga) -> Iterator[str]:
    wanted = {"done": ["deduction"], "undone": ["deduction", "restoration"]}.get(it.state("point") or "", [])
    kinds = sorted(entry.kind for entry in it.entries)
    if kinds != wanted:
        yield f"{_says(it, 'point')}, but the ledger has {', '.join(kinds) or 'nothing'}"


def _notice(it: Saga) -> Iterator[str]:
    wanted = {"done": "completed", "closed": "failed"}.get(it.state("notify") or "")
    kind = it.notice.kind if it.notice else None
    if kind != wanted:
        yield f"{_says(it, 'notify')}, but the notice is {kind or 'missing'}"


def _amount(it: Saga) -> Iterator[str]:
    """One price in all books, and a restoration that gives back what the deduction took."""
    if it.payment:
        for deed in it.reservations:
            if deed.price != it.payment.amount:
                yield f"the payment is of {it.payment.amount} points, the price of {deed.id} is {deed.price}"
    amount = it.payment.amount if it.payment else next((abs(entry.amount) for entry in it.entries), 0)
    for entry in it.entries:
        change = -amount if entry.kind == "deduction" else amount
        if entry.amount != change:
            yield f"the {entry.kind} is of {entry.amount} points, not of {change}"


def _owner(it: Saga) -> Iterator[str]:
    """What was taken is what the payment says, and belongs to the user who pays."""
    if it.payment is None:
        return
    taken = {"reservation": it.reservations, "token": it.tokens}
    wanted = {"reservation": it.payment.reservation_id, "token": it.payment.token}
    for what, deeds in taken.items():
        for deed in deeds:
            if deed.id != wanted[what]:
                yield f"the payment is for {what} {wanted[what]}, but it has {deed.id}"
    named = [(f"{what} {deed.id}", deed.user_id) for what, deeds in taken.items() for deed in deeds]
    named += [(entry.kind, entry.user_id) for entry in it.entries]
    named += [("notice", it.notice.user_id)] if it.notice else []
    for name, user in named:
        if user != it.payment.user_id:
            yield f"{it.payment.user_id} pays, but the {name} is of {user}"


def _says(it: Saga, service: str) -> str:
    state = it.state(service)
    return f"{service} is {state}" if state else f"{service} has not heard of it"
