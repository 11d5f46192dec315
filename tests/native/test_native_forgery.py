"""Who may say what, on RabbitMQ 3 on this machine: what gets past the broker is parked by the services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rights import House, house
from tests.support.rights_scenarios import PLAYED
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def stage(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Services that log in under their own names."""
    with house(node.broker.amqp_url, node.broker.management_url, tmp_path_factory.mktemp("rights")) as opened:
        opened.start()
        yield opened


@pytest.mark.parametrize("name", PLAYED)
async def test_a_forged_message(stage: House, name: str) -> None:
    """What gets past the broker is parked by the services, and nothing is done about it."""
    await PLAYED[name](stage)
