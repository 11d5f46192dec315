"""What a broker is asked in the scripted scenarios: each plays on a stage of its own, real or simulated.

A scenario expects nothing but that it can go on: what it sees is on the stage's record, and the records of two
brokers must be equal. So a scenario waits until something is there before it does the next thing.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from tests.support.broker_scenarios import dead_letters, deaths, delivery, expiry, refusals, routing, whole
from tests.support.broker_stage import Stage

Scenario = Callable[[Stage], Awaitable[None]]

#: All of them, by name, in the order in which they are written.
SCENARIOS: dict[str, Scenario] = {
    name: scenario
    for module in (routing, delivery, refusals, deaths, expiry, dead_letters, whole)
    for name, scenario in vars(module).items()
    if inspect.iscoroutinefunction(scenario)
    and scenario.__module__ == module.__name__
    and not name.startswith("_")
}
