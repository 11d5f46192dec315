"""The single transaction that the saga replaced, as an oracle: one database, one `with`, nothing in between.

It is written from the rules in prose, with SQL of its own, so that it shares no mistake with the services.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from common.messages import Enter, Hold, Pay, TopUp

_SCHEMA = """
CREATE TABLE payment (payment_id TEXT PRIMARY KEY, amount INTEGER);
CREATE TABLE reservation
    (reservation_id TEXT PRIMARY KEY, user_id TEXT, seat TEXT, price INTEGER, payment_id TEXT);
CREATE TABLE wallet (user_id TEXT PRIMARY KEY, balance INTEGER CHECK (balance >= 0));
CREATE TABLE token (token TEXT PRIMARY KEY, user_id TEXT, payment_id TEXT);
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What is left after a workload: who paid, what everybody has, whose seat and token is whose."""

    completed: frozenset[str]
    balances: frozenset[tuple[str, int]]
    seats: frozenset[tuple[str, str]]
    tokens: frozenset[tuple[str, str]]


class Refused(Exception):  # noqa: N818 - it undoes the transaction and says why
    """The payment is not made."""


class ConcertPaymentUseCase:
    """Pays for a held seat the way it was done when one database had it all."""

    def __init__(self, owned: Iterable[Hold | TopUp | Enter], limit: int) -> None:
        self._limit = limit
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.executescript(_SCHEMA)
        for command in owned:
            match command:
                case Hold():
                    row = (command.reservation_id, command.user_id, command.seat, command.price)
                    self._db.execute("INSERT INTO reservation VALUES (?, ?, ?, ?, NULL)", row)
                case TopUp():
                    self._db.execute("INSERT OR IGNORE INTO wallet VALUES (?, 0)", (command.user_id,))
                    given = (command.amount, command.user_id)
                    self._db.execute("UPDATE wallet SET balance = balance + ? WHERE user_id = ?", given)
                case Enter():
                    self._db.execute("INSERT INTO token VALUES (?, ?, NULL)", (command.token, command.user_id))

    def pay(self, command: Pay) -> str | None:
        """Record the payment, confirm the reservation, deduct the points, expire the token; or say why not."""
        self._db.execute("BEGIN")
        try:
            self._pay(command)
        except Refused as refused:
            self._db.execute("ROLLBACK")
            return str(refused)
        self._db.execute("COMMIT")
        return None

    def _pay(self, command: Pay) -> None:
        if command.amount > self._limit:
            raise Refused("over_limit")
        paid = (command.payment_id, command.amount)
        self._db.execute("INSERT INTO payment VALUES (?, ?)", paid)
        self._must(
            "UPDATE reservation SET payment_id = ? WHERE reservation_id = ? AND user_id = ? AND price = ?"
            " AND payment_id IS NULL",
            (command.payment_id, command.reservation_id, command.user_id, command.amount),
        )
        points = "UPDATE wallet SET balance = balance - ? WHERE user_id = ? AND balance >= ?"
        self._must(points, (command.amount, command.user_id, command.amount))
        self._must(
            "UPDATE token SET payment_id = ? WHERE token = ? AND user_id = ? AND payment_id IS NULL",
            (command.payment_id, command.token, command.user_id),
        )

    def _must(self, statement: str, values: tuple[object, ...]) -> None:
        if self._db.execute(statement, values).rowcount != 1:
            raise Refused(statement.split()[1])

    def result(self) -> Result:
        """What the one database holds."""

        def rows(query: str) -> frozenset[tuple[str, int]]:
            return frozenset(self._db.execute(query).fetchall())

        return Result(
            completed=frozenset(payment for (payment,) in self._db.execute("SELECT payment_id FROM payment")),
            balances=rows("SELECT user_id, balance FROM wallet"),
            seats=rows("SELECT seat, payment_id FROM reservation WHERE payment_id IS NOT NULL"),  # type: ignore[arg-type]
            tokens=rows("SELECT token, payment_id FROM token WHERE payment_id IS NOT NULL"),  # type: ignore[arg-type]
        )
