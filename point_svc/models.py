"""Tables of the point service."""

from __future__ import annotations

from enum import StrEnum

from tortoise import fields
from tortoise.models import Model


class Kind(StrEnum):
    """Why a balance changed."""

    TOP_UP = "top_up"
    DEDUCTION = "deduction"
    RESTORATION = "restoration"


class Wallet(Model):
    """What a user may spend: the sum of the user's ledger entries."""

    user_id = fields.CharField(max_length=64, primary_key=True)
    balance = fields.BigIntField()

    #: What `balance` must still be when it is changed: else another replica was first.
    found_with = 0

    class Meta:
        """Tortoise's place for the table's name and comment."""

        table = "wallet"
        table_description = "what users may spend"


class LedgerEntry(Model):
    """One change of a balance, never changed itself. `saga_id` is the payment, or the top-up's own id."""

    id = fields.BigIntField(primary_key=True)
    saga_id = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=16)
    user_id = fields.CharField(max_length=64)
    amount = fields.BigIntField()
    created_at = fields.DatetimeField()

    class Meta:
        """Tortoise's place for the table's name and the last guard against doing anything twice."""

        table = "ledger_entry"
        table_description = "every change of a balance"
        unique_together = (("saga_id", "kind"),)
