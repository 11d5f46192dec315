"""One saga system in containers for all tests of this folder, healed and audited after each of them."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Generator, Iterator

import docker.errors  # type: ignore[import-untyped] # it brings no types
import pytest

from containers.books import audit
from containers.labels import PROJECT, tidy, tidy_project
from containers.system import System
from tests.e2e.sales import Sales
from tests.support.eventually import eventually
from tools import images
from tools.docker_engine import only_one
from tools.images import Images

#: Lines of each service's log that a failed test shows: a fault that comes once in a while must be told at once.
_LINES = 25


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the services said lately beside a failure."""
    report = yield
    system = getattr(item, "funcargs", {}).get("system")
    if report.failed and call.when == "call" and isinstance(system, System):
        for name, node in system.services.items():
            # It may be gone, and whatever is raised here would end the run.
            with contextlib.suppress(docker.errors.DockerException):
                report.sections.append((f"log of {name}", "\n".join(node.logs().splitlines()[-_LINES:])))
    return report


@pytest.fixture(scope="session")
def stand() -> Iterator[Images]:
    """The images, and the right to be the only run of this checkout; nothing of an earlier run is left."""
    with only_one("e2e"):
        found = images.ensure()
        _tidy()
        yield found
        _tidy()


def _tidy() -> None:
    tidy()
    tidy_project(PROJECT)


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

    # A test may end while its last event is being published: to be half-way is no fault, to stay there is one.
    async def whole() -> None:
        found = await audit(whole_system, mark)
        assert not found, "\n".join(found)

    await eventually(whole)


@pytest.fixture
def sales(system: System, mark: str) -> Sales:
    """The payments of the test."""
    return Sales(system, mark)
