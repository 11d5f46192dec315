"""One state of the search, held in five small numbers, and the arithmetic of such states.

A search meets millions of worlds, but few different sets of contents, of messages on their way and of open
transactions; each set has a number, and what comes of adding to it or taking from it is computed once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")

#: A message for a service: the service's number in the saga, and the letter's.
Addressed = tuple[int, int]


class Numbers(Generic[T]):
    """Gives equal values the same small number, so that worlds are compared fast and held cheaply."""

    def __init__(self, *values: T) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []
        for value in values:
            self.of(value)

    def of(self, value: T) -> int:
        """The number of a value."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def value(self, number: int) -> T:
        """The value that has this number."""
        return self._values[number]


class Open(NamedTuple):
    """A transaction of a replica that stands still between two statements.

    `told`: what its statements were told so far. `overtaken`: its service's tables have changed since. `careful`:
    it looks before it writes, and locks what others may want.
    """

    service: int
    letters: tuple[int, ...]
    late: bool
    told: int
    overtaken: bool
    careful: bool


class World(NamedTuple):
    """Contents of the five databases, messages on their way, and what else decides what may happen next.

    `duplicates` and `losses`: how many there may still be. `untold`: completed sagas that payment has in memory,
    and has not settled yet.
    """

    contents: int
    letters: int
    open: int
    duplicates: int
    late: bool
    losses: int = 0
    untold: int = 0


#: Something that may happen: in words, and the world after it or the rule that it breaks.
Next = tuple[str, World | str]


class Worlds:
    """The sets that worlds are made of, by their numbers."""

    def __init__(self) -> None:
        self._contents = Numbers[tuple[int, ...]]()
        self._letters = Numbers[tuple[Addressed, ...]](())
        self._open = Numbers[tuple[Open, ...]](())
        self._untold = Numbers[frozenset[str]](frozenset())
        self._known: dict[tuple[object, ...], int] = {}

    def first(
        self, contents: tuple[int, ...], letters: tuple[Addressed, ...], duplicates: int, losses: int
    ) -> World:
        """Where a search begins: nobody is at work, and all is in time."""
        number = self._letters.of(tuple(sorted(letters)))
        return World(self._contents.of(contents), number, 0, duplicates, late=False, losses=losses)

    def contents(self, world: World) -> tuple[int, ...]:
        """The contents of the five databases, in the order of the saga."""
        return self._contents.value(world.contents)

    def letters(self, world: World) -> tuple[Addressed, ...]:
        """The messages on their way, in order."""
        return self._letters.value(world.letters)

    def open(self, world: World) -> tuple[Open, ...]:
        """The transactions that stand still."""
        return self._open.value(world.open)

    def is_quiet(self, world: World) -> bool:
        """Whether nothing is on its way any more, and nobody is at work."""
        return not self.letters(world) and not self.open(world)

    def taken(self, world: World, *letters: Addressed) -> World:
        """The world without some letters that were on their way."""
        number = self._known.get(("taken", world.letters, letters))
        if number is None:
            rest = list(self.letters(world))
            for letter in letters:
                rest.remove(letter)
            number = self._known["taken", world.letters, letters] = self._letters.of(tuple(rest))
        return World(world.contents, number, world.open, world.duplicates, world.late, world.losses, world.untold)

    def arrived(self, world: World, letters: tuple[Addressed, ...]) -> World:
        """The world with more letters on their way."""
        if not letters:
            return world

        number = self._known.get(("arrived", world.letters, letters))
        if number is None:
            more = tuple(sorted((*self.letters(world), *letters)))
            number = self._known["arrived", world.letters, letters] = self._letters.of(more)
        return World(world.contents, number, world.open, world.duplicates, world.late, world.losses, world.untold)

    def changed(self, world: World, service: int, content: int) -> World:
        """The world in which a service has this content; whoever stands still in it is overtaken."""
        contents = self.contents(world)
        if contents[service] == content:
            return world

        number = self._known.get(("changed", world.contents, service, content))
        if number is None:
            now = (*contents[:service], content, *contents[service + 1 :])
            number = self._known["changed", world.contents, service, content] = self._contents.of(now)
        open_ = self._overtaken(world.open, service) if world.open else world.open
        return World(number, world.letters, open_, world.duplicates, world.late, world.losses, world.untold)

    def untold(self, world: World) -> frozenset[str]:
        """The completed sagas that are not settled yet."""
        return self._untold.value(world.untold)

    def completed(self, world: World, sagas: Collection[str]) -> World:
        """The world in which payment has to settle these sagas, too."""
        return world._replace(untold=self._untold.of(self.untold(world) | set(sagas))) if sagas else world

    def told(self, world: World) -> World:
        """The world in which payment has nothing left to settle, or has forgotten it."""
        return world._replace(untold=self._untold.of(frozenset()))

    def standing(self, world: World, transaction: Open) -> World:
        """The world with one more transaction that stands still."""
        more = tuple(sorted((*self.open(world), transaction)))
        return world._replace(open=self._open.of(more))

    def resumed(self, world: World, transaction: Open) -> World:
        """The world without this transaction that stood still."""
        rest = list(self.open(world))
        rest.remove(transaction)
        return world._replace(open=self._open.of(tuple(rest)))

    def _overtaken(self, open_: int, service: int) -> int:
        number = self._known.get(("overtaken", open_, service))
        if number is None:
            now = sorted(
                transaction._replace(overtaken=True) if transaction.service == service else transaction
                for transaction in self._open.value(open_)
            )
            number = self._known["overtaken", open_, service] = self._open.of(tuple(now))
        return number
