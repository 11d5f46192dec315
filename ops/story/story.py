"""One saga as far as the history tells: which words were heard of each service, and when.

A story only ever learns, so that in whatever order the same words come they make the same story; `ops.story.fold`
teaches it. Of messages nothing is kept but ids and reasons: a million stories fit into memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntFlag, auto

from common import saga


class Word(IntFlag):
    """What has been heard of a service's part in a saga."""

    SAID = auto()
    """Its event went round, whoever told of it: so it did its part."""
    DID = auto()
    """It told itself that it did its part."""
    REFUSED = auto()
    """Its part ended in a dead letter, which its handler is to decide."""
    FAILED = auto()
    """It ended the saga."""
    SAID_FAILED = auto()
    """Its failure went round; who has undone or closed its part says that, too, when it is asked again."""
    UNDID = auto()
    """It took its part back."""
    CLOSED = auto()
    """It remembered never to do its part."""
    PARKED = auto()
    """Its trigger waits for a person."""
    UNDO_PARKED = auto()
    """A failure, to which it should have listened, waits for a person."""
    FINISHED = auto()
    """What comes after its step: the payment is completed, the notice is delivered."""
    FINISH_PARKED = auto()
    """What comes after its step waits for a person."""


class Part(Enum):
    """What a message asks of a service in a saga."""

    FORWARD = auto()
    FAILURE = auto()
    FINISH = auto()
    """The pivot's event at the first service, which completes; the notice at the last one."""


@dataclass(frozen=True, slots=True, order=True)
class Trouble:
    """An attempt that did not end well: `became` is retry, dead or parked. `at` in seconds since 1970."""

    at: float
    service: str
    type: str
    became: str
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True, order=True)
class Act:
    """What an operator did about a saga. `at` in seconds since 1970."""

    at: float
    act: str
    by: str


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """Why a saga failed. `rank` 0: the service that ended it says so; 1: another one that heard of it."""

    rank: int
    at: float
    service: str
    reason: str


PLACES: Mapping[str, int] = {service: place for place, service in enumerate(saga.SERVICES)}
LAST = len(saga.SAGA) - 1
_WIDTH = len(Word)
_ALL = (1 << _WIDTH) - 1
# Each service's part has two times, when it was done and when it was over; two services have a third one.
_FINISHED_AT = 2 * len(saga.SAGA)
_TIMES = _FINISHED_AT + 2


class Story:
    """One saga, as far as the history tells. Times are seconds since 1970.

    `words`: what was heard, of all services together. `first` and `last`: when anything of it was told first and
    last. `due`: when the last known retry comes. `trouble` and `act` are the latest ones.
    """

    __slots__ = ("act", "cause", "due", "first", "id", "last", "times", "trouble", "words")

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.first: float | None = None
        self.last = 0.0
        self.due = 0.0
        self.trouble: Trouble | None = None
        self.cause: Cause | None = None
        self.act: Act | None = None
        self.words = 0
        self.times: list[float | None] = [None] * _TIMES

    def time(self, place: int, word: Word) -> float | None:
        """When the service at a place first told this itself: DID, FINISHED, or how its part was over."""
        return self.times[_slot(place, word)]

    @property
    def exists(self) -> bool:
        """Whether there is such a saga: an operator may have asked for what is not there, or thrown it away.

        A command that could not be read began nothing, so that nothing is left of it once it is discarded.
        """
        return self.first is not None and not self._was_thrown_away

    @property
    def _was_thrown_away(self) -> bool:
        act, trouble = self.act, self.trouble
        if self.words != int(Word.PARKED) or act is None or trouble is None:
            return False
        return act.act == "discard" and act.at >= trouble.at

    @property
    def state(self) -> tuple[object, ...]:
        """All that is known, to compare."""
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Story) and self.state == other.state

    __hash__ = None  # type: ignore[assignment]

    def hear(self, place: int, word: Word, at: float | None = None) -> None:
        """Learn a word; `at` is given where the service tells it itself, for the first time."""
        self.words |= word << place * _WIDTH
        if at is not None:
            slot = _slot(place, word)
            known = self.times[slot]
            if known is None or at < known:
                self.times[slot] = at


def heard(words: int, place: int) -> int:
    """The words heard of the service at a place of the table, as flags of `Word`, out of all of a story."""
    return words >> place * _WIDTH & _ALL


def _slot(place: int, word: Word) -> int:
    if word is Word.FINISHED:
        return _FINISHED_AT + (place == LAST)
    return 2 * place + (word is not Word.DID)
