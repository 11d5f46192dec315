"""Who may say what, on RabbitMQ 4 in a container: the broker lets users do what the saga table says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from containers.system import System
from tests.support.rights import House, house
from tests.support.rights_scenarios import EMPTY

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def stage(whole_system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Users and objects, and no services."""
    with house(whole_system.amqp_url, whole_system.management_url, tmp_path_factory.mktemp("rights")) as opened:
        yield opened


@pytest.mark.parametrize("name", EMPTY)
async def test_the_broker_allows(stage: House, name: str) -> None:
    """What the broker allows is what the saga table says, no more and no less."""
    await EMPTY[name](stage)
