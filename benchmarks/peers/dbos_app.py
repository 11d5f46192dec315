"""The saga with DBOS: one workflow of five transactions, taken from a queue by one or more of these programs.

    python dbos_app.py EXECUTOR

Written as DBOS's documentation recommends: a worker that registers a queue and waits; a datasource, whose
transactions note that they are done in the very transaction that does it; a workflow that undoes what was done
when a later step refuses. The workflow's id is the payment's, so the same payment is done once. DBOS talks to its
database only: there is no message broker.
"""
# The peers' packages are in an interpreter of their own, unseen by the type checker of this one.
# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import os
import signal
import sys
from datetime import UTC, datetime
from threading import Event
from typing import Any

from dbos import DBOS, DBOSConfig, SQLAlchemyDatasource
from sqlalchemy import text

QUEUE = "payments"
LIMIT = 1_000_000_000
#: Workflows that one process runs at once: a little more than the datasource's pool has connections (15).
CONCURRENCY = 20
POLLING_SECONDS = 0.1

Order = dict[str, Any]

datasource = SQLAlchemyDatasource.create(os.environ["DATABASE_URL"])
# Row locks do what is needed; DBOS's default, SERIALIZABLE, costs repetitions and brings nothing here.
transaction = datasource.transaction(isolation_level="READ COMMITTED")


class Refused(Exception):  # noqa: N818 - it is no error but an answer
    """The saga ends here, and what was done is undone."""


def run(statement: str, **values: object) -> Any:  # noqa: ANN401 - SQLAlchemy's result
    """Run a statement in the transaction at hand."""
    return datasource.sql_session().execute(text(statement), values)


@transaction
def pay(order: Order) -> None:
    """Record the payment."""
    now = _in_time(order)
    if order["amount"] > LIMIT:
        raise Refused("over_limit")
    run(
        """INSERT INTO payment VALUES (
            :payment_id, :user_id, :reservation_id, :token, :amount, 'PAID', :expires_at, :now
        )""",
        **order,
        now=now,
    )


@transaction
def cancel(order: Order) -> None:
    """Undo `pay`."""
    run("UPDATE payment SET state = 'CANCELLED' WHERE payment_id = :payment_id", payment_id=order["payment_id"])


@transaction
def confirm(order: Order) -> None:
    """Confirm the reservation, if it is this user's, still held, and its seat still belongs to it."""
    now = _in_time(order)
    found = run(
        """SELECT r.user_id, r.state, r.price, s.reservation_id, r.held_until
        FROM reservation r JOIN seat s USING (seat) WHERE r.reservation_id = :reservation_id FOR UPDATE""",
        reservation_id=order["reservation_id"],
    ).one_or_none()
    if found is None:
        raise Refused("unknown_reservation")
    *facts, held_until = found
    if facts != [order["user_id"], "HELD", order["amount"], order["reservation_id"]] or now > held_until:
        raise Refused("not_to_be_confirmed")
    run(
        """UPDATE reservation SET state = 'CONFIRMED', payment_id = :payment_id
        WHERE reservation_id = :reservation_id""",
        payment_id=order["payment_id"],
        reservation_id=order["reservation_id"],
    )


@transaction
def revert(order: Order) -> None:
    """Undo `confirm`."""
    run(
        """UPDATE reservation SET state = CASE WHEN now() > held_until THEN 'RELEASED' ELSE 'HELD' END
        WHERE reservation_id = :reservation_id""",
        reservation_id=order["reservation_id"],
    )


@transaction
def deduct(order: Order) -> None:
    """Deduct the points, if there are enough, and write it into the ledger."""
    now = _in_time(order)
    deducted = run(
        "UPDATE wallet SET balance = balance - :amount WHERE user_id = :user_id AND balance >= :amount",
        amount=order["amount"],
        user_id=order["user_id"],
    )
    if not deducted.rowcount:
        raise Refused("balance_too_low")
    _enter(order, "deduction", -order["amount"], now)


@transaction
def restore(order: Order) -> None:
    """Undo `deduct`."""
    run(
        "UPDATE wallet SET balance = balance + :amount WHERE user_id = :user_id",
        amount=order["amount"],
        user_id=order["user_id"],
    )
    _enter(order, "restoration", order["amount"], datetime.now(UTC))


@transaction
def expire(order: Order) -> None:
    """Use up the token, if it is this user's and still active."""
    expired = run(
        """UPDATE token SET state = 'EXPIRED', payment_id = :payment_id, expired_at = :now
        WHERE token = :token AND user_id = :user_id AND state = 'ACTIVE'""",
        payment_id=order["payment_id"],
        token=order["token"],
        user_id=order["user_id"],
        now=_in_time(order),
    )
    if not expired.rowcount:
        raise Refused("token_not_active")


@transaction
def tell(order: Order, kind: str, words: str) -> None:
    """Tell the user."""
    run(
        "INSERT INTO notice VALUES (:payment_id, :user_id, :kind, :words, 'SENT', :now)",
        payment_id=order["payment_id"],
        user_id=order["user_id"],
        kind=kind,
        words=words,
        now=datetime.now(UTC),
    )


@DBOS.workflow(name="saga")
def saga(order: Order) -> str:
    """Do the steps in their order; if one refuses, undo those before it. Where it ended is kept by DBOS."""
    undo = []
    try:
        for step, undoing in ((pay, cancel), (confirm, revert), (deduct, restore), (expire, None)):
            step(order)
            undo.append(undoing)
    except Refused as refused:
        for undoing in reversed(undo):
            undoing(order)
        tell(order, "failed", f"Payment {order['payment_id']} was not made: {refused}.")
        return "failed"
    tell(
        order,
        "completed",
        f"Your seat is confirmed: payment {order['payment_id']}, {order['amount']} points.",
    )
    return "completed"


def main(executor: str) -> None:
    """Run workflows until SIGTERM."""
    config: DBOSConfig = {
        "name": "peer-dbos",
        "system_database_url": os.environ["SYSTEM_DATABASE_URL"],
        "executor_id": executor,
        "application_version": "1",
        "log_level": "WARNING",
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=CONCURRENCY, polling_interval_sec=POLLING_SECONDS)
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    sys.stdout.write("taking work\n")
    sys.stdout.flush()
    stop.wait()
    DBOS.destroy()


def _enter(order: Order, kind: str, amount: int, now: datetime) -> None:
    run(
        """INSERT INTO ledger_entry (saga_id, kind, user_id, amount, created_at)
        VALUES (:payment_id, :kind, :user_id, :amount, :now)""",
        payment_id=order["payment_id"],
        kind=kind,
        user_id=order["user_id"],
        amount=amount,
        now=now,
    )


def _in_time(order: Order) -> datetime:
    now = datetime.now(UTC)
    if now > datetime.fromisoformat(order["expires_at"]):
        raise Refused("deadline_passed")
    return now


if __name__ == "__main__":
    main(sys.argv[1])
