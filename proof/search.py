"""The search of every interleaving: from a world, everything that may happen next, until nothing is new.

A world is the content of the five databases, the messages on their way, and the transactions that are open. What
may happen next: a message is delivered, to handlers that are the production code; it is delivered twice (a
redelivery after the commit, an event published twice, a client that asks again); it dies because its retries are
spent; the deadline passes. A crash before a commit changes nothing, so it needs no step. What two replicas of one
service add is in `proof.replicas`; what is lost and repaired, in `proof.repair`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from common import saga
from common.messages import Enter, Hold, TopUp
from common.recovery import Dead, Promise, promise
from proof import rules
from proof.bench import Bench, listeners
from proof.laboratory import IN_TIME, Content, Laboratory, Letter, read
from proof.repair import Repair, Ways
from proof.replicas import Replicas
from proof.scenarios import Scenario
from proof.world import Next, World, Worlds

_COMMANDS: dict[type, str] = {Hold: "reservation.hold", TopUp: "point.top_up", Enter: "queue.enter"}


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and the shortest way to it, in words."""

    scenario: str
    rule: str
    timeline: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.timeline, 1))
        return f"{self.scenario}: {self.rule}\n{steps}"


class Search:
    """One scenario's search: what may happen next, and what has been seen."""

    def __init__(self, laboratory: Laboratory, scenario: Scenario) -> None:
        self.scenario = scenario
        self.states = 0
        self.endings: set[tuple[str, ...]] = set()
        self.violation: Violation | None = None
        self._laboratory = laboratory
        self._worlds = Worlds()
        self._bench = Bench(laboratory, may_park=scenario.may_park)
        self._replicas = Replicas(self._bench, self._worlds, scenario)
        self._repair = Repair(laboratory, self._bench, self._worlds, scenario)
        self._troubled = {saga.SERVICES.index(service) for service in scenario.troubled}
        self._checked: dict[tuple[int, bool], str | None] = {}
        self._dying: dict[int, int | None] = {}
        self._told: dict[tuple[int, str, int], str] = {}

    async def run(self) -> Search:
        """Search every world that can be reached, breadth first: the first violation is a shortest one."""
        start = await self._start()
        came_from: dict[World, tuple[World, str] | None] = {start: None}
        waiting = deque([start])
        ways = Ways()
        while waiting and self.violation is None:
            world = waiting.popleft()
            self.states += 1
            if rule := self._broken(world):
                self._violated(rule, _timeline(came_from, world))
            faults = (*self._troubles(world), *self._repair.faults(world))
            moves = (*await self._replicas.next(world), *await self._repair.moves(world))
            for what, after in (*faults, *moves):
                if isinstance(after, str):
                    self._violated(after, (*_timeline(came_from, world), what))
                elif after not in came_from:
                    came_from[after] = (world, what)
                    waiting.append(after)
            if self.scenario.repair:
                ways.note(world, [after for _, after in moves if isinstance(after, World)])
        if self.scenario.repair and self.violation is None:
            stuck = ways.without_end(self._repair.is_settled)
            if stuck is not None:
                self._violated("from here it is never settled", _timeline(came_from, stuck))
        return self

    async def _start(self) -> World:
        contents = [await self._laboratory.empty(service) for service in saga.SERVICES]
        for command in self.scenario.setup:
            number, letter = _addressed(command)
            service = saga.SERVICES[number]
            contents[number] = (await self._laboratory.react(service, contents[number], letter, IN_TIME)).content
        pays = [(0, Letter(saga.FIRST.on, pay.encode())) for pay in self.scenario.commands]
        early = await self._ahead(contents, pays[:1])
        letters = [*early, *pays[1:], *map(_addressed, self.scenario.beside)]
        return self._worlds.first(
            tuple(self._bench.contents.of(content) for content in contents),
            tuple((number, self._bench.letters.of(letter)) for number, letter in letters),
            self.scenario.duplicates,
            self.scenario.losses,
        )

    async def _ahead(self, contents: list[Content], letters: list[tuple[int, Letter]]) -> list[tuple[int, Letter]]:
        """Handle the first messages, first come first served; what is then on its way."""
        for _ in range(self.scenario.ahead):
            number, letter = letters.pop(0)
            reaction = await self._laboratory.react(saga.SERVICES[number], contents[number], letter, IN_TIME)
            contents[number] = reaction.content
            if isinstance(reaction.outcome, Dead):
                letters.append((number, Letter(letter.type, letter.body, reaction.outcome.reason)))
            letters += [(taker, emitted) for emitted in reaction.emitted for taker in listeners(emitted.type)]
        return letters

    def _troubles(self, world: World) -> list[Next]:
        """What may go wrong next: a repetition, a death, the deadline."""
        found: list[Next] = []
        for number, letter in dict.fromkeys(self._worlds.letters(world)):
            if number not in self._troubled:
                continue
            if world.duplicates:
                twice = self._worlds.arrived(world, ((number, letter),))
                words = self._words(number, "is delivered {} twice", letter)
                found.append((words, twice._replace(duplicates=world.duplicates - 1)))
            dead = self._dead(letter) if self.scenario.deaths else None
            if dead is not None:
                rest = self._worlds.taken(world, (number, letter))
                words = self._words(number, "fails on {} until its retries are spent", letter)
                found.append((words, self._worlds.arrived(rest, ((number, dead),))))
        if self.scenario.deadline and not world.late and not self._worlds.is_quiet(world):
            found.append(("the deadline passes", world._replace(late=True)))
        return found

    def _words(self, number: int, what: str, letter: int) -> str:
        key = (number, what, letter)
        if key not in self._told:
            self._told[key] = f"{saga.SERVICES[number]} {what.format(self._bench.letters.value(letter))}"
        return self._told[key]

    def _dead(self, number: int) -> int | None:
        """The same letter when its retries are spent; None for one that is dead, or never given up."""
        if number not in self._dying:
            letter = self._bench.letters.value(number)
            dies = not letter.reason and promise(letter.type) is Promise.UNTIL_SPENT
            dead = Letter(letter.type, letter.body, saga.RETRIES_SPENT)
            self._dying[number] = self._bench.letters.of(dead) if dies else None
        return self._dying[number]

    def _broken(self, world: World) -> str | None:
        """The first promise that this world breaks; None if it keeps them all."""
        quiet = self._worlds.is_quiet(world) and self._repair.is_settled(world)
        glance = (world.contents, quiet)
        if glance not in self._checked:
            tables: rules.Tables = {}
            for service, number in zip(saga.SERVICES, self._worlds.contents(world), strict=True):
                tables |= read(service, self._bench.contents.value(number))
            rule = rules.broken_now(tables)
            if rule is None and quiet:
                lossy = self.scenario.losses > 0
                endings = tuple(rules.ending(tables, command, lossy=lossy) for command in self.scenario.commands)
                self.endings.add(endings)
                rule = next((ending for ending in endings if ending not in {"done", "undone"}), None)
            self._checked[glance] = rule
        return self._checked[glance]

    def _violated(self, rule: str, timeline: tuple[str, ...]) -> None:
        if self.violation is None:
            self.violation = Violation(self.scenario.name, rule, timeline)


def _addressed(command: Hold | TopUp | Enter) -> tuple[int, Letter]:
    key = _COMMANDS[type(command)]
    (number,) = listeners(key)
    return number, Letter(key, command.encode())


def _timeline(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    steps = []
    step = came_from[world]
    while step is not None:
        world, what = step
        steps.append(what)
        step = came_from[world]
    return tuple(reversed(steps))
