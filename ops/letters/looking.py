"""Looking for letters and telling of them: `list` and `show`, and the hold on which `ops.letters.orders` acts."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aio_pika.abc import AbstractConnection

from common import saga
from ops.broker import connected
from ops.letters import telling
from ops.letters.letter import Kind, Letter
from ops.letters.queues import Drawer, drawer
from ops.output import CannotLookError, Exit, on_terminal, say, tell_json, warn

Wanted = Callable[[Letter], bool]


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

    def note(letter: Letter) -> bool:
        if reason in {None, letter.reason}:
            # Without its body: a queue may hold more than this program can.
            seen.append(dataclasses.replace(letter, body=b"", content=None))
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
        tell_json({"groups": told, "letters": [telling.document(it) for it in seen], "not_looked_at": left})
        return Exit.OK
    if not seen and on_terminal():
        say(f"No {kind} letters.")
    elif each:
        telling.tell_each(seen, f"{kind} letters")
    else:
        telling.tell_groups(groups, f"{kind} letters")
    tell_left(left)
    return Exit.OK


async def show(kind: Kind, services: Sequence[str], name: str, *, reveal: bool, limit: int, as_json: bool) -> Exit:
    """Tell all of the letters that a person means by `name`."""

    def wanted(letter: Letter) -> bool:
        return letter.answers_to(name)

    async with connected() as connection, held(connection, kind, services, limit, wanted) as found:
        letters, left = [letter for _, letter in found.letters], found.left
    if as_json:
        told = [telling.document(letter, reveal=reveal) for letter in letters]
        tell_json({"letters": told, "not_looked_at": left})
    else:
        for place, letter in enumerate(letters):
            if place:
                say()
            telling.tell_whole(letter, reveal=reveal)
    return unless_none(letters, left)


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
