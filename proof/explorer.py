"""Every interleaving of a few sagas, searched exhaustively: `python -m proof.explorer`, or `make explore`.

A world is the content of the five databases and the messages on their way. From every world the search goes on
with everything that may happen next: any message is delivered next, to handlers that are the production code; is
delivered twice (a redelivery after the commit, an event published twice, a client that asks again); dies because
its retries are spent; or the deadline passes. A crash before a commit changes nothing, so it needs no step.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from common import saga
from common.messages import Enter, Hold, Pay, TopUp
from common.recovery import Dead, Parked, Promise, promise
from proof.laboratory import DEADLINE, IN_TIME, TOO_LATE, Content, Laboratory, Letter, open_laboratory, read

T = TypeVar("T")
Tables = dict[str, list[dict[str, Any]]]


class Numbers(Generic[T]):
    """Gives equal values the same small number, so that millions of worlds are compared fast and held cheaply."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []

    def of(self, value: T) -> int:
        """The number of a value."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def value(self, number: int) -> T:
        """The value that has this number."""
        return self._values[number]


#: Numbers of the five contents, in the order of the saga.
Contents = tuple[int, ...]
#: A message for a service: the service's number in the saga, and the letter's.
Addressed = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Where a search begins: what the services own, the commands on their way, and what may go wrong."""

    name: str
    commands: tuple[Pay, ...]
    setup: tuple[Hold | TopUp | Enter, ...]
    duplicates: int
    deaths: bool = True
    deadline: bool = True
    may_park: bool = False


class World(NamedTuple):
    """One state of the search."""

    contents: Contents
    letters: tuple[Addressed, ...]
    duplicates: int
    late: bool

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is on its way any more."""
        return not self.letters


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
        self._contents = Numbers[Content]()
        self._letters = Numbers[Letter]()
        self._reactions: dict[tuple[int, int, int, bool], _Step | str] = {}
        self._checked: dict[tuple[Contents, bool], str | None] = {}

    async def run(self) -> Search:
        """Search every world that can be reached, breadth first: the first violation is a shortest one."""
        start = await self._start()
        came_from: dict[World, tuple[World, str] | None] = {start: None}
        waiting = deque([start])
        while waiting and self.violation is None:
            world = waiting.popleft()
            self.states += 1
            if rule := self._broken(world):
                self._violated(rule, _timeline(came_from, world))
            async for what, after in self._next(world):
                if isinstance(after, str):
                    self._violated(after, (*_timeline(came_from, world), what))
                elif after not in came_from:
                    came_from[after] = (world, what)
                    waiting.append(after)
        return self

    async def _start(self) -> World:
        contents = [await self._laboratory.empty(service) for service in saga.SERVICES]
        for command in self.scenario.setup:
            key = next(key for key, kind in _COMMANDS.items() if isinstance(command, kind))
            (number,) = _listeners(key)
            letter = Letter(key, command.encode())
            service = saga.SERVICES[number]
            contents[number] = (await self._laboratory.react(service, contents[number], letter, IN_TIME)).content
        pays = [(0, self._letters.of(Letter(saga.FIRST.on, pay.encode()))) for pay in self.scenario.commands]
        numbers = tuple(self._contents.of(content) for content in contents)
        return World(numbers, tuple(sorted(pays)), self.scenario.duplicates, late=False)

    async def _next(self, world: World) -> AsyncIterator[tuple[str, World | str]]:
        """Everything that may happen next: in words, and the world after it or the rule that it breaks."""
        for addressed in dict.fromkeys(world.letters):
            number, letter_number = addressed
            letter = self._letters.value(letter_number)
            service = saga.SERVICES[number]
            place = world.letters.index(addressed)
            rest = world.letters[:place] + world.letters[place + 1 :]
            if world.duplicates:
                twice = tuple(sorted((*world.letters, addressed)))
                yield (
                    f"{service} is delivered {letter} twice",
                    world._replace(letters=twice, duplicates=world.duplicates - 1),
                )
            if self.scenario.deaths and not letter.reason and promise(letter.type) is Promise.UNTIL_SPENT:
                died = (number, self._letters.of(Letter(letter.type, letter.body, saga.RETRIES_SPENT)))
                yield (
                    f"{service} fails on {letter} until its retries are spent",
                    world._replace(letters=tuple(sorted((*rest, died)))),
                )
            step = await self._step(number, world.contents[number], letter_number, late=world.late)
            if isinstance(step, str):
                yield f"{service} handles {letter}", step
                continue
            contents = (*world.contents[:number], step.content, *world.contents[number + 1 :])
            letters = tuple(sorted((*rest, *step.arriving)))
            yield step.told, world._replace(contents=contents, letters=letters)
        if self.scenario.deadline and not world.late and world.letters:
            yield "the deadline passes", world._replace(late=True)

    async def _step(self, number: int, content: int, letter_number: int, *, late: bool) -> _Step | str:
        """What a service does about a letter, or the rule that it breaks by it."""
        question = (number, content, letter_number, late)
        if question not in self._reactions:
            self._reactions[question] = await self._experiment(number, content, letter_number, late=late)
        return self._reactions[question]

    async def _experiment(self, number: int, content: int, letter_number: int, *, late: bool) -> _Step | str:
        service = saga.SERVICES[number]
        letter = self._letters.value(letter_number)
        now = TOO_LATE if late else IN_TIME
        try:
            reaction = await self._laboratory.react(service, self._contents.value(content), letter, now)
        except Exception as error:  # noqa: BLE001 - production code that stumbles is what we look for
            return f"{service} stumbles: {type(error).__name__}: {error}"
        told = f"{service} handles {letter}"
        arriving = [
            (listener, self._letters.of(emitted))
            for emitted in reaction.emitted
            for listener in _listeners(emitted.type)
        ]
        match reaction.outcome:
            case Dead(reason=reason):
                arriving.append((number, self._letters.of(Letter(letter.type, letter.body, reason))))
                told += f" and refuses: {reason}"
            case Parked(reason=reason, detail=detail) if not self.scenario.may_park:
                return f"{service} parked {letter}: {reason} ({detail})"
        if reaction.emitted:
            told += ", emits " + ", ".join(emitted.type for emitted in reaction.emitted)
        return _Step(self._contents.of(reaction.content), tuple(arriving), told)

    def _broken(self, world: World) -> str | None:
        """The first promise that this world breaks; None if it keeps them all."""
        glance = (world.contents, world.is_quiet)
        if glance not in self._checked:
            tables: Tables = {}
            for service, number in zip(saga.SERVICES, world.contents, strict=True):
                tables |= read(service, self._contents.value(number))
            rule = _always_broken(tables)
            if rule is None and world.is_quiet:
                endings = tuple(_ending(tables, command) for command in self.scenario.commands)
                self.endings.add(endings)
                rule = next((ending for ending in endings if ending not in {"done", "undone"}), None)
            self._checked[glance] = rule
        return self._checked[glance]

    def _violated(self, rule: str, timeline: tuple[str, ...]) -> None:
        if self.violation is None:
            self.violation = Violation(self.scenario.name, rule, timeline)


@dataclass(frozen=True, slots=True)
class _Step:
    """A reaction in numbers: the content after it, the letters that arrive, and what it is in words."""

    content: int
    arriving: tuple[Addressed, ...]
    told: str


def _listeners(key: str) -> tuple[int, ...]:
    """The services, by number, whose queues are bound for this key."""
    pattern = saga.binding_of(key)
    return tuple(
        number
        for number, service in enumerate(saga.SERVICES)
        if pattern in saga.command_keys(service) or pattern in saga.event_keys(service)
    )


def _timeline(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    steps = []
    step = came_from[world]
    while step is not None:
        world, what = step
        steps.append(what)
        step = came_from[world]
    return tuple(reversed(steps))


def _always_broken(tables: Tables) -> str | None:
    """The first rule that must hold at any moment, and does not."""
    for wallet in tables["wallet"]:
        entries = [entry for entry in tables["ledger_entry"] if entry["user_id"] == wallet["user_id"]]
        if wallet["balance"] < 0:
            return f"the wallet of {wallet['user_id']} is below zero"
        if wallet["balance"] != sum(entry["amount"] for entry in entries):
            return f"points of {wallet['user_id']} were made or lost"
    sold = [row["seat"] for row in tables["reservation"] if row["state"] == "CONFIRMED"]
    if len(sold) != len(set(sold)):
        return "a seat is sold twice"
    return None


def _ending(tables: Tables, command: Pay) -> str:
    """How a saga ended: `done`, `undone`, or what the tables say instead."""
    payment = [row["state"] for row in tables["payment"] if row["payment_id"] == command.payment_id]
    confirmed = [row["seat"] for row in tables["reservation"] if row["payment_id"] == command.payment_id]
    taken = [row["amount"] for row in tables["ledger_entry"] if row["saga_id"] == command.payment_id]
    tokens = [row["token"] for row in tables["token"] if row["payment_id"] == command.payment_id]
    notices = [row["kind"] for row in tables["notice"] if row["saga_id"] == command.payment_id]
    one_seat_and_token = len(confirmed) == len(tokens) == 1
    paid = [-row["amount"] for row in tables["payment"] if row["payment_id"] == command.payment_id]
    if payment == ["COMPLETED"] and one_seat_and_token and taken == paid and notices == ["completed"]:
        return "done"
    untouched = payment in ([], ["CANCELLED"]) and not confirmed and not tokens and sum(taken) == 0
    if untouched and notices == ["failed"]:
        return "undone"
    return (
        f"{command.payment_id} is neither done nor undone everywhere: payment {payment or 'none'}, "
        f"seats {confirmed}, points {taken}, tokens {tokens}, notices {notices or 'none'}"
    )


_COMMANDS: dict[str, type] = {"reservation.hold": Hold, "point.top_up": TopUp, "queue.enter": Enter}


def _pay(name: str = "p", **changed: object) -> Pay:
    fields: dict[str, object] = {
        "payment_id": name,
        "user_id": "ann",
        "reservation_id": "r",
        "token": "t",
        "amount": 300,
        "expires_at": DEADLINE,
    }
    return Pay.model_validate(fields | changed)


def _owned(*, points: int = 1000, reservations: int = 1, tokens: int = 1) -> tuple[Hold | TopUp | Enter, ...]:
    """Seats held, points and tokens for ann: `r`, `r2` ... and `t`, `t2` ..."""
    names = ["", *(str(number) for number in range(2, 10))]
    until = TOO_LATE + timedelta(hours=1)
    return (
        *(
            Hold(reservation_id=f"r{n}", user_id="ann", seat=f"s{n}", price=300, held_until=until)
            for n in names[:reservations]
        ),
        TopUp(top_up_id="top", user_id="ann", amount=points),
        *(Enter(token=f"t{n}", user_id="ann") for n in names[:tokens]),
    )


def scenarios(*, duplicates: int, two_sagas: bool) -> tuple[Scenario, ...]:
    """What `make explore` searches: one saga refused nowhere or at each step, then two that want the same."""
    one = (
        Scenario("nothing in the way", (_pay(),), _owned(), duplicates),
        Scenario("refused by payment", (_pay(amount=2000),), _owned(), duplicates),
        Scenario("refused by reservation", (_pay(amount=299),), _owned(), duplicates),
        Scenario("refused by point", (_pay(),), _owned(points=299), duplicates),
        Scenario("refused by queue", (_pay(token="nobody"),), _owned(), duplicates),
        Scenario(
            "the same id with other content",
            (_pay(), _pay(amount=299)),
            _owned(),
            max(0, duplicates - 1),
            may_park=True,
        ),
    )
    if not two_sagas:
        return one
    return (
        *one,
        Scenario(
            "two sagas, one wallet",
            (_pay("p"), _pay("q", reservation_id="r2", token="t2")),
            _owned(points=500, reservations=2, tokens=2),
            0,
            deadline=False,
        ),
        Scenario("two sagas, one seat", (_pay("p"), _pay("q", token="t2")), _owned(tokens=2), 0, deadline=False),
        Scenario(
            "two sagas, one token",
            (_pay("p"), _pay("q", reservation_id="r2")),
            _owned(reservations=2),
            0,
            deadline=False,
        ),
    )


async def explore_all(wanted: Sequence[Scenario], tell: Callable[[str], None]) -> list[Search]:
    """Search every scenario, telling what was found in each."""
    searches = []
    async with open_laboratory() as laboratory:
        for scenario in wanted:
            began = time.monotonic()
            search = await Search(laboratory, scenario).run()
            searches.append(search)
            tell(
                f"{scenario.name:32} {search.states:>9,} states  {len(search.endings)} endings  "
                f"{time.monotonic() - began:6.1f} s  {'BROKEN' if search.violation else 'holds'}"
            )
            if search.violation:
                tell(str(search.violation))
        total = sum(search.states for search in searches)
        tell(f"{total:,} states, decided by {laboratory.experiments:,} experiments on the production code")
    return searches


def main() -> int:
    """Search with the number of duplicates that the command line names, 2 by default; 1 if a promise breaks."""
    duplicates = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    searches = asyncio.run(explore_all(scenarios(duplicates=duplicates, two_sagas=True), print))
    return 1 if any(search.violation for search in searches) else 0


if __name__ == "__main__":
    sys.exit(main())
