"""One private RabbitMQ and one theatre for the session; what would disturb others makes its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.saga import Theatre, Visit, theatre, visit
from tools.broker import PrivateBroker, start_private


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A broker that nobody else knows."""
    broker = start_private(tmp_path_factory.mktemp("broker"))
    try:
        yield broker
    finally:
        broker.remove()


@pytest.fixture(scope="session")
def house(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """Five services that most tests share, each with ids of its own. They fail as, and only as, a test says."""
    with theatre(node, tmp_path_factory.mktemp("house")) as opened:
        opened.start(sabotaged=True)
        yield opened


@pytest_asyncio.fixture
async def here(house: Theatre) -> AsyncIterator[Visit]:
    """A test's stay in the module's theatre; whatever it did, the books are right afterwards."""
    async with visit(house) as staying:
        yield staying
        await staying.settled()


@pytest.fixture
def empty(node: PrivateBroker, tmp_path: Path) -> Iterator[Theatre]:
    """A virtual host in which no service runs."""
    with theatre(node, tmp_path) as opened:
        yield opened
