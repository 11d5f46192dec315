"""Two replicas of one service: transactions that stand still between two statements while the other one commits.

What is searched is PostgreSQL's READ COMMITTED. A statement sees what was committed when it began. `SELECT ... FOR
UPDATE` locks the rows it finds until its transaction ends; a statement that wants to lock or change a locked row
waits, so here it cannot happen. What a transaction writes is seen when it commits. A key that exists by then, or a
row that is no longer `done`, makes it lose the race: nothing of it happened, its letters are done again.

Four things are left out, and no interleaving that matters is lost by them:

- *Writes and commit are one step.* All writes follow all reads (`proof.glass` insists on it). What a statement
  that writes finds out - a key is taken, a row is no longer `done` - cannot change between it and the commit: it
  has locked the rows it found, keys are never given back, and no row returns to `done`.
- *A transaction stands still only to be overtaken.* Reads that nobody's commit separates see the same, so it makes
  no difference when they happen. A transaction therefore runs to its end at once, or stands still after some of
  its reads until somebody else has changed the tables of its service. One that is never overtaken is the same as
  one that ran at once, and is not followed further. Who commits first can always be thought to have run at once.
- *Care comes and goes.* A service is careful for a second after a lost race. Here any batch may be done with care
  or without, at any time. One that loses without care although nobody overtook it took something for granted that
  is not so (that a command is new, say): it is done again with care, which is a step of its own.
- *Deadlock and crash need no step.* Both undo a transaction, and its letters are delivered again: the world is one
  in which the others did what they did, and it had not begun.

A statement that waits for one of several rows has chosen its rows before it waits; here it chooses them
afterwards. The difference is a row that is inserted meanwhile and that it would not have found: then the messages
that need the row are decided as if they had come before the insert, and that is searched as well.

Three replicas, or more than two transactions open in one service, are not searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from common import saga
from proof.bench import Bench, Question, Stumble, Work
from proof.glass import Key
from proof.scenarios import Scenario
from proof.world import Next, Open, World, Worlds

_AT_ONCE = 2
#: Services that do the same with care and without: they have nothing to lock, and take nothing for granted.
ALWAYS_THE_SAME = frozenset({"queue"})
_NOBODY = frozenset[Key]()


class Replicas:
    """What the replicas of the services may do next, as far as the rows that others hold let them."""

    def __init__(self, bench: Bench, worlds: Worlds, scenario: Scenario) -> None:
        self._bench = bench
        self._worlds = worlds
        self._scenario = scenario
        self._doubled = {saga.SERVICES.index(service) for service in scenario.replicas}
        self._works: dict[tuple[int, Open], Work | Stumble | None] = {}
        self._pairs: dict[int, list[tuple[int, int, int]]] = {}

    async def next(self, world: World) -> list[Next]:
        """Every unit of work that may be done or begun next, and every one that may go on."""
        found: list[Next] = []
        open_ = self._worlds.open(world)
        for number, letter in dict.fromkeys(self._worlds.letters(world)):
            for careful in self._manners(number, letter):
                found += await self._begun(world, number, (letter,), careful=careful)
        if self._scenario.batches:
            for number, first, second in self._batches(world):
                for careful in self._manners(number, first):
                    found += await self._begun(world, number, (first, second), careful=careful)
        for transaction in open_:
            if transaction.overtaken:
                found += await self._going_on(world, transaction)
        return found

    def _manners(self, number: int, letter: int) -> tuple[bool, ...]:
        """Careful or not, where it makes a difference: either may be, as races were lost before or not."""
        is_same = saga.SERVICES[number] in ALWAYS_THE_SAME or self._is_dead(letter)
        return (True,) if is_same else (False, True)

    async def _begun(
        self, world: World, number: int, letters: tuple[int, ...], *, careful: bool
    ) -> Iterator[Next]:
        """What a replica may do with letters it takes now: all of it, or a part and then stand still."""
        open_ = self._worlds.open(world)
        here = [transaction for transaction in open_ if transaction.service == number] if open_ else []
        if len(here) == _AT_ONCE:
            return iter(())
        still = Open(number, letters, world.late, 0, overtaken=False, careful=careful)
        work = await self._work(world, still)
        taken = self._worlds.taken(world, *((number, letter) for letter in letters))
        may_stand = number in self._doubled and len(open_) < self._scenario.slow
        return self._done(taken, still, work, self._held(here), may_stand=may_stand)

    async def _going_on(self, world: World, still: Open) -> Iterator[Next]:
        """What a replica may do that was overtaken: the rest of its work, or another part of it."""
        work = await self._work(world, still)
        alone = self._worlds.resumed(world, still)
        here = [other for other in self._worlds.open(alone) if other.service == still.service]
        return self._done(alone, still, work, self._held(here), may_stand=True)

    def _done(
        self, world: World, still: Open, work: Work | Stumble | None, held: frozenset[Key], *, may_stand: bool
    ) -> Iterator[Next]:
        if work is None:
            return
        if isinstance(work, Stumble):
            yield work.words, work.rule
            return
        if not work.held & held:
            after = self._worlds.changed(world, still.service, work.content)
            if self._scenario.repair:
                after = self._worlds.completed(after, work.completed)
            yield work.words, self._worlds.arrived(after, work.arriving)
        if may_stand:
            for pause in work.pauses:
                if not pause.locked & held:
                    waiting = still._replace(told=pause.told, overtaken=False)
                    yield pause.words, self._worlds.standing(world, waiting)

    async def _work(self, world: World, still: Open) -> Work | Stumble | None:
        content = self._worlds.contents(world)[still.service]
        asked = (content, still._replace(overtaken=False))
        if asked not in self._works:
            question = Question(still.service, still.letters, still.late, still.told, still.careful)
            self._works[asked] = await self._bench.work(question, content)
        return self._works[asked]

    def _batches(self, world: World) -> list[tuple[int, int, int]]:
        """Two letters that one transaction may take, in either order: both alive, or both dead."""
        if world.letters not in self._pairs:
            pairs = {
                (first[0], first[1], second[1])
                for first, second in permutations(self._worlds.letters(world), 2)
                if first[0] == second[0] and self._is_dead(first[1]) == self._is_dead(second[1])
            }
            self._pairs[world.letters] = sorted(pairs)
        return self._pairs[world.letters]

    def _is_dead(self, letter: int) -> bool:
        return bool(self._bench.letters.value(letter).reason)

    def _held(self, transactions: list[Open]) -> frozenset[Key]:
        if not transactions:
            return _NOBODY
        return _NOBODY.union(*(self._bench.locks(transaction.told) for transaction in transactions))
