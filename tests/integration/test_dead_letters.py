"""The dead-letter handler of each service: its own rows decide, and what is not its own is left alone."""

from __future__ import annotations

import pytest

from common import saga
from common.barrier import PROTOCOL_BROKEN
from common.outbox import OutboxRow
from common.recovery import Parked
from tests.support.bench import Opens, dead, forward


@pytest.mark.parametrize("name", saga.SERVICES)
async def test_the_dead_letter_of_another_services_step_is_parked_and_touches_nothing(
    opened: Opens, name: str
) -> None:
    """To end a saga for a step that this service does not do would be a lie with this service's name under it."""
    other = "payment" if name != "payment" else "point"
    async with opened(name) as service:
        before = await service.holds()
        (outcome,) = await service.bury(dead(forward(other)))
        assert isinstance(outcome, Parked)
        assert outcome.reason == PROTOCOL_BROKEN
        assert forward(other).type in outcome.detail
        assert await service.holds() == before
        assert await OutboxRow.all().count() == 0
