"""What is lost, and what repairs it: messages that vanish, the settlement, and the janitors of the services.

A message may vanish from any queue: a purge, or a broker's disk. Payment may die with what it had to settle in its
memory. In return payment settles what is complete, and each janitor says again what was said of the sagas that are
open there; both are the production code. Here a janitor waits until nothing is on its way, as its patience of many
minutes nearly always does. One that comes earlier repeats messages, and repeated messages are searched anyway: a
message delivered twice may come the second time as late as it likes.

Then it is not enough that no promise is ever broken. From every world that can be reached, a way must lead to one
in which every saga is settled, without any more faults: see `Ways`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable

from common import saga
from common.barrier import final_states
from proof.bench import Bench
from proof.laboratory import Laboratory, read
from proof.scenarios import Scenario
from proof.world import Addressed, Next, World, Worlds

_FIRST = saga.SERVICES.index(saga.FIRST.service)


class Repair:
    """What may get lost next, and what may be repaired."""

    def __init__(self, laboratory: Laboratory, bench: Bench, worlds: Worlds, scenario: Scenario) -> None:
        self._laboratory = laboratory
        self._bench = bench
        self._worlds = worlds
        self._scenario = scenario
        self._final: dict[tuple[int, int], bool] = {}
        self._offers: dict[tuple[int, int], tuple[Addressed, ...]] = {}

    def is_settled(self, world: World) -> bool:
        """Whether nothing is left to be said of any saga; without repair, nobody waits for that."""
        if not self._scenario.repair:
            return True
        return self._worlds.is_quiet(world) and not self._worlds.untold(world) and not self._open(world)

    def faults(self, world: World) -> list[Next]:
        """What may get lost next."""
        if not world.losses:
            return []
        found: list[Next] = []
        for number, letter in dict.fromkeys(self._worlds.letters(world)):
            words = f"{self._bench.letters.value(letter)} gets lost before {saga.SERVICES[number]} takes it"
            found.append((words, self._worlds.taken(world, (number, letter))))
        if self._worlds.untold(world):
            found.append(("payment dies, and forgets what it had to settle", self._worlds.told(world)))
        return [
            (words, after._replace(losses=world.losses - 1)) for words, after in found if isinstance(after, World)
        ]

    async def moves(self, world: World) -> list[Next]:
        """What may be settled or offered again next."""
        if not self._scenario.repair:
            return []
        if self._worlds.untold(world):
            return [await self._settled(world)]
        if not self._worlds.is_quiet(world):
            return []
        found: list[Next] = []
        for number in self._open(world):
            offered = await self._offered(number, self._worlds.contents(world)[number])
            words = f"the janitor of {saga.SERVICES[number]} offers again what is open"
            found.append((words, self._worlds.arrived(world, offered)))
        return found

    async def _settled(self, world: World) -> Next:
        sagas = self._worlds.untold(world)
        content = self._bench.contents.value(self._worlds.contents(world)[_FIRST])
        reaction = await self._laboratory.settle(content, sagas)
        after = self._worlds.changed(self._worlds.told(world), _FIRST, self._bench.contents.of(reaction.content))
        arriving = tuple(self._bench.addressed(reaction.emitted))
        return f"payment settles {', '.join(sorted(sagas))}", self._worlds.arrived(after, arriving)

    async def _offered(self, number: int, content: int) -> tuple[Addressed, ...]:
        if (number, content) not in self._offers:
            service = saga.SERVICES[number]
            letters = await self._laboratory.offer_again(service, self._bench.contents.value(content))
            self._offers[number, content] = tuple(self._bench.addressed(letters))
        return self._offers[number, content]

    def _open(self, world: World) -> list[int]:
        """The services, by number, in which a saga is open."""
        return [
            number
            for number, content in enumerate(self._worlds.contents(world))
            if not self._is_final(number, content)
        ]

    def _is_final(self, number: int, content: int) -> bool:
        if (number, content) not in self._final:
            service = saga.SERVICES[number]
            final = final_states(service)
            steps = read(service, self._bench.contents.value(content))["saga_step"]
            self._final[number, content] = all(row["state"] in final for row in steps)
        return self._final[number, content]


class Ways:
    """Which worlds lead to which, without any more faults."""

    def __init__(self) -> None:
        self._comes_from: defaultdict[World, list[World]] = defaultdict(list)
        self._worlds: list[World] = []

    def note(self, world: World, after: Iterable[World]) -> None:
        """A world, and those that it may lead to."""
        self._worlds.append(world)
        for one in after:
            self._comes_from[one].append(world)

    def without_end(self, is_end: Callable[[World], bool]) -> World | None:
        """The first world, in the order noted, from which no way leads to an end; None: all have one."""
        reached = {world for world in self._worlds if is_end(world)}
        waiting = deque(reached)
        while waiting:
            for before in self._comes_from[waiting.popleft()]:
                if before not in reached:
                    reached.add(before)
                    waiting.append(before)
        return next((world for world in self._worlds if world not in reached), None)
