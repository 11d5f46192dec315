"""One random way through a workload of many sagas: any message next, some of them twice, until all is quiet.

Where the explorer searches every way of a few sagas, a walk takes one way of many. It notes what every wallet,
reservation and token was like before each step, so that a refusal can be held against a state that really was.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from common import saga
from common.messages import Enter, Hold, Pay, TopUp
from common.recovery import Dead, Parked
from proof.laboratory import IN_TIME, Content, Laboratory, Letter, read
from proof.oracle import Result

_COMMANDS: dict[type, str] = {Hold: "reservation.hold", TopUp: "point.top_up", Enter: "queue.enter"}


@dataclass(slots=True)
class Refusal:
    """A refusal on the way, and the tables of the service at that moment."""

    payment_id: str
    reason: str
    tables: dict[str, list[dict[str, Any]]]


@dataclass(slots=True)
class Walk:
    """Where a walk ended, and the refusals on its way."""

    contents: list[Content]
    refusals: list[Refusal] = field(default_factory=list)
    steps: int = 0

    def result(self) -> Result:
        """What the five databases hold together, in the terms of the oracle."""
        tables: dict[str, list[dict[str, Any]]] = {}
        for service, content in zip(saga.SERVICES, self.contents, strict=True):
            tables |= read(service, content)
        return Result(
            completed=frozenset(row["payment_id"] for row in tables["payment"] if row["state"] == "COMPLETED"),
            balances=frozenset((row["user_id"], row["balance"]) for row in tables["wallet"]),
            seats=frozenset(
                (row["seat"], row["payment_id"]) for row in tables["reservation"] if row["payment_id"]
            ),
            tokens=frozenset((row["token"], row["payment_id"]) for row in tables["token"] if row["payment_id"]),
        )


async def walk(
    laboratory: Laboratory,
    owned: Iterable[Hold | TopUp | Enter],
    pays: Sequence[Pay],
    *,
    chance: random.Random,
    repeated: float = 0.1,
) -> Walk:
    """Give the services what they own, publish all payments at once, and deliver until nothing is left."""
    contents = [await laboratory.empty(service) for service in saga.SERVICES]
    here = Walk(contents)
    for command in owned:
        key = _COMMANDS[type(command)]
        (number,) = _takers(key)
        letter = Letter(key, command.encode())
        contents[number] = (
            await laboratory.react(saga.SERVICES[number], contents[number], letter, IN_TIME)
        ).content
    letters = [(0, Letter(saga.FIRST.on, pay.encode())) for pay in pays]
    while letters:
        number, letter = letters.pop(chance.randrange(len(letters)))
        service = saga.SERVICES[number]
        before = contents[number]
        reaction = await laboratory.react(service, before, letter, IN_TIME)
        match reaction.outcome:
            case Parked(reason=reason):
                raise RuntimeError(f"{service} parked {letter}: {reason}")
            case Dead(reason=reason):
                here.refusals.append(Refusal(letter.key, reason, read(service, before)))
                letters.append((number, Letter(letter.type, letter.body, reason)))
        contents[number] = reaction.content
        letters += [(taker, emitted) for emitted in reaction.emitted for taker in _takers(emitted.type)]
        if chance.random() < repeated:
            letters.append((number, letter))
        here.steps += 1
    return here


def _takers(key: str) -> list[int]:
    return [number for number, service in enumerate(saga.SERVICES) if saga.takes(service, key)]
