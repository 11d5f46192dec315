"""Sabotage: one guard at a time is taken out of the production code. A search that does not notice proves nothing.

Each act names what it takes away. They are applied around a search and undone after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from unittest import mock

import payment_svc.domain
import point_svc.domain
import queue_svc.domain
import reservation_svc.domain
from common import barrier, saga
from common.barrier import Action, Kind, State
from common.recovery import Done, Outcome


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
}
