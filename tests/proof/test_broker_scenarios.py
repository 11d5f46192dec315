"""The scripted scenarios on the simulated broker alone; tests/native and tests/e2e play them beside a real one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.support.broker_grounds import seen_on_the_simulated
from tests.support.broker_scenarios import SCENARIOS

VERSIONS = ("3.10.8", "4.0.5")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_the_same_each_time(name: str, version: str) -> None:
    """It comes to its end, and nothing in it hangs on chance: a seed must replay."""
    first = seen_on_the_simulated(SCENARIOS[name], version)
    assert first
    assert first == seen_on_the_simulated(SCENARIOS[name], version)


@pytest.mark.parametrize("name", SCENARIOS)
def test_late_confirms_change_nothing_else(name: str) -> None:
    """With dice, confirms come late and in any order; each publisher still hears the same."""
    calm = seen_on_the_simulated(SCENARIOS[name], "4.0.5")
    assert seen_on_the_simulated(SCENARIOS[name], "4.0.5", chance=random.Random(7)) == calm


def deliveries(name: str, version: str) -> list[dict[str, Any]]:
    """All that is delivered in a scenario."""
    return [entry[2] for entry in seen_on_the_simulated(SCENARIOS[name], version) if entry[0] == "delivered"]


def test_the_delivery_limit_kills_after_its_last_return() -> None:
    """A limit of 2 allows three deliveries, the first without a count; the third return is the death."""
    told = deliveries("a_message_that_comes_back_too_often_dies", "4.0.5")
    counts = [delivery["headers"].get("x-delivery-count") for delivery in told if delivery["body"] == "deadly"]
    assert counts == [None, 1, 2, None]
    (death,) = told[-1]["headers"]["x-death"]
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", "work", 1)


def test_a_death_record_of_a_stranger_counts_only_in_rabbitmq_3() -> None:
    """RabbitMQ 4 begins at one, whatever a client wrote in its header."""
    counts = [
        deliveries("deaths_that_a_client_tells_of", version)[-1]["headers"]["x-death"][0]["count"]
        for version in VERSIONS
    ]
    assert counts == [6, 1]


def test_a_retry_comes_back_under_the_return_key() -> None:
    """The original key is gone by then: it has to travel in a header of our own."""
    told = deliveries("the_topology_of_the_saga_is_walked_around", "3.10.8")
    (returned,) = [delivery for delivery in told if delivery["body"] == "by 200ms"]
    assert returned["key"] == "point.return"
    assert returned["headers"]["x-type"] == "reservation.confirmed"
    assert returned["headers"]["x-death"][0]["original-expiration"] == "180"
