"""Confirms as RabbitMQ gives them: as many as it can with one frame, the others one by one, in any order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from pamqp import commands as spec

from proof.broker.queues import Clock

#: How often a confirm is late, when chance has a say.
_LATE = 0.15


class Confirms:
    """The confirms that one channel still owes its publisher."""

    def __init__(
        self,
        clock: Clock,
        chance: random.Random | None,
        say: Callable[[spec.Basic.Ack | spec.Basic.Nack, str], None],
    ) -> None:
        self._clock = clock
        self._chance = chance
        self._say = say
        self._owed: dict[int, tuple[str, bool]] = {}
        self._awake = False

    def owe(self, number: int, key: str, *, taken: bool) -> None:
        """The broker has made up its mind about a publish, and will tell in a later turn."""
        self._owed[number] = (key, taken)
        if not self._awake:
            self._awake = True
            self._clock.call_soon(self._tell)

    def _tell(self) -> None:
        self._awake = False
        late: dict[int, tuple[str, bool]] = {}
        if self._chance is not None:
            draw = self._chance.random
            late = {number: owed for number, owed in self._owed.items() if draw() < _LATE}
        now = {number: owed for number, owed in self._owed.items() if number not in late}
        taken = [number for number, owed in now.items() if owed[1]]
        refused = [number for number, owed in now.items() if not owed[1]]
        # What is all of one kind from the beginning is told at once; RabbitMQ begins with the refusals.
        for number, multiple in _together(refused, [*late, *taken]):
            self._say(spec.Basic.Nack(number, multiple), now[number][0])
        for number, multiple in _together(taken, [*late, *refused]):
            self._say(spec.Basic.Ack(number, multiple), now[number][0])
        self._owed = late
        if late:
            self._awake = True
            self._clock.call_soon(self._tell)


def _together(numbers: list[int], others: list[int]) -> Iterator[tuple[int, bool]]:
    """Each number to tell, and whether it stands for all before it."""
    first = min(others, default=None)
    before = [number for number in numbers if first is None or number < first]
    if before:
        yield max(before), True
    yield from ((number, False) for number in sorted(set(numbers) - set(before)))
