"""The saga with FastStream and Tortoise: five services, each one subscriber that returns the next event.

    faststream run faststream_app:payment

Written as FastStream's documentation shows it: a subscriber and a publisher decorator on each handler, pydantic
models, quorum queues, persistent messages, `NACK_ON_ERROR` so that a message whose handler failed is delivered
again. FastStream publishes what a handler returns, waits for the broker's confirm, and then acks the message. So
that this loses no saga, each handler answers a message that comes again as it did the first time.
"""
# The peers' packages are in an interpreter of their own, unseen by the type checker of this one.
# mypy: disable-error-code="import-not-found,untyped-decorator"

from __future__ import annotations

import logging
import os
from contextlib import suppress
from datetime import UTC, datetime

from faststream import AckPolicy, FastStream
from faststream.exceptions import RejectMessage
from faststream.rabbit import Channel, ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from pydantic import BaseModel
from tortoise import Tortoise, fields
from tortoise.exceptions import IntegrityError
from tortoise.models import Model
from tortoise.transactions import in_transaction

LIMIT = 1_000_000_000
#: More than Tortoise's pool has connections (5), so that work is at hand when one gets free; more brought nothing.
PREFETCH = 50
EXCHANGE = RabbitExchange("peer.faststream", type=ExchangeType.TOPIC)


class Payment(Model):
    """One payment."""

    payment_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    reservation_id = fields.CharField(max_length=64)
    token = fields.CharField(max_length=64)
    amount = fields.BigIntField()
    state = fields.CharField(max_length=9)
    expires_at = fields.DatetimeField()
    paid_at = fields.DatetimeField()


class Seat(Model):
    """A seat, and the one reservation that has it."""

    seat = fields.CharField(max_length=64, primary_key=True)
    reservation_id = fields.CharField(max_length=64, null=True)


class Reservation(Model):
    """A user's claim on a seat."""

    reservation_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    seat: fields.ForeignKeyRelation[Seat] = fields.ForeignKeyField(
        "models.Seat", source_field="seat", db_constraint=False
    )
    price = fields.BigIntField()
    held_until = fields.DatetimeField()
    state = fields.CharField(max_length=9)
    payment_id = fields.CharField(max_length=64, null=True)


class Wallet(Model):
    """What a user may spend."""

    user_id = fields.CharField(max_length=64, primary_key=True)
    balance = fields.BigIntField()


class LedgerEntry(Model):
    """One change of a balance."""

    id = fields.BigIntField(primary_key=True)
    saga_id = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=16)
    user_id = fields.CharField(max_length=64)
    amount = fields.BigIntField()
    created_at = fields.DatetimeField()

    class Meta:
        """Tortoise's place for the table's name."""

        table = "ledger_entry"


class Token(Model):
    """A user's way through the waiting room."""

    token = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    state = fields.CharField(max_length=7)
    payment_id = fields.CharField(max_length=64, null=True)
    entered_at = fields.DatetimeField()
    expired_at = fields.DatetimeField(null=True)


class Notice(Model):
    """What a user is told."""

    saga_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=9)
    text = fields.TextField()
    state = fields.CharField(max_length=7)
    settled_at = fields.DatetimeField()


class Pay(BaseModel):
    """`payment.pay`, and what every event carries on."""

    payment_id: str
    user_id: str
    reservation_id: str
    token: str
    amount: int
    expires_at: datetime


class Paid(Pay):
    """`payment.paid`."""

    paid_at: datetime


class Confirmed(Paid):
    """`reservation.confirmed`."""

    confirmed_at: datetime


class Deducted(Confirmed):
    """`point.deducted`."""

    deducted_at: datetime


class Expired(Deducted):
    """`queue.expired`."""

    expired_at: datetime


class Sent(BaseModel):
    """`notification.sent`."""

    payment_id: str
    user_id: str
    kind: str
    sent_at: datetime


def service() -> tuple[RabbitBroker, FastStream]:
    """A service's broker, and the application that opens the service's own database around it."""
    broker = RabbitBroker(
        os.environ["RABBITMQ_URL"],
        default_channel=Channel(prefetch_count=PREFETCH),
        ack_policy=AckPolicy.NACK_ON_ERROR,
        log_level=logging.DEBUG,  # no two lines of log for every message
    )

    async def connect() -> None:
        await Tortoise.init(
            db_url=os.environ["DATABASE_URL"], modules={"models": [__name__]}, _enable_global_fallback=True
        )

    return broker, FastStream(broker, on_startup=[connect], after_shutdown=[Tortoise.close_connections])


def queue(name: str, routing_key: str) -> RabbitQueue:
    """A service's quorum queue."""
    return RabbitQueue(f"peer.faststream.{name}", queue_type=QueueType.QUORUM, routing_key=routing_key)


def in_time(message: Pay, now: datetime) -> None:
    """Refuse what comes too late."""
    if now > message.expires_at:
        raise RejectMessage


payment_broker, payment = service()
reservation_broker, reservation = service()
point_broker, point = service()
queue_broker, waiting_room = service()
notify_broker, notify = service()


@payment_broker.subscriber(queue("payment", "payment.pay"), EXCHANGE)
@payment_broker.publisher(routing_key="payment.paid", exchange=EXCHANGE, persist=True)
async def pay(command: Pay) -> Paid:
    """Record the payment."""
    now = datetime.now(UTC)
    in_time(command, now)
    if command.amount > LIMIT:
        raise RejectMessage
    with suppress(IntegrityError):  # it is recorded
        await Payment.create(**dict(command), state="PAID", paid_at=now)
    return Paid(**dict(command), paid_at=now)


@reservation_broker.subscriber(queue("reservation", "payment.paid"), EXCHANGE)
@reservation_broker.publisher(routing_key="reservation.confirmed", exchange=EXCHANGE, persist=True)
async def confirm(event: Paid) -> Confirmed:
    """Confirm the reservation, if it is this user's, still held, and its seat still belongs to it."""
    now = datetime.now(UTC)
    in_time(event, now)
    async with in_transaction():
        # `of`: PostgreSQL locks no row that an outer join may not find, and Tortoise joins by no other.
        held = Reservation.select_for_update(of=("reservation",)).select_related("seat")
        found = await held.get_or_none(pk=event.reservation_id)
        if found is None or found.user_id != event.user_id:
            raise RejectMessage
        if (found.state, found.payment_id) != ("CONFIRMED", event.payment_id):
            if (
                found.state != "HELD"
                or found.seat.reservation_id != found.reservation_id
                or now > found.held_until
                or found.price != event.amount
            ):
                raise RejectMessage
            found.state, found.payment_id = "CONFIRMED", event.payment_id
            await found.save(update_fields=["state", "payment_id"])
    return Confirmed(**dict(event), confirmed_at=now)


@point_broker.subscriber(queue("point", "reservation.confirmed"), EXCHANGE)
@point_broker.publisher(routing_key="point.deducted", exchange=EXCHANGE, persist=True)
async def deduct(event: Confirmed) -> Deducted:
    """Write the deduction into the ledger and, unless it was there, deduct the points if there are enough."""
    now = datetime.now(UTC)
    in_time(event, now)
    with suppress(IntegrityError):  # it is in the ledger
        async with in_transaction():
            await LedgerEntry.create(
                saga_id=event.payment_id,
                kind="deduction",
                user_id=event.user_id,
                amount=-event.amount,
                created_at=now,
            )
            wallet = await Wallet.select_for_update().get_or_none(pk=event.user_id)
            if wallet is None or wallet.balance < event.amount:
                raise RejectMessage
            wallet.balance -= event.amount
            await wallet.save(update_fields=["balance"])
    return Deducted(**dict(event), deducted_at=now)


@queue_broker.subscriber(queue("queue", "point.deducted"), EXCHANGE)
@queue_broker.publisher(routing_key="queue.expired", exchange=EXCHANGE, persist=True)
async def expire(event: Deducted) -> Expired:
    """Use up the token, if it is this user's and still active."""
    now = datetime.now(UTC)
    in_time(event, now)
    async with in_transaction():
        found = await Token.select_for_update().get_or_none(pk=event.token)
        if found is None or found.user_id != event.user_id:
            raise RejectMessage
        if (found.state, found.payment_id) != ("EXPIRED", event.payment_id):
            if found.state != "ACTIVE":
                raise RejectMessage
            found.state, found.payment_id, found.expired_at = "EXPIRED", event.payment_id, now
            await found.save(update_fields=["state", "payment_id", "expired_at"])
    return Expired(**dict(event), expired_at=now)


@notify_broker.subscriber(queue("notify", "queue.expired"), EXCHANGE)
@notify_broker.publisher(routing_key="notification.sent", exchange=EXCHANGE, persist=True)
async def tell(event: Expired) -> Sent:
    """Tell the user."""
    now = datetime.now(UTC)
    with suppress(IntegrityError):  # the user was told
        await Notice.create(
            saga_id=event.payment_id,
            user_id=event.user_id,
            kind="completed",
            text=f"Your seat is confirmed: payment {event.payment_id}, {event.amount} points.",
            state="SENT",
            settled_at=now,
        )
    return Sent(payment_id=event.payment_id, user_id=event.user_id, kind="completed", sent_at=now)
