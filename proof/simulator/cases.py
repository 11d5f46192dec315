"""What a seed stands for: runs of a few hundred sagas each, every one with other settings."""

from __future__ import annotations

from collections.abc import Iterator

from common import saga
from proof.simulator.chances import chance
from proof.simulator.simulation import Case
from proof.simulator.workload import orders, poison

#: Sagas of one run: enough to meet one another, few enough to be told as one story.
_OF_A_RUN = 250
_PER_POISON = 40


def case(seed: int | str, sagas: int, intensity: float = 1.0, *, lossy: bool = False) -> Case:
    """One run: its workload, and how the services are set; `lossy`: queues lose messages, too."""
    draw = chance(seed, "settings")
    return Case(
        seed=seed,
        orders=tuple(orders(sagas, chance(seed, "orders"))),
        poison=tuple(poison(max(1, sagas // _PER_POISON), chance(seed, "poison"))),
        replicas=tuple(service for service in saga.SERVICES if draw.random() < 0.2),
        batch_size=draw.choice((1, 7, 50, 200, 200, 200)),
        outbox_limit=draw.choice((100, 20_000)),
        intensity=intensity,
        lossy=lossy,
    )


def cases(seed: int, sagas: int) -> Iterator[Case]:
    """The runs of a seed, so many sagas in all; every second one is lossy."""
    for number, first in enumerate(range(0, sagas, _OF_A_RUN)):
        which = f"{seed}.{number}" if number else seed
        yield case(which, min(_OF_A_RUN, sagas - first), lossy=number % 2 == 1)
