"""The laboratory in small numbers: contents, letters and what statements were told are asked for by number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common import saga
from common.recovery import Dead, Parked
from proof.glass import Content, Key, Read, Unsearchable
from proof.laboratory import IN_TIME, TOO_LATE, Ending, Laboratory, Letter, Lost, Task
from proof.world import Addressed, Numbers

#: What a transaction that has only begun was told: nothing.
NOTHING = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """A place between two statements: what the transaction was told so far, and the rows it has locked."""

    told: int
    locked: frozenset[Key]
    words: str


@dataclass(frozen=True, slots=True)
class Work:
    """A transaction, from its start or from a pause on: where it may pause, and how it ends.

    `held`: the rows it locks or changes. A transaction that lost a race leaves the content as it is, and its
    letters arrive again.
    """

    pauses: tuple[Pause, ...]
    content: int
    arriving: tuple[Addressed, ...]
    held: frozenset[Key]
    words: str
    completed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stumble:
    """A transaction that may not be: the production code fails, or parks what it has to understand."""

    words: str
    rule: str


@dataclass(frozen=True, slots=True)
class Question:
    """A batch of letters for a service, when its transaction began, and what its statements were told so far.

    `careful`: as after a lost race (`common.unit_of_work.Batch`).
    """

    service: int
    letters: tuple[int, ...]
    late: bool
    told: int = NOTHING
    careful: bool = True


class Bench:
    """The production code, asked by number."""

    def __init__(self, laboratory: Laboratory, *, may_park: bool) -> None:
        self.contents = Numbers[Content]()
        self.letters = Numbers[Letter]()
        self._reads = Numbers[tuple[Read, ...]](())
        self._laboratory = laboratory
        self._may_park = may_park
        self._locks: dict[int, frozenset[Key]] = {}

    async def work(self, question: Question, content: int) -> Work | Stumble | None:
        """What a service with this content does about a batch of letters.

        None if it takes for granted what is not so, and finds out at once: then it is done again, with care.
        """
        service = saga.SERVICES[question.service]
        batch = tuple(self.letters.value(letter) for letter in question.letters)
        who = f"the slow replica of {service}" if question.told else service
        named = " and ".join(map(str, batch))
        task = Task(service, batch, TOO_LATE if question.late else IN_TIME, question.careful)
        before = self._reads.value(question.told)
        try:
            ending = await self._laboratory.transact(task, before, self.contents.value(content))
        except Unsearchable:
            raise
        except Exception as error:  # noqa: BLE001 - production code that stumbles is what we look for
            return Stumble(f"{who} handles {named}", f"{service} stumbles: {type(error).__name__}: {error}")
        pauses = self._pauses(ending, len(before), f"{who} takes {named}," if not before else who)
        if isinstance(ending, Lost) and not before and not question.careful:
            return None
        if isinstance(ending, Lost) and not before:
            return Stumble(f"{who} handles {named}", f"{service} loses a race against nobody: {ending.why}")
        if isinstance(ending, Lost):
            words = f"{who} loses the race for {named} ({ending.why:.80})"
            again = tuple((question.service, letter) for letter in question.letters)
            return Work(pauses, content, again, _locked(ending.reads), words)
        return self._decided(question, ending, pauses, f"{who} handles {named}")

    def locks(self, told: int) -> frozenset[Key]:
        """The rows that a transaction has locked which was told this."""
        if told not in self._locks:
            self._locks[told] = _locked(self._reads.value(told))
        return self._locks[told]

    def _decided(
        self, question: Question, ending: Ending, pauses: tuple[Pause, ...], words: str
    ) -> Work | Stumble:
        arriving = self.addressed(ending.emitted)
        for letter_number, outcome in zip(question.letters, ending.outcomes, strict=True):
            letter = self.letters.value(letter_number)
            match outcome:
                case Dead(reason=reason):
                    dead = Letter(letter.type, letter.body, reason)
                    arriving.append((question.service, self.letters.of(dead)))
                    words += f" and refuses: {reason}"
                case Parked(reason=reason, detail=detail) if not self._may_park:
                    return Stumble(words, f"{letter} is parked: {reason} ({detail})")
        if ending.emitted:
            words += ", emits " + ", ".join(emitted.type for emitted in ending.emitted)
        held = _locked(ending.reads) | ending.changed
        content = self.contents.of(ending.content)
        return Work(pauses, content, tuple(arriving), held, words, ending.completed)

    def addressed(self, emitted: Iterable[Letter]) -> list[Addressed]:
        """Letters to everybody who listens."""
        return [(listener, self.letters.of(letter)) for letter in emitted for listener in listeners(letter.type)]

    def _pauses(self, ending: Ending | Lost, told: int, words: str) -> tuple[Pause, ...]:
        reads = ending.reads
        # What only reads may as well end at once: whoever hears of it late does not know why.
        last = len(reads) if isinstance(ending, Lost) or ending.wrote else len(reads) - 1
        return tuple(
            Pause(
                self._reads.of(reads[:place]),
                _locked(reads[:place]),
                f"{words} reads {', '.join(map(str, reads[told:place]))}, and stands still",
            )
            for place in range(told + 1, last + 1)
        )


def _locked(reads: tuple[Read, ...]) -> frozenset[Key]:
    return frozenset[Key]().union(*(read.locked for read in reads))


def listeners(key: str) -> tuple[int, ...]:
    """The services, by number, whose queues are bound for this key."""
    pattern = saga.binding_of(key)
    return tuple(
        number
        for number, service in enumerate(saga.SERVICES)
        if pattern in saga.command_keys(service) or pattern in saga.event_keys(service)
    )
