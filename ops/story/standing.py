"""How a saga stands, concluded from its story and the saga table: pure, and honest about what nobody told.

A conclusion is drawn only where the table forces it: whoever was asked for step three was told that step two was
done; whoever remembered never to do its part comes after the one that failed. What does not follow is said to be
unknown, and every conclusion that stands for a missing word is listed among the `holes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from common import saga
from common.history import Became
from ops.story.fold import LAST, PLACES, Story, Word, heard

#: Seconds of silence beyond what is planned after which a step is overdue, and a saga stuck.
OVERDUE_AFTER = 10.0
STUCK_AFTER = 120.0
#: Seconds that a saga may be tried again without getting on: all retry levels together are shorter.
RETRIED_FOR = 600.0

_PIVOT = PLACES[saga.PIVOT.service]
# Plain numbers: flags of an enumeration cost ten times as much to combine.
_DID = int(Word.DID)
_DONE = int(Word.SAID | Word.DID | Word.UNDID)
_FINISHED, _UNDID, _CLOSED, _FAILED = (int(word) for word in (Word.FINISHED, Word.UNDID, Word.CLOSED, Word.FAILED))
_TOLD_OVER = _FAILED | _UNDID | _CLOSED
_OVER = _TOLD_OVER | int(Word.SAID_FAILED)


class Phase(StrEnum):
    """What a saga is at. UNDONE: it failed and is taken back; FAILED: the first step refused, nothing was done."""

    MOVING = "moving"
    COMPLETED = "completed"
    UNDONE = "undone"
    FAILED = "failed"
    STUCK = "stuck"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self in {Phase.COMPLETED, Phase.UNDONE, Phase.FAILED}


class StepState(StrEnum):
    """What a step is at. CLOSED: it will never be done; UNKNOWN: the history does not tell."""

    WAITING = "waiting"
    UNDER_WAY = "under way"
    OVERDUE = "overdue"
    DONE = "done"
    REFUSED = "refused"
    UNDOING = "undoing"
    UNDONE = "undone"
    CLOSED = "closed"
    PARKED = "parked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Expected:
    """A word that should come next: whose, on which message, which event tells it; `since` None: nobody told."""

    service: str
    on: str
    says: tuple[str, ...]
    since: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one saga stands. Times are seconds since 1970; None: the history does not tell."""

    phase: Phase
    steps: tuple[StepState, ...]
    backwards: bool
    """Whether it failed, so that it is being undone, or has been."""
    baton: str | None
    """Who can carry it forward now; nobody on the way back, where each service undoes its part by itself."""
    expected: tuple[Expected, ...]
    overdue: bool
    failed_at: str | None
    reason: str
    began: float
    ended: float | None
    quiet_since: float
    """When it was last heard of, or when its next attempt is due, if that is later."""
    why_stuck: str
    holes: tuple[str, ...]

    @property
    def took(self) -> float | None:
        """Seconds from the first word to the end; None while it moves, or where that was not told."""
        return None if self.ended is None else self.ended - self.began


def judge(story: Story, now: float, *, stuck_after: float = STUCK_AFTER) -> Standing:
    """How a saga that exists stands at this moment (seconds since 1970)."""
    shape = _shape(story.words)
    quiet = max(story.last, story.due)
    overdue = now - quiet > OVERDUE_AFTER
    why = "" if shape.ended else _why_stuck(story, shape, now, now - quiet > stuck_after)
    return Standing(
        phase=shape.ended or (Phase.STUCK if why else Phase.MOVING),
        steps=shape.steps_overdue if overdue else shape.steps,
        backwards=shape.backwards,
        baton=shape.baton,
        expected=tuple([_expected(story, shape, place) for place in (*shape.missing, *shape.notice)]),
        overdue=overdue and shape.ended is None,
        failed_at=None if shape.failed is None else saga.SERVICES[shape.failed],
        reason=story.cause.reason if story.cause and shape.backwards else "",
        began=story.first or 0.0,
        ended=_ended_at(story, shape) if shape.ended else None,
        quiet_since=quiet,
        why_stuck=why,
        holes=shape.holes,
    )


def _why_stuck(story: Story, shape: _Shape, now: float, is_silent: bool) -> str:
    if shape.torn:
        return f"the history contradicts itself: {shape.torn}"
    if shape.parked:
        return f"a message waits for a person among the parked ones of {', '.join(shape.parked)}"
    if is_silent:
        return "nothing more has been heard of it"
    moved = max((time for time in story.times if time is not None), default=story.first or 0.0)
    trouble = story.trouble
    if trouble and trouble.became == Became.RETRY and now - moved > RETRIED_FOR:
        return f"{trouble.service} tries {trouble.type} again and again"
    return ""


def _expected(story: Story, shape: _Shape, place: int) -> Expected:
    step = saga.SAGA[place]
    if shape.pivoted:
        says = step.emits if place == LAST else saga.COMPLETED
        return Expected(step.service, saga.PIVOT.emits, (says,), story.time(_PIVOT, Word.DID))
    if shape.backwards:
        on = saga.ANY_FAILED if shape.failed is None else saga.SAGA[shape.failed].failed
        since = None if shape.failed is None else story.time(shape.failed, Word.FAILED)
        return Expected(step.service, on, (step.compensation or step.emits,), since)
    since = story.time(place - 1, Word.DID) if place else story.first
    return Expected(step.service, step.on, (step.emits, step.failed), since)


def _ended_at(story: Story, shape: _Shape) -> float | None:
    """When the last word that it waited for was told; None if that is lost, or contradicts the other clocks."""
    if shape.pivoted:
        last, words = _PIVOT, [story.time(0, Word.FINISHED)]
    elif not shape.failed:
        last, words = 0, [story.time(0, Word.FAILED)]
    else:
        last = shape.failed - 1
        words = [story.time(place, Word.UNDID) for place in range(shape.failed) if saga.SAGA[place].compensation]
    if any(time is None for time in words):
        return None
    ended = max(time for time in words if time is not None)
    done = [story.time(place, Word.DID) for place in range(last + 1)]
    return None if any(time is not None and time > ended for time in done) else ended


@dataclass(frozen=True, slots=True)
class _Shape:
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
def _shape(words: int) -> _Shape:
    """A million sagas have few shapes: each is thought through once."""
    return _Words([heard(words, place) for place in range(len(saga.SAGA))]).shape()


class _Words:
    """The words heard of each place, and what the saga table makes of them."""

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self._furthest = self._find_furthest()
        self._pivoted = self._furthest >= _PIVOT
        self._backwards = not self._pivoted and any(word & _OVER for word in words)
        self._failed = self._find_failed() if self._backwards else None
        self._torn = self._contradiction()
        self._missing = self._find_missing()

    def shape(self) -> _Shape:
        """The conclusions."""
        has_ended = not self._missing and not self._torn
        ended = None
        if has_ended:
            ended = Phase.COMPLETED if self._pivoted else Phase.UNDONE if self._failed else Phase.FAILED
        going = not (has_ended or self._backwards or self._torn)
        parked = Word.UNDO_PARKED if self._backwards else Word.FINISH_PARKED if self._pivoted else Word.PARKED
        over = self._pivoted or self._backwards
        places = range(len(saga.SAGA))
        return _Shape(
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
