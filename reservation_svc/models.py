"""Tables of the reservation service."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class Seat(Model):
    """A seat, and the one reservation that has it. Whoever takes the seat from a reservation changes both."""

    seat = fields.CharField(max_length=64, primary_key=True)
    reservation_id = fields.CharField(max_length=64, null=True)

    #: What `reservation_id` must still be when it is changed: else another replica was first.
    found_with: str | None = None

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "seat"
        table_description = "seats and the one reservation that has each"


class Reservation(Model):
    """A user's claim on a seat; `payment_id` is the payment that confirmed it."""

    reservation_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    seat = fields.CharField(max_length=64)
    price = fields.BigIntField()
    held_until = fields.DatetimeField()
    state = fields.CharField(max_length=9)
    payment_id = fields.CharField(max_length=64, null=True)

    #: What `state` must still be when it is changed: else another replica was first.
    found_as = ""

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "reservation"
        table_description = "claims on seats"
