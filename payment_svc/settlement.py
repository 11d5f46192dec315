"""Settlement: tells the others, in batches, which payments are complete, so that nothing is asked of them again.

What is complete waits in memory for the next round. If it is lost there, with the process, the rows stay open
everywhere; the janitors offer them again, the saga walks once more to its completion, and that is told here again.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from common import db, saga
from common.barrier import Barrier
from common.history import Observers
from common.life import Life
from common.messages import MAX_SETTLED, Message, Settled
from common.outbox import Outbox
from common.telemetry import log
from common.unit_of_work import UnitOfWork

_SECONDS_BETWEEN_ROUNDS = 1


class Settlement:
    """Completed payments that nobody was told of yet, the oldest first."""

    def __init__(self) -> None:
        self._complete: dict[str, None] = {}

    @property
    def waiting(self) -> Sequence[str]:
        """The payments that wait for the next round."""
        return list(self._complete)

    def put(self, payment_ids: Sequence[str]) -> None:
        """Note payments whose completion is committed."""
        self._complete.update(dict.fromkeys(payment_ids))

    def forget(self, payment_ids: Sequence[str]) -> None:
        """These are settled."""
        for payment_id in payment_ids:
            self._complete.pop(payment_id, None)

    async def run(self, life: Life, unit_of_work: UnitOfWork, _: Observers) -> None:
        """Settle what is complete, once a second, until the service is to stop."""
        while not life.is_stopping():
            await life.pause(_SECONDS_BETWEEN_ROUNDS)
            while self._complete:
                if not await self._round(unit_of_work):
                    break

    async def _round(self, unit_of_work: UnitOfWork) -> bool:
        ids = list(self._complete)[:MAX_SETTLED]
        try:
            await unit_of_work.run(lambda now, outbox: settle(ids, now, outbox))
        except db.LostRaceError:
            # A twin settles some of them at this moment; the next round finds them settled.
            return False
        except Exception:  # noqa: BLE001 - settling late costs nothing, and must stop nobody
            log.exception("could not settle completed payments; trying again")
            return False
        self.forget(ids)
        return True


async def settle(payment_ids: Sequence[str], now: datetime, outbox: Outbox) -> None:
    """Settle completed payments in this database, and tell the others of them in the same transaction."""
    ids = sorted(payment_ids)
    message = Message(saga.SETTLED, Settled(payment_ids=ids))
    barrier = await Barrier.load(saga.FIRST.service, [message], now=now, outbox=outbox)
    barrier.settlement(message)
    barrier.save(outbox.writes)
    if settled := [payment_id for payment_id in ids if barrier.has_settled(payment_id)]:
        told = Settled(payment_ids=settled)
        outbox.stage(saga.SETTLED, told.key, told.encode(), None)
