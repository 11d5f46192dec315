"""Sabotage: one guard at a time is taken out of the production code. A search that does not notice proves nothing.

Each act names what it takes away. They are applied around a search and undone after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

from tortoise import Model

import payment_svc.domain
import point_svc.domain
import queue_svc.domain
import reservation_svc.domain
import reservation_svc.step
from common import barrier, rows, saga
from common.barrier import Action, Kind, SagaStep, State
from common.recovery import Done, Outcome
from payment_svc.settlement import Settlement
from point_svc.models import Wallet
from proof import laboratory
from queue_svc.models import Token
from reservation_svc.models import Reservation


def _table(**changed: Action) -> AbstractContextManager[object]:
    """The barrier's table with one cell changed; `none_forward=Action.UNDO` names row and message."""
    table = dict(barrier.TABLE)
    for cell, action in changed.items():
        row, _, kind = cell.partition("_")
        table[None if row == "none" else State(row), Kind[kind.upper()]] = action
    return mock.patch.object(barrier, "TABLE", table)


def _deaf(service: str) -> AbstractContextManager[object]:
    """The saga table with a service that is not bound to the failures: a compensation left out."""
    heard = saga.event_keys

    def without_failures(name: str) -> tuple[str, ...]:
        keys = heard(name)
        return tuple(key for key in keys if key != saga.ANY_FAILED) if name == service else keys

    return mock.patch.object(saga, "event_keys", without_failures)


def _refusal_is_done() -> AbstractContextManager[object]:
    """A consumer that takes a refusal for success and acks it."""
    forward = barrier.Barrier.forward

    def careless(self: barrier.Barrier, *arguments: object, **named: object) -> Outcome:
        forward(self, *arguments, **named)  # type: ignore[arg-type]
        return Done()

    return mock.patch.object(barrier.Barrier, "forward", careless)


def _keeps_the_points() -> AbstractContextManager[object]:
    return mock.patch.object(point_svc.domain, "restore", _first)


def _spends_what_is_not_there() -> AbstractContextManager[object]:
    def deduct(balance: int | None, amount: int, **_: object) -> int:
        return (balance or 0) - amount

    return mock.patch.object(point_svc.domain, "deduct", deduct)


def _token_serves_twice() -> AbstractContextManager[object]:
    return mock.patch.object(queue_svc.domain, "expire", return_value=queue_svc.domain.State.EXPIRED)


def _seat_is_sold_again() -> AbstractContextManager[object]:
    confirmed = reservation_svc.domain.State.CONFIRMED
    return mock.patch.object(reservation_svc.domain, "confirm", return_value=confirmed)


def _cancels_what_is_complete() -> AbstractContextManager[object]:
    return mock.patch.object(payment_svc.domain, "complete", return_value=payment_svc.domain.State.CANCELLED)


def _first(balance: int, _: int) -> int:
    return balance


def _never_takes_the_points() -> AbstractContextManager[object]:
    def deduct(balance: int | None, *_: object, **__: object) -> int:
        return balance or 0

    return mock.patch.object(point_svc.domain, "deduct", deduct)


def _on_conflict(table: type[Model], what: str) -> AbstractContextManager[object]:
    """An insert that does not fail when the row exists."""
    written = rows._write  # noqa: SLF001 - sabotage does not knock

    def write(part: Any) -> str:  # noqa: ANN401 - as above
        statement = written(part)
        return f"{statement} ON CONFLICT {what}" if (part.kind, part.model) == ("insert", table) else statement

    return mock.patch.object(rows, "_write", write)


def _overwrites(table: type[Model], *columns: str) -> AbstractContextManager[object]:
    assigned = ", ".join(f'"{name}" = excluded."{name}"' for name in columns)
    return _on_conflict(table, f'("{table._meta.db_pk_column}") DO UPDATE SET {assigned}')  # noqa: SLF001 - as above


def _compares_nothing(table: type[Model]) -> AbstractContextManager[object]:
    update = rows.Writes.update

    def careless(
        self: rows.Writes, model: type[Model], changed: Iterable[Any], *columns: str, only_if: str = ""
    ) -> None:
        update(self, model, changed, *columns, only_if="" if model is table else only_if)

    return mock.patch.object(rows.Writes, "update", careless)


def _counts_nothing() -> AbstractContextManager[object]:
    write = rows._write_one_by_one  # noqa: SLF001 - as above

    async def careless(connection: Any, part: Any, changed: Sequence[Any]) -> int:  # noqa: ANN401 - as above
        await write(connection, part, changed)
        return len(changed)

    return mock.patch.object(rows, "_write_one_by_one", careless)


def _trusts_every_seat() -> AbstractContextManager[object]:
    """The reservation service does not look whether it has locked the seats of all it read."""
    return mock.patch.object(reservation_svc.step, "any", create=True, return_value=False)


#: What is taken away, and how.
ACTS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "no barrier: a repeated message is done again": lambda: _table(done_forward=Action.DO),
    "a failed saga is taken up again": lambda: _table(failed_forward=Action.DO),
    "an undone saga is taken up again": lambda: _table(undone_forward=Action.DO),
    "compensation without guard": lambda: _table(undone_failure=Action.UNDO),
    "failures are not remembered": lambda: _table(none_failure=Action.NOTHING),
    "failures undo nothing": lambda: _table(done_failure=Action.NOTHING),
    "the dead-letter handler ignores the row": lambda: _table(done_dead_letter=Action.FAIL),
    "the dead-letter handler does nothing": lambda: _table(none_dead_letter=Action.NOTHING),
    "payment is deaf to failures": lambda: _deaf("payment"),
    "reservation is deaf to failures": lambda: _deaf("reservation"),
    "point is deaf to failures": lambda: _deaf("point"),
    "notify is deaf to failures": lambda: _deaf("notify"),
    "a refusal counts as done": _refusal_is_done,
    "compensation keeps the points": _keeps_the_points,
    "points are spent that are not there": _spends_what_is_not_there,
    "points are never taken": _never_takes_the_points,
    "a token serves twice": _token_serves_twice,
    "a seat is sold again": _seat_is_sold_again,
    "a payment is cancelled when it is complete": _cancels_what_is_complete,
    "a saga that is taken for new overwrites its row": lambda: _overwrites(
        SagaStep, "state", "answer_type", "answer"
    ),
}


def _settles_once() -> AbstractContextManager[object]:
    """A completion that comes again is not told again, whoever missed it the first time."""
    put = Settlement.put
    seen: set[str] = set()

    def once(self: Settlement, payment_ids: Sequence[str]) -> None:
        put(self, [payment_id for payment_id in payment_ids if payment_id not in seen])
        seen.update(payment_ids)

    return mock.patch.object(Settlement, "put", once)


def _never_offers(service: str) -> AbstractContextManager[object]:
    """A service without a janitor."""
    offer_again = laboratory.Laboratory.offer_again

    async def idle(
        self: laboratory.Laboratory, name: str, content: laboratory.Content
    ) -> tuple[laboratory.Letter, ...]:
        return () if name == service else await offer_again(self, name, content)

    return mock.patch.object(laboratory.Laboratory, "offer_again", idle)


#: What only a search with losses notices: a saga that is never settled, or one that is settled and was not done.
REPAIR: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "a completion that comes again is not settled again": _settles_once,
    **{
        f"{service} has no janitor": partial(_never_offers, service)
        for service in saga.SERVICES
        if saga.awaits_settlement(service)
    },
    "a settled saga is done again": lambda: _table(settled_forward=Action.DO),
}


@dataclass(frozen=True, slots=True)
class RaceAct:
    """A guard against other replicas that is taken out, and the race of `proof.races` that notices."""

    noticed_in: str
    apply: Callable[[], AbstractContextManager[object]]


_TWO_UNDO = "a seat undone by one, taken by another"

#: What only two replicas of a service can notice.
RACES: Mapping[str, RaceAct] = {
    "a wallet is changed without comparing": RaceAct("one wallet", lambda: _compares_nothing(Wallet)),
    "a reservation is changed without comparing": RaceAct("one seat", lambda: _compares_nothing(Reservation)),
    "a token is used without comparing": RaceAct("one token", lambda: _compares_nothing(Token)),
    "seats that are not locked are used": RaceAct("a seat held while it is paid for", _trusts_every_seat),
    "compare-and-set compares nothing": RaceAct(_TWO_UNDO, lambda: _compares_nothing(SagaStep)),
    "compare-and-set does not count the rows": RaceAct(_TWO_UNDO, _counts_nothing),
    "a saga's row that exists is overwritten": RaceAct(
        "point twice", lambda: _overwrites(SagaStep, "state", "answer_type", "answer")
    ),
    "a saga's row that exists is left as it is": RaceAct(
        "point twice", lambda: _on_conflict(SagaStep, "DO NOTHING")
    ),
    "a wallet that exists is overwritten": RaceAct(
        "a wallet opened twice", lambda: _overwrites(Wallet, "balance")
    ),
}
