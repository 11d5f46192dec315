"""The simulated broker beside a RabbitMQ 3 on this machine: both see the same in every scripted scenario."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proof.broker import SECONDS_TO_RETRY
from tests.support.broker_grounds import DEAD_LETTER_RETRY, hold_against, tell_dead_letter_retry
from tests.support.broker_scenarios import SCENARIOS
from tests.support.broker_scenarios.restarts import a_restart_counts_for_what_was_out
from tools.broker import Broker, PrivateBroker, start_private

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def broker(node: PrivateBroker) -> Iterator[Broker]:
    """The broker, in more of a hurry with its dead letters."""
    node.ctl("eval", tell_dead_letter_retry(DEAD_LETTER_RETRY))
    yield node.broker
    node.ctl("eval", tell_dead_letter_retry(SECONDS_TO_RETRY))


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_simulated_broker_does_what_rabbitmq_does(broker: Broker, name: str) -> None:
    """Deliveries, headers, returns, refusals and dead letters are equal; else a simulation proves nothing."""
    hold_against(SCENARIOS[name], broker.amqp_url, broker.management_url)


def test_a_restart_counts_as_a_lost_connection(tmp_path: Path) -> None:
    """What is durable is kept, and a restart burns deliveries; on a broker that nobody else is using."""
    own = start_private(tmp_path)
    try:
        where = own.broker
        hold_against(a_restart_counts_for_what_was_out, where.amqp_url, where.management_url, restart=own.restart)
    finally:
        own.remove()
