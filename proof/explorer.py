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
from dataclasses import dataclass, field
from datetime import timedelta

from common import saga
from common.messages import Enter, Hold, Pay, TopUp
from common.recovery import Dead, Parked, Promise, promise
from proof.laboratory import DEADLINE, IN_TIME, TOO_LATE, Content, Laboratory, Letter, open_laboratory, read

#: The five contents, in the order of the saga.
Contents = tuple[Content, ...]
#: A message for a service (its number in the saga).
Addressed = tuple[int, Letter]


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


@dataclass(frozen=True, slots=True)
class World:
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


@dataclass(slots=True)
class Search:
    """What a search has seen."""

    scenario: Scenario
    states: int = 0
    endings: set[tuple[str, ...]] = field(default_factory=set)
    violation: Violation | None = None


async def explore(laboratory: Laboratory, scenario: Scenario) -> Search:
    """Search every world that can be reached, breadth first, so that the first violation is a shortest one."""
    search = Search(scenario)
    start = await _start(laboratory, scenario)
    came_from: dict[World, tuple[World, str] | None] = {start: None}
    waiting = deque([start])
    checked: dict[tuple[Contents, bool], str | None] = {}
    while waiting:
        world = waiting.popleft()
        search.states += 1
        glance = (world.contents, world.is_quiet)
        if glance not in checked:
            checked[glance] = _broken(world, scenario)
        if rule := checked[glance]:
            search.violation = Violation(scenario.name, rule, _timeline(came_from, world))
            return search
        if world.is_quiet:
            search.endings.add(tuple(_ending(world.contents, command.payment_id) for command in scenario.commands))
        async for what, after in _next(laboratory, scenario, world):
            if isinstance(after, str):
                timeline = (*_timeline(came_from, world), what)
                search.violation = Violation(scenario.name, after, timeline)
                return search
            if after not in came_from:
                came_from[after] = (world, what)
                waiting.append(after)
    return search


async def _start(laboratory: Laboratory, scenario: Scenario) -> World:
    contents = [await laboratory.empty(service) for service in saga.SERVICES]
    for command in scenario.setup:
        key = next(key for key, kind in _COMMANDS.items() if isinstance(command, kind))
        number = _listeners(key)[0]
        reaction = await laboratory.react(
            saga.SERVICES[number], contents[number], Letter(key, command.encode()), IN_TIME
        )
        contents[number] = reaction.content
    pays = tuple((0, Letter(saga.FIRST.on, command.encode())) for command in scenario.commands)
    return World(tuple(contents), _sorted(pays), scenario.duplicates, late=False)


async def _next(
    laboratory: Laboratory, scenario: Scenario, world: World
) -> AsyncIterator[tuple[str, World | str]]:
    """Everything that may happen next: in words, and the world after it or the rule that it breaks."""
    now = TOO_LATE if world.late else IN_TIME
    for addressed in dict.fromkeys(world.letters):
        number, letter = addressed
        service = saga.SERVICES[number]
        rest = _without(world.letters, addressed)
        name = f"{letter.type} of {letter.key}"
        if world.duplicates:
            twice = World(world.contents, _sorted((*world.letters, addressed)), world.duplicates - 1, world.late)
            yield f"{service} is delivered {name} twice", twice
        if scenario.deaths and not letter.reason and promise(letter.type) is Promise.UNTIL_SPENT:
            died = Letter(letter.type, letter.body, saga.RETRIES_SPENT)
            yield (
                f"{service} fails on {name} until its retries are spent",
                World(world.contents, _sorted((*rest, (number, died))), world.duplicates, world.late),
            )
        try:
            reaction = await laboratory.react(service, world.contents[number], letter, now)
        except Exception as error:  # noqa: BLE001 - production code that stumbles is what we look for
            yield f"{service} handles {name}", f"{type(error).__name__}: {error}"
            continue
        told = f"{service} handles {'the dead ' if letter.reason else ''}{name}"
        arriving = [(listener, emitted) for emitted in reaction.emitted for listener in _listeners(emitted.type)]
        match reaction.outcome:
            case Dead(reason=reason):
                arriving.append((number, Letter(letter.type, letter.body, reason)))
                told += f" and refuses: {reason}"
            case Parked(reason=reason, detail=detail) if not scenario.may_park:
                yield told, f"{service} parked {name}: {reason} ({detail})"
                continue
        if reaction.emitted:
            told += ", emits " + ", ".join(emitted.type for emitted in reaction.emitted)
        contents = (*world.contents[:number], reaction.content, *world.contents[number + 1 :])
        yield told, World(contents, _sorted((*rest, *arriving)), world.duplicates, world.late)
    if scenario.deadline and not world.late and world.letters:
        yield "the deadline passes", World(world.contents, world.letters, world.duplicates, late=True)


def _listeners(key: str) -> tuple[int, ...]:
    """The services, by number, whose queues are bound for this key."""
    return tuple(
        number
        for number, service in enumerate(saga.SERVICES)
        if key in (keys := (*saga.command_keys(service), *saga.event_keys(service)))
        or (key.endswith(".failed") and saga.ANY_FAILED in keys)
    )


def _sorted(letters: Sequence[Addressed]) -> tuple[Addressed, ...]:
    return tuple(sorted(letters, key=lambda addressed: (addressed[0], *_spelled(addressed[1]))))


def _spelled(letter: Letter) -> tuple[str, str, str]:
    return letter.type, letter.body, letter.reason


def _without(letters: tuple[Addressed, ...], gone: Addressed) -> tuple[Addressed, ...]:
    place = letters.index(gone)
    return letters[:place] + letters[place + 1 :]


def _timeline(came_from: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    steps = []
    step = came_from[world]
    while step is not None:
        world, what = step
        steps.append(what)
        step = came_from[world]
    return tuple(reversed(steps))


def _broken(world: World, scenario: Scenario) -> str | None:
    """The first promise that this world breaks; None if it keeps them all."""
    reservation = read("reservation", world.contents[1])
    point = read("point", world.contents[2])
    for wallet in point["wallet"]:
        entries = sum(entry["amount"] for entry in point["ledger_entry"] if entry["user_id"] == wallet["user_id"])
        if wallet["balance"] < 0:
            return f"the wallet of {wallet['user_id']} is below zero"
        if wallet["balance"] != entries:
            return f"points of {wallet['user_id']} were made or lost"
    sold = [row["seat"] for row in reservation["reservation"] if row["state"] == "CONFIRMED"]
    if len(sold) != len(set(sold)):
        return "a seat is sold twice"
    if world.is_quiet:
        for command in scenario.commands:
            ending = _ending(world.contents, command.payment_id)
            if ending not in {"done", "undone"}:
                return f"{command.payment_id} is neither done nor undone everywhere: {ending}"
    return None


def _ending(contents: Contents, payment_id: str) -> str:
    """How a saga ended: `done`, `undone`, or what each service says of it."""
    tables: dict[str, list[dict[str, object]]] = {}
    for service, content in zip(saga.SERVICES, contents, strict=True):
        tables |= read(service, content)
    payment = [row["state"] for row in tables["payment"] if row["payment_id"] == payment_id]
    confirmed = [row for row in tables["reservation"] if row["payment_id"] == payment_id]
    kinds = sorted(str(row["kind"]) for row in tables["ledger_entry"] if row["saga_id"] == payment_id)
    tokens = [row for row in tables["token"] if row["payment_id"] == payment_id]
    notices = [row["kind"] for row in tables["notice"] if row["saga_id"] == payment_id]
    if (payment, len(confirmed), kinds, len(tokens), notices) == (
        ["COMPLETED"],
        1,
        ["deduction"],
        1,
        ["completed"],
    ):
        return "done"
    if (
        payment in ([], ["CANCELLED"])
        and not confirmed
        and kinds in ([], ["deduction", "restoration"])
        and not tokens
        and notices == ["failed"]
    ):
        return "undone"
    return (
        f"payment {payment or 'none'}, reservations confirmed {len(confirmed)}, ledger {kinds or 'none'}, "
        f"tokens used {len(tokens)}, notices {notices or 'none'}"
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
            search = await explore(laboratory, scenario)
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
