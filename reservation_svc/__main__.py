"""Start the reservation service: `python -m reservation_svc`."""

from datetime import timedelta
from functools import partial

from pydantic import Field

from common import runner
from common.settings import Settings, load
from reservation_svc import dead_letter, step


class ReservationSettings(Settings):
    """What the reservation service can be told, beside what every service can."""

    hold_seconds: float = Field(
        600, gt=0, le=31_536_000, description="How long a hold lasts when its command does not say."
    )


def service(settings: ReservationSettings) -> runner.Service:
    """The reservation service under these settings."""
    handle = partial(step.handle, hold_for=timedelta(seconds=settings.hold_seconds))
    return runner.Service("reservation", handle=handle, dead_letter=dead_letter.handle)


if __name__ == "__main__":
    settings = load(ReservationSettings)
    runner.main(service(settings), settings)
