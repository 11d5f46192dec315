"""One saga system in containers for all tests of this folder, healed and audited after each of them."""

from __future__ import annotations

import os

# Its image cannot be had on a machine without a registry; `tidy` cleans up instead. Read when it is imported.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.books import audit
from tests.e2e.sales import Sales
from tests.e2e.system import System, tidy
from tools import images
from tools.docker_engine import only_one
from tools.images import Images


@pytest.fixture(scope="session")
def stand() -> Iterator[Images]:
    """The images, and the right to be the only run of this checkout; nothing of an earlier run is left."""
    with only_one("e2e"):
        found = images.ensure()
        tidy()
        yield found
        tidy()


@pytest.fixture(scope="session")
def whole_system(stand: Images) -> Iterator[System]:
    """Broker, database and five services."""
    with System(stand).running() as running:
        yield running


@pytest.fixture
def mark() -> str:
    """What the ids of a test begin with, so that no other test is in its way."""
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def system(whole_system: System, mark: str) -> AsyncIterator[System]:
    """The system, whole again after the test; and nothing that the test did is done by half."""
    yield whole_system
    await whole_system.heal()
    found = await audit(whole_system, mark)
    assert not found, "\n".join(found)


@pytest.fixture
def sales(system: System, mark: str) -> Sales:
    """The payments of the test."""
    return Sales(system, mark)
