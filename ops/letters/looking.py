"""Looking for letters and telling of them: `list` and `show`, and the hold on which `ops.letters.orders` acts."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aio_pika.abc import AbstractConnection

from common import saga
from common.bus import user_of
from common.personal import Masks
from ops import where
from ops.broker import connected
from ops.letters import telling
from ops.letters.acting import Desk, NotDone
from ops.letters.letter import Kind, Letter
from ops.letters.queues import Drawer, drawer
from ops.output import CannotLookError, Exit, on_terminal, say, tell_json, warn
from ops.recording import Signature

Wanted = Callable[[Letter], bool]


@dataclass(frozen=True, slots=True)
class Reveal:
    """That somebody wants to see what is about a person; `unrecorded`: even where nobody keeps that they did."""

    signature: Signature
    unrecorded: bool = False


@dataclass(slots=True)
class Found:
    """Letters that were looked for, each with the queue that holds it; `left`: how many were not looked at."""

    letters: list[tuple[Drawer, Letter]] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def held(
    connection: AbstractConnection, kind: Kind, services: Sequence[str], limit: int, wanted: Wanted
) -> AsyncIterator[Found]:
    """Take letters out of these queues, at most `limit` of each, and hold them while the context lasts."""
    found = Found()
    async with AsyncExitStack() as stack:
        for service in services:
            opened = await stack.enter_async_context(drawer(connection, kind, service))
            with telling.progress(kind.queue(service), min(limit, opened.left)) as move_on:
                async for letter in opened.letters(limit):
                    if wanted(letter):
                        found.letters.append((opened, letter))
                    move_on()
            if opened.left:
                found.left[kind.queue(service)] = opened.left
        yield found


async def list_(
    kind: Kind, services: Sequence[str], *, reason: str | None, limit: int, each: bool, as_json: bool
) -> Exit:
    """Tell what lies in these queues, by service and reason."""
    seen: list[Letter] = []
    masks = Masks()

    def note(letter: Letter) -> bool:
        if reason in {None, letter.reason}:
            # Without its body: a queue may hold more than this program can.
            seen.append(dataclasses.replace(telling.veiled(letter, masks), body=b"", content=None))
        return False

    async with connected() as connection, held(connection, kind, services, limit, note) as found:
        left = found.left
    groups = telling.groups(seen)
    if as_json:
        told = [
            {
                "service": group.service,
                "reason": group.reason,
                "count": group.count,
                "oldest": group.oldest.since,
                "letter": group.oldest.id,
            }
            for group in groups
        ]
        tell_json({"groups": told, "letters": [telling.document(it, None) for it in seen], "not_looked_at": left})
        return Exit.OK
    if not seen and on_terminal():
        say(f"No {kind} letters.")
    elif each:
        telling.tell_each(seen, f"{kind} letters")
    else:
        telling.tell_groups(groups, f"{kind} letters")
    tell_left(left)
    return Exit.OK


async def show(
    kind: Kind, services: Sequence[str], name: str, *, reveal: Reveal | None, limit: int, as_json: bool
) -> Exit:
    """Tell all of the letters that a person means by `name`; what is about a person only if that is on record."""

    def wanted(letter: Letter) -> bool:
        return letter.answers_to(name)

    url, masks, why_not = where.broker_url(), Masks(), ""
    async with connected(url) as connection, held(connection, kind, services, limit, wanted) as found:
        letters, left = [letter for _, letter in found.letters], found.left
        if reveal is not None and letters:
            why_not = await _put_down(await Desk.open(connection, user_of(url)), letters, reveal)
    shown = masks if reveal is None or why_not else None
    if as_json:
        told = [telling.document(letter, shown, whole=True) for letter in letters]
        tell_json({"letters": told, "not_looked_at": left})
    else:
        for place, letter in enumerate(letters):
            if place:
                say()
            telling.tell_whole(letter, shown)
    if why_not:
        warn(f"What is about a person stays masked: {why_not}. --unrecorded shows it all the same")
        return Exit.NEGATIVE
    return unless_none(letters, left)


async def _put_down(desk: Desk, letters: Sequence[Letter], reveal: Reveal) -> str:
    """Put on record that these letters are seen as they are; why that cannot be, or nothing."""
    for letter in letters:
        outcome = await desk.reveal(letter, reveal.signature, unrecorded=reveal.unrecorded)
        if isinstance(outcome, NotDone):
            return outcome.why
    return ""


def unless_none(found: Sequence[object], left: dict[str, int]) -> Exit:
    """Well, unless nothing was found; and how much was not looked at."""
    if not found:
        warn("There is no such letter; or it is in the hands of its service, or of somebody else who looks.")
    tell_left(left)
    return Exit.OK if found else Exit.NEGATIVE


def tell_left(left: dict[str, int]) -> None:
    """Say how much of which queue was not looked at."""
    for queue, count in left.items():
        warn(f"{count} more in {queue} were not looked at: --limit looks further.")


def services_of(name: str | None) -> tuple[str, ...]:
    """The services to look at: all, or the one that is named; CannotLookError for a name that is none."""
    if name is None:
        return saga.SERVICES
    if name not in saga.SERVICES:
        raise CannotLookError(f"There is no service {name}; there are {', '.join(saga.SERVICES)}.")
    return (name,)
