"""Start the payment service: `python -m payment_svc`."""

from datetime import timedelta
from functools import partial

from pydantic import Field

from common import retention, runner
from common.messages import MAX_AMOUNT
from common.settings import Settings, load
from payment_svc import dead_letter, domain, step, unsettled
from payment_svc.settlement import Settlement


class PaymentSettings(Settings):
    """What the payment service can be told, beside what every service can."""

    payment_limit: int = Field(
        1_000_000, ge=1, le=MAX_AMOUNT, description="Most points that one payment may take."
    )
    payment_deadline_seconds: float = Field(
        600, gt=0, le=31_536_000, description="How long a payment may take when its command does not say."
    )


def service(settings: PaymentSettings) -> runner.Service:
    """The payment service under these settings."""
    deadline = timedelta(seconds=settings.payment_deadline_seconds)
    repeatable = retention.repeatable(timedelta(hours=settings.retention_hours))
    rules = domain.Rules(settings.payment_limit, deadline, repeatable)
    settlement = Settlement()
    return runner.Service(
        "payment",
        handle=partial(step.handle, rules=rules, settlement=settlement),
        dead_letter=dead_letter.handle,
        background=(settlement.run, unsettled.watch),
    )


if __name__ == "__main__":
    settings = load(PaymentSettings)
    runner.main(service(settings), settings)
