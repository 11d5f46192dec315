"""The simulated broker beside RabbitMQ 4 in a container: both see the same in every scripted scenario."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from containers.system import System
from proof.broker import SECONDS_TO_RETRY
from tests.support.broker_grounds import DEAD_LETTER_RETRY, hold_against, tell_dead_letter_retry
from tests.support.broker_scenarios import SCENARIOS

pytestmark = pytest.mark.container


@pytest.fixture(scope="module")
def running(whole_system: System) -> Iterator[System]:
    """The system's broker, in more of a hurry with its dead letters; a scenario gets a virtual host of its own."""

    def tell(seconds: float) -> None:
        asyncio.run(whole_system.broker.run("rabbitmqctl", "eval", tell_dead_letter_retry(seconds)))

    tell(DEAD_LETTER_RETRY)
    yield whole_system
    tell(SECONDS_TO_RETRY)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_simulated_broker_does_what_rabbitmq_does(running: System, name: str) -> None:
    """Deliveries, headers, returns, refusals and dead letters are equal; else a simulation proves nothing."""
    hold_against(SCENARIOS[name], running.amqp_url, running.management_url)
