"""Tables of the notify service."""

from __future__ import annotations

from tortoise import fields
from tortoise.models import Model


class Notice(Model):
    """What one user is told about one saga. `due_at`: when a sender may take it up."""

    saga_id = fields.CharField(max_length=64, primary_key=True)
    user_id = fields.CharField(max_length=64)
    kind = fields.CharField(max_length=9)
    text = fields.TextField()
    state = fields.CharField(max_length=7)
    attempts = fields.IntField(default=0)
    due_at = fields.DatetimeField()
    settled_at = fields.DatetimeField(null=True)
    traceparent = fields.CharField(max_length=64, null=True)

    #: What `attempts` must still be when it is settled: else its lease ran out, and it is somebody else's now.
    leased_as = 0

    class Meta:
        """Tortoise's place for the table's name and the sender's way to what is due."""

        table = "notice"
        table_description = "what users are told"
        indexes = (("state", "due_at"),)
