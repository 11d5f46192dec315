"""Tables of the payment service."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model

from payment_svc.domain import State


class Payment(Model):
    """One payment, kept for ever."""

    payment_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    reservation_id = fields.CharField(max_length=64)
    token = fields.CharField(max_length=64)
    amount = fields.BigIntField()
    state = fields.CharField(max_length=9)
    expires_at = fields.DatetimeField()
    paid_at = fields.DatetimeField()
    settled_at = fields.DatetimeField(null=True)

    @property
    def provisional(self) -> str:
        """What its state must still be when it is settled, so that nobody settles it twice."""
        return State.PAID

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "payment"
        table_description = "payments, kept for ever"
        # Finds those that are neither completed nor cancelled, the oldest first, without reading the others.
        indexes = (("settled_at", "paid_at"),)
