"""What a terminal failure turns into here: `reservation.failed`, or `reservation.rejected` for a command."""

from __future__ import annotations

from common import barrier
from common.recovery import DeadLetter, Outcome
from common.unit_of_work import Batch


async def handle(batch: Batch[DeadLetter]) -> list[Outcome]:
    """Decide a batch of dead letters against this service's own rows."""
    return await barrier.bury("reservation", batch)
