"""What follows from the words of a saga alone, by the saga table: pure, and honest about what nobody told.

A conclusion is drawn only where the table forces it: whoever was asked for step three was told that step two was
done; whoever remembered never to do its part comes after the one that failed. What does not follow is said to be
unknown, and every conclusion that stands for a missing word is listed among the `holes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from common import saga
from ops.story.standing import Phase, StepState
from ops.story.story import LAST, PLACES, Word, heard

#: The pivot's place in the table.
PIVOT = PLACES[saga.PIVOT.service]
# Plain numbers: flags of an enumeration cost ten times as much to combine.
_DID = int(Word.DID)
_DONE = int(Word.SAID | Word.DID | Word.UNDID)
_FINISHED, _UNDID, _CLOSED, _FAILED = (int(word) for word in (Word.FINISHED, Word.UNDID, Word.CLOSED, Word.FAILED))
_TOLD_OVER = _FAILED | _UNDID | _CLOSED
_OVER = _TOLD_OVER | int(Word.SAID_FAILED)


@dataclass(frozen=True, slots=True)
class Shape:
    """What follows from the words alone, whenever they were said. Places are those of the saga table."""

    pivoted: bool
    backwards: bool
    failed: int | None
    torn: str
    missing: tuple[int, ...]
    """Whose words are missing until it has ended; the notice decides nothing."""
    notice: tuple[int, ...]
    """The last place, if the user is still to be told."""
    parked: tuple[str, ...]
    """Those of the missing whose message waits for a person."""
    ended: Phase | None
    baton: str | None
    steps: tuple[StepState, ...]
    steps_overdue: tuple[StepState, ...]
    holes: tuple[str, ...]


@lru_cache(maxsize=4096)
def shape_of(words: int) -> Shape:
    """A million sagas have few shapes: each is thought through once."""
    return _Words([heard(words, place) for place in range(len(saga.SAGA))]).shape()


class _Words:
    """The words heard of each place, and what the saga table makes of them."""

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self._furthest = self._find_furthest()
        self._pivoted = self._furthest >= PIVOT
        self._backwards = not self._pivoted and any(word & _OVER for word in words)
        self._failed = self._find_failed() if self._backwards else None
        self._torn = self._contradiction()
        self._missing = self._find_missing()

    def shape(self) -> Shape:
        """The conclusions."""
        has_ended = not self._missing and not self._torn
        ended = None
        if has_ended:
            ended = Phase.COMPLETED if self._pivoted else Phase.UNDONE if self._failed else Phase.FAILED
        going = not (has_ended or self._backwards or self._torn)
        parked = Word.UNDO_PARKED if self._backwards else Word.FINISH_PARKED if self._pivoted else Word.PARKED
        over = self._pivoted or self._backwards
        places = range(len(saga.SAGA))
        return Shape(
            pivoted=self._pivoted,
            backwards=self._backwards,
            failed=self._failed,
            torn=self._torn,
            missing=tuple(self._missing),
            notice=(LAST,) if over and not self._words[LAST] & _FINISHED else (),
            parked=tuple(saga.SERVICES[place] for place in self._missing if self._words[place] & parked),
            ended=ended,
            baton=saga.SERVICES[self._missing[0]] if going else None,
            steps=tuple(self._step(place, overdue=False) for place in places),
            steps_overdue=tuple(self._step(place, overdue=True) for place in places),
            holes=tuple(self._find_holes()),
        )

    def _find_furthest(self) -> int:
        """The last place whose part was done at some time, whatever became of it; -1: none."""
        return next((place for place in range(LAST, -1, -1) if self._words[place] & _DONE), -1)

    def _find_failed(self) -> int | None:
        """Where it failed: as that service told, or else where only it can have been."""
        told = [place for place, words in enumerate(self._words) if words & _FAILED]
        if told:
            return told[0]
        candidates = self._candidates()
        if len(candidates) > 1:
            candidates = [place for place in candidates if self._words[place] & Word.SAID_FAILED]
        return candidates[0] if len(candidates) == 1 else None

    def _candidates(self) -> list[int]:
        """After the last part that was done, before the first that was closed."""
        end = next((place for place, words in enumerate(self._words) if words & _CLOSED), len(saga.SAGA))
        return [place for place in range(self._furthest + 1, end) if saga.SAGA[place].refusals]

    def _contradiction(self) -> str:
        told = [place for place, words in enumerate(self._words) if words & _TOLD_OVER]
        failed = [place for place in told if self._words[place] & _FAILED]
        if self._pivoted and told:
            return f"{saga.SERVICES[told[0]]} is over although {saga.PIVOT.emits} was said"
        if failed and failed[0] <= self._furthest:
            return f"{saga.SERVICES[failed[0]]} ended it although its part, or a later one, was done"
        if failed and any(self._words[place] & _CLOSED for place in range(failed[0])):
            return f"{saga.SERVICES[failed[0]]} ended it although a service before it had closed it"
        if self._backwards and not failed and not self._candidates():
            return "it failed, but no step is left that can have failed"
        return ""

    def _find_missing(self) -> list[int]:
        if self._torn:
            return []
        if self._pivoted:
            return [] if self._words[0] & _FINISHED else [0]
        if not self._backwards:
            return [self._furthest + 1]
        end = max(self._candidates()) if self._failed is None else self._failed
        undoing = [place for place in range(end) if saga.SAGA[place].compensation]
        return [place for place in undoing if not self._words[place] & _UNDID]

    def _step(self, place: int, *, overdue: bool) -> StepState:
        words = self._words[place]
        if place == LAST:
            return self._last_step(overdue=overdue)
        if words & _FAILED or place == self._failed:
            return StepState.REFUSED
        if words & _UNDID:
            return StepState.UNDONE
        if words & _CLOSED:
            return StepState.CLOSED
        if self._backwards:
            return self._step_backwards(place, overdue=overdue)
        if place <= self._furthest:
            return StepState.DONE
        if place not in self._missing:
            return StepState.WAITING
        if words & Word.PARKED:
            return StepState.PARKED
        return StepState.OVERDUE if overdue else StepState.UNDER_WAY

    def _step_backwards(self, place: int, *, overdue: bool) -> StepState:
        if self._failed is not None and place > self._failed:
            return StepState.WAITING
        if self._failed is None and place > self._furthest:
            return StepState.UNKNOWN
        if self._words[place] & Word.UNDO_PARKED:
            return StepState.PARKED
        if place not in self._missing:
            return StepState.DONE
        return StepState.OVERDUE if overdue else StepState.UNDOING

    def _last_step(self, *, overdue: bool) -> StepState:
        """The notice: it has a pace of its own, and is due however the saga ends."""
        words = self._words[LAST]
        if words & _FINISHED:
            return StepState.DONE
        if words & (Word.FINISH_PARKED | Word.PARKED):
            return StepState.PARKED
        if not self._pivoted and not self._backwards:
            return StepState.WAITING
        return StepState.OVERDUE if overdue else StepState.UNDER_WAY

    def _find_holes(self) -> list[str]:
        holes = [
            f"{saga.SERVICES[place]}: its own word is missing; that it did its part follows from what came after"
            for place in range(self._furthest + 1)
            if not self._words[place] & _DID
        ]
        if not self._backwards or self._torn:
            return holes
        if self._failed is None:
            holes.append("the history does not tell where it failed")
        elif not self._words[self._failed] & _FAILED:
            failed = saga.SERVICES[self._failed]
            holes.append(f"{failed}: its own word is missing; that it failed follows from what the others told")
        return holes
