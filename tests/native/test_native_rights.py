"""Who may say what, on RabbitMQ 3 on this machine: the broker lets users do what the saga table says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rights import House, house
from tests.support.rights_scenarios import EMPTY
from tools.broker import PrivateBroker

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def stage(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Users and objects, and no services."""
    with house(node.broker.amqp_url, node.broker.management_url, tmp_path_factory.mktemp("rights")) as opened:
        yield opened


@pytest.mark.parametrize("name", EMPTY)
async def test_the_broker_allows(stage: House, name: str) -> None:
    """What the broker allows is what the saga table says, no more and no less."""
    await EMPTY[name](stage)
