"""Tables of the queue service."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model

from queue_svc.domain import State


class Token(Model):
    """A user's way through the waiting room; `payment_id` is the payment that used it up."""

    token = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    state = fields.CharField(max_length=7)
    payment_id = fields.CharField(max_length=64, null=True)
    entered_at = fields.DatetimeField()
    expired_at = fields.DatetimeField(null=True)

    @property
    def usable(self) -> str:
        """What its state must still be when it is used, so that nobody uses it twice."""
        return State.ACTIVE

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "token"
        table_description = "ways through the waiting room"
