"""Which rows of the five databases belong to sagas, and what each of them tells.

Tables and columns are written down here once more, instead of taken from the services' own models: an auditor that
shares code with those it audits shares their mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common import saga
from ops.audit.rules import Deed, Entry, Event, Notice, Payment, Saga, Step

#: A row as a driver gives it: first its key, then its columns.
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one table that belong to sagas: their key column, the others, and where each row goes."""

    service: str
    table: str
    key: str
    columns: str
    add: Callable[[Saga, Row], None]
    where: str = "1 = 1"

    @property
    def column(self) -> str:
        """The key column with its table: alone, `key` is a word of MariaDB's language."""
        return f"{self.table}.{self.key}"


def _sources() -> Iterable[Source]:
    for service in saga.SERVICES:

        def add_step(to: Saga, row: Row, service: str = service) -> None:
            to.steps[service] = Step(row[0], _time(row[1]))

        def add_event(to: Saga, row: Row, service: str = service) -> None:
            to.unpublished.append(Event(service, row[0], _time(row[1])))

        yield Source(service, "saga_step", "saga_id", "state, changed_at", add_step)
        yield Source(service, "outbox", "key", "type, staged_at", add_event)

    def add_payment(to: Saga, row: Row) -> None:
        state, user, reservation, token, amount, paid_at, settled_at = row
        to.payment = Payment(state, user, reservation, token, amount, _time(settled_at or paid_at))

    def add_notice(to: Saga, row: Row) -> None:
        kind, state, user, due_at = row
        to.notice = Notice(kind, state, user, _time(due_at))

    yield Source(
        "payment",
        "payment",
        "payment_id",
        "state, user_id, reservation_id, token, amount, paid_at, settled_at",
        add_payment,
    )
    yield Source(
        "reservation",
        "reservation",
        "payment_id",
        "reservation_id, state, user_id, price",
        lambda to, row: to.reservations.append(Deed(*row)),
        where="payment_id IS NOT NULL",
    )
    yield Source(
        "point",
        "ledger_entry",
        "saga_id",
        "kind, user_id, amount",
        lambda to, row: to.entries.append(Entry(*row)),
        where="kind IN ('deduction', 'restoration')",
    )
    yield Source(
        "queue",
        "token",
        "payment_id",
        "token, state, user_id",
        lambda to, row: to.tokens.append(Deed(*row)),
        where="payment_id IS NOT NULL",
    )
    yield Source("notify", "notice", "saga_id", "kind, state, user_id, due_at", add_notice)


SOURCES = tuple(_sources())


def _nothing(_to: Saga, _row: Row) -> None:
    """For what is asked of one saga, and no part of the audit."""


def answers(service: str) -> Source:
    """What a service says when it is asked again: type and body, by saga."""
    return Source(service, "saga_step", "saga_id", "answer_type, answer", _nothing)


#: What the first service keeps of its command, and the digest of what that was exactly.
_FIRST = saga.FIRST.service
COMMANDS = Source(_FIRST, "payment", "payment_id", "user_id, reservation_id, token, amount, expires_at", _nothing)
DIGESTS = Source(_FIRST, "saga_step", "saga_id", "fingerprint", _nothing)


def query_of(source: Source, keys: str = "") -> str:
    """The statement that reads a source, or those of its rows whose key the condition `keys` takes."""
    # Nothing in here comes from outside: the sources are constants of this module.
    which = f"{source.where} AND {source.column} {keys}" if keys else source.where
    return f"SELECT {source.column}, {source.columns} FROM {source.table} WHERE {which}"  # noqa: S608


def _time(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value
