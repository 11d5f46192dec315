"""How many payments are provisional, and since when: what an operator must know of a saga that got stuck."""

from __future__ import annotations

from common.health import Health
from common.history import Observers
from common.life import Life, patiently
from common.telemetry import log
from common.unit_of_work import UnitOfWork
from payment_svc.models import Payment

_SECONDS_BETWEEN_COUNTS = 5


async def watch(life: Life, _: UnitOfWork, __: Observers) -> None:
    """Count now and then, until the service is to stop."""
    while not life.is_stopping():
        try:
            await patiently(life, lambda: count(life.health))
        except Exception:  # noqa: BLE001 - whoever looks on must never stop what he looks at
            if not life.is_stopping():
                log.exception("could not count the open payments")
        await life.pause(_SECONDS_BETWEEN_COUNTS)


async def count(health: Health) -> None:
    """Note how many payments are neither completed nor cancelled, and since when the oldest is."""
    unsettled = Payment.filter(settled_at__isnull=True)
    oldest = await unsettled.order_by("paid_at").first()
    health.open_sagas = await unsettled.count()
    health.oldest_open_saga = oldest.paid_at if oldest else None
