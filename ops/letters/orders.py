"""Replaying and discarding as an operator orders it: judged first, and done only where that was asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from common.bus import user_of
from common.personal import Masks
from ops import where
from ops.broker import connected
from ops.letters import looking, rules, standing, telling, users
from ops.letters.acting import Desk, Done, NotDone, Outcome
from ops.letters.letter import Kind, Letter
from ops.letters.looking import Found, Wanted
from ops.letters.record import Act
from ops.letters.rules import Prospect, Verdict
from ops.letters.standing import Standing
from ops.output import CannotLookError, Exit, table, tell_json, warn
from ops.recording import Signature


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
    unrecorded: bool = False


@dataclass(slots=True)
class Line:
    """What becomes of one letter; `outcome` is None where nothing was to be done."""

    letter: Letter
    prospect: Prospect
    allowed: bool
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
    named: Mapping[str, str] = {}
    lossy: Collection[str] = ()
    if order.act is Act.REPLAY:
        management = where.management_url()
        lossy = await users.without_a_way_back(management)
        named = await users.of_services(management)
    now = datetime.now(UTC)
    lines = []
    for letter, known in zip(letters, standings, strict=True):
        match order.act:
            case Act.REPLAY:
                prospect = rules.replay(letter, known, now=now)
                why_not = users.why_not_back(letter, named, lossy)
                if why_not and prospect.verdict is not Verdict.NEVER:
                    instead = "if what it says is right, let its sender publish it again"
                    prospect = Prospect(Verdict.NEVER, why_not, instead)
            case Act.DISCARD:
                prospect = rules.discard(letter, known)
        lines.append(Line(letter, prospect, prospect.allows(force=order.force)))
    return lines


async def _do(desk: Desk, order: Order, found: Found, lines: Sequence[Line]) -> None:
    allowed = [(drawer, line) for (drawer, _), line in zip(found.letters, lines, strict=True) if line.allowed]
    for _, line in allowed:
        line.outcome = NotDone("nothing was done about it")
    with telling.progress(str(order.act), len(allowed)) as move_on:
        for opened, line in allowed:
            line.outcome = NotDone("nobody knows whether it was done: look whether it is still there")
            if order.act is Act.REPLAY:
                line.outcome = await desk.replay(opened, line.letter, order.signature, unrecorded=order.unrecorded)
            else:
                line.outcome = await desk.discard(opened, line.letter, order.signature)
            move_on()


async def standings_of(letters: Sequence[Letter]) -> Sequence[Standing]:
    """How the sagas of these letters stand: the databases know, else the history; of the rest nobody does."""
    if not any(letter.key for letter in letters):
        return [standing.UNKNOWN] * len(letters)
    try:
        return await standing.of_databases(letters, where.databases_of_the_broker())
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


def _tell(order: Order, lines: Sequence[Line], left: dict[str, int], *, as_json: bool) -> None:
    masks = Masks()
    if as_json:
        told = [
            telling.document(line.letter, masks)
            | {
                "outcome": line.became.replace(" ", "_"),
                "verdict": line.prospect.verdict,
                "because": telling.text(line.because, line.letter, masks),
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
                    masks.key(line.letter.type, line.letter.key),
                    line.became,
                    telling.text(line.because, line.letter, masks),
                    "" if line.allowed else line.prospect.instead,
                )
                for line in lines
            ],
        )
    if allowed := sum(line.allowed for line in lines) if not order.really else 0:
        warn(f"Nothing was done yet: --yes does it to {allowed} of {len(lines)}.")
