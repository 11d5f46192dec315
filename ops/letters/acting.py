"""Replaying, discarding and revealing letters: put on record first, and confirmed; else it is not done.

A replay is a rejection. The broker itself gives a rejected letter back to its service, unchanged and at least
once, by the way that its queue was declared with: nobody has to write another one, or to speak in the service's
name. Whatever dies in between leaves the letter where it was. One that is discarded is kept in its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from aio_pika.abc import AbstractConnection

from common import topology
from ops.letters import record
from ops.letters.letter import Letter
from ops.letters.queues import Drawer
from ops.letters.record import Act
from ops.recording import Book, Signature


@dataclass(frozen=True, slots=True)
class Done:
    """A letter was replayed or discarded."""


@dataclass(frozen=True, slots=True)
class NotDone:
    """The letter is where it was, because of this."""

    why: str


Outcome = Done | NotDone

NOT_RECORDED = NotDone(
    f"the history ({topology.HISTORY}) does not keep who does it, and why: nothing was done; `saga doctor` looks"
)


class Desk:
    """Where an operator acts on letters, with the book in which all of it is put down first."""

    def __init__(self, book: Book) -> None:
        self._book = book

    @classmethod
    async def open(cls, connection: AbstractConnection, login: str) -> Desk:
        """Open a desk; `login`: the broker user of the connection."""
        return cls(await Book.open(connection, login))

    async def replay(
        self, drawer: Drawer, letter: Letter, signature: Signature, *, unrecorded: bool = False
    ) -> Outcome:
        """Let the broker give a letter back to its service; `unrecorded`: even where nobody keeps who did it."""
        if not await self._tell(Act.REPLAY, letter, signature) and not unrecorded:
            return NOT_RECORDED
        await drawer.send_back(letter)
        return Done()

    async def discard(self, drawer: Drawer, letter: Letter, signature: Signature) -> Outcome:
        """Keep a letter in the history and take it out of its queue; without the history it stays."""
        if not await self._tell(Act.DISCARD, letter, signature):
            return NOT_RECORDED
        await drawer.remove(letter)
        return Done()

    async def reveal(self, letter: Letter, signature: Signature, *, unrecorded: bool = False) -> Outcome:
        """Put down who looks at what a letter tells of a person; nothing else is done here."""
        if not await self._tell(Act.REVEAL, letter, signature) and not unrecorded:
            return NOT_RECORDED
        return Done()

    async def _tell(self, act: Act, letter: Letter, signature: Signature) -> bool:
        return await self._book.keep(record.of_act(act, letter, signature, now=datetime.now(UTC)))
