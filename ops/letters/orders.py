"""Replaying and discarding as an operator orders it: judged first, and done only where that was asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from common import saga
from common.bus import user_of
from ops import where
from ops.broker import connected
from ops.letters import looking, rules, standing, telling, users
from ops.letters.acting import Desk, Done, NotDone, Outcome
from ops.letters.letter import Kind, Letter
from ops.letters.looking import Found, Wanted
from ops.letters.record import Act, Signature
from ops.letters.rules import Prospect, Verdict
from ops.letters.standing import Standing
from ops.output import CannotLookError, Exit, table, tell_json, warn


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants done: to which letters, by whom and why; `really`, or only told what would happen."""

    act: Act
    kind: Kind
    services: Sequence[str]
    wanted: Wanted
    signature: Signature
    limit: int
    really: bool
    force: bool = False
    in_the_name_of: str | None = None


@dataclass(slots=True)
class Line:
    """What becomes of one letter; `outcome` is None where nothing was to be done."""

    letter: Letter
    prospect: Prospect
    allowed: bool
    in_the_name_of: str
    outcome: Outcome | None = None

    @property
    def became(self) -> str:
        """The word for it."""
        match self.outcome:
            case Done():
                return "done"
            case NotDone():
                return "not done"
        return "would be done" if self.allowed else "refused"

    @property
    def because(self) -> str:
        """What that means."""
        return self.outcome.why if isinstance(self.outcome, NotDone) else self.prospect.says


async def act(order: Order, *, as_json: bool) -> Exit:
    """Replay or discard, or tell what that would do."""
    url = where.broker_url()
    lines: list[Line] = []
    lost: CannotLookError | None = None
    try:
        async with connected(url) as connection:
            async with looking.held(connection, order.kind, order.services, order.limit, order.wanted) as found:
                if order.really:
                    # The letters are ours alone until all is decided and done.
                    lines = await _judged(order, [letter for _, letter in found.letters])
                    await _do(await Desk.open(connection, user_of(url)), order, found, lines)
            if not order.really:
                lines = await _judged(order, [letter for _, letter in found.letters])
    except CannotLookError as error:
        if not any(line.outcome for line in lines):
            raise
        # Some may be done: that is told first.
        lost = error
    _tell(order, lines, found.left, as_json=as_json)
    if lost is not None:
        raise lost
    if any(not isinstance(line.outcome, Done) if order.really else not line.allowed for line in lines):
        return Exit.NEGATIVE
    return looking.unless_none(lines, found.left)


async def _judged(order: Order, letters: Sequence[Letter]) -> list[Line]:
    standings = await standings_of(letters)
    named = {} if order.in_the_name_of else await users.of_services(where.management_url())
    now = datetime.now(UTC)
    lines = []
    for letter, known in zip(letters, standings, strict=True):
        match order.act:
            case Act.REPLAY:
                prospect = rules.replay(letter, known, now=now)
                user = users.signatory(letter, named, order.in_the_name_of)
            case Act.DISCARD:
                prospect, user = rules.discard(letter, known), ""
        if isinstance(user, users.Nobody) and prospect.allows(force=order.force):
            prospect = Prospect(Verdict.NEVER, user.why, "look at it first: whoever replays it vouches for it")
        lines.append(Line(letter, prospect, prospect.allows(force=order.force), str(user)))
    return lines


async def _do(desk: Desk, order: Order, found: Found, lines: Sequence[Line]) -> None:
    allowed = [(drawer, line) for (drawer, _), line in zip(found.letters, lines, strict=True) if line.allowed]
    for _, line in allowed:
        line.outcome = NotDone("nothing was done about it")
    with telling.progress(str(order.act), len(allowed)) as move_on:
        for opened, line in allowed:
            line.outcome = NotDone("nobody knows whether it was done: look whether it is still there")
            if order.act is Act.REPLAY:
                line.outcome = await desk.replay(
                    opened, line.letter, order.signature, in_the_name_of=line.in_the_name_of
                )
            else:
                line.outcome = await desk.discard(opened, line.letter, order.signature)
            move_on()


async def standings_of(letters: Sequence[Letter]) -> Sequence[Standing]:
    """How the sagas of these letters stand: the databases know, else the history; of the rest nobody does."""
    if not any(letter.key for letter in letters):
        return [standing.UNKNOWN] * len(letters)
    try:
        return await standing.of_databases(letters, databases_of_the_broker())
    except CannotLookError as error:
        warn(f"The databases cannot be asked, so the history is: {error}")
    keys = {letter.key for letter in letters if letter.key}
    from ops.story import reading  # noqa: PLC0415 - only where it is needed

    try:
        told = [
            record
            async for record in reading.records(about=next(iter(keys)) if len(keys) == 1 else None)
            if any(entry.saga in keys for entry in record.entries)
        ]
    except CannotLookError as error:
        warn(f"The history cannot be asked either: {error}")
        return [standing.UNKNOWN] * len(letters)
    return standing.of_history(letters, told)


def databases_of_the_broker(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The databases that surely belong to the broker; CannotLookError if that is not sure.

    Who names a broker, and no databases, may mean one far away; what `make up` left here knows nothing of it, and
    may know a saga of the same name.
    """
    named = [environment.get(f"DATABASE_URL_{service.upper()}") for service in saga.SERVICES]
    if environment.get("RABBITMQ_URL") and not all(named):
        raise CannotLookError("RABBITMQ_URL names the broker, but no DATABASE_URL_<SERVICE> the databases with it")
    return where.database_urls(environment)


def _tell(order: Order, lines: Sequence[Line], left: dict[str, int], *, as_json: bool) -> None:
    if as_json:
        told = [
            telling.document(line.letter)
            | {
                "outcome": line.became.replace(" ", "_"),
                "verdict": line.prospect.verdict,
                "because": line.because,
                "instead": "" if line.allowed else line.prospect.instead,
            }
            for line in lines
        ]
        tell_json({"act": order.act, "dry_run": not order.really, "letters": told, "not_looked_at": left})
    elif lines:
        table(
            ("letter", "service", "type", "saga", str(order.act), "because", "instead"),
            [
                (
                    line.letter.id,
                    line.letter.service,
                    line.letter.type,
                    line.letter.key,
                    line.became,
                    line.because,
                    "" if line.allowed else line.prospect.instead,
                )
                for line in lines
            ],
        )
    if any(isinstance(line.outcome, Done) and line.outcome.untold for line in lines):
        warn("The history is not there to be told of it: nobody will see who did this.")
    if allowed := sum(line.allowed for line in lines) if not order.really else 0:
        warn(f"Nothing was done yet: --yes does it to {allowed} of {len(lines)}.")
