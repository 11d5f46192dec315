"""The saga with Celery: a chain of five tasks, each on a queue of its own, each worked by its service.

    celery --app=celery_app worker --queues=peer.celery.payment

Written as Celery's documentation recommends: quorum queues with confirmed publishing; late acknowledgement, and
therefore idempotent tasks; a task is taken up again when its process is lost, and retried with growing pauses when
its database is away; a large prefetch multiplier for short tasks; results ignored where nobody asks for them, sent
by RPC where somebody does. When a task returns, Celery publishes the next one of the chain, waits for the broker's
confirm, and then acks.
"""
# The peers' packages are in an interpreter of their own, unseen by the type checker of this one.
# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from kombu import Exchange, Queue
from psycopg import OperationalError
from psycopg_pool import ConnectionPool

SERVICES = ("payment", "reservation", "point", "queue", "notify")
LIMIT = 1_000_000_000
EXCHANGE = Exchange("peer.celery", type="topic")

Order = dict[str, Any]
#: What psycopg raises when there is no database or no connection to it.
RETRIED: dict[str, Any] = {"autoretry_for": (OperationalError,), "retry_backoff": True, "max_retries": 10}

app = Celery("peer", broker=os.environ["RABBITMQ_URL"], backend="rpc://")
app.conf.update(
    task_queues=[
        Queue(
            f"peer.celery.{service}",
            exchange=EXCHANGE,
            routing_key=service,
            queue_arguments={"x-queue-type": "quorum"},
        )
        for service in SERVICES
    ],
    task_routes={f"peer.{service}": {"queue": f"peer.celery.{service}"} for service in SERVICES},
    broker_transport_options={"confirm_publish": True},
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    # Its queues are not durable, which the newest RabbitMQ refuses, and nobody here asks a worker anything.
    worker_enable_remote_control=False,
)

pool = ConnectionPool(os.environ["DATABASE_URL"], min_size=1, max_size=1, open=False)


@worker_process_init.connect
def connect(**_: object) -> None:
    """Open the service's database once a process is forked: connections do not survive a fork."""
    pool.open()


class Refused(Exception):  # noqa: N818 - it is no error but an answer
    """The saga ends here. Celery acks a task that raises, and runs no later one of its chain."""


@app.task(name="peer.payment", **RETRIED)
def pay(order: Order) -> Order:
    """Record the payment."""
    now = _in_time(order)
    if order["amount"] > LIMIT:
        raise Refused("over_limit")
    with pool.connection() as connection:
        connection.execute(
            """INSERT INTO payment VALUES (
                %(payment_id)s, %(user_id)s, %(reservation_id)s, %(token)s, %(amount)s, 'PAID',
                %(expires_at)s, %(now)s
            ) ON CONFLICT DO NOTHING""",
            {**order, "now": now},
        )
    return {**order, "paid_at": now.isoformat()}


@app.task(name="peer.reservation", **RETRIED)
def confirm(order: Order) -> Order:
    """Confirm the reservation, if it is this user's, still held, and its seat still belongs to it."""
    now = _in_time(order)
    with pool.connection() as connection:
        found = connection.execute(
            """SELECT r.user_id, r.state, r.payment_id, r.price, r.held_until, s.reservation_id
            FROM reservation r JOIN seat s USING (seat) WHERE r.reservation_id = %s FOR UPDATE""",
            [order["reservation_id"]],
        ).fetchone()
        if found is None:
            raise Refused("unknown_reservation")
        user, state, payment, price, held_until, holder = found
        if (state, payment) != ("CONFIRMED", order["payment_id"]):
            wanted = (order["user_id"], "HELD", order["amount"], order["reservation_id"])
            if (user, state, price, holder) != wanted or now > held_until:
                raise Refused("not_to_be_confirmed")
            connection.execute(
                "UPDATE reservation SET state = 'CONFIRMED', payment_id = %s WHERE reservation_id = %s",
                [order["payment_id"], order["reservation_id"]],
            )
    return {**order, "confirmed_at": now.isoformat()}


@app.task(name="peer.point", **RETRIED)
def deduct(order: Order) -> Order:
    """Write the deduction into the ledger and, unless it was there, deduct the points if there are enough."""
    now = _in_time(order)
    with pool.connection() as connection:
        entered = connection.execute(
            """INSERT INTO ledger_entry (saga_id, kind, user_id, amount, created_at)
            VALUES (%s, 'deduction', %s, %s, %s) ON CONFLICT DO NOTHING""",
            [order["payment_id"], order["user_id"], -order["amount"], now],
        )
        if entered.rowcount:
            deducted = connection.execute(
                """UPDATE wallet SET balance = balance - %(amount)s
                WHERE user_id = %(user_id)s AND balance >= %(amount)s""",
                order,
            )
            if not deducted.rowcount:
                raise Refused("balance_too_low")
    return {**order, "deducted_at": now.isoformat()}


@app.task(name="peer.queue", **RETRIED)
def expire(order: Order) -> Order:
    """Use up the token, if it is this user's and still active, or used up by this very payment."""
    now = _in_time(order)
    with pool.connection() as connection:
        expired = connection.execute(
            """UPDATE token
            SET state = 'EXPIRED', payment_id = %(payment_id)s, expired_at = coalesce(expired_at, %(now)s)
            WHERE token = %(token)s AND user_id = %(user_id)s
            AND (state = 'ACTIVE' OR payment_id = %(payment_id)s)""",
            {**order, "now": now},
        )
        if not expired.rowcount:
            raise Refused("token_not_active")
    return {**order, "expired_at": now.isoformat()}


@app.task(name="peer.notify", ignore_result=False, **RETRIED)
def tell(order: Order) -> str:
    """Tell the user; the only result that somebody waits for."""
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO notice VALUES (%s, %s, 'completed', %s, 'SENT', %s) ON CONFLICT DO NOTHING",
            [
                order["payment_id"],
                order["user_id"],
                f"Your seat is confirmed: payment {order['payment_id']}, {order['amount']} points.",
                datetime.now(UTC),
            ],
        )
    return "completed"


def _in_time(order: Order) -> datetime:
    now = datetime.now(UTC)
    if now > datetime.fromisoformat(order["expires_at"]):
        raise Refused("deadline_passed")
    return now
