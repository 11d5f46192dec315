"""What can be said of a saga: its phase, its steps, whose word comes next, and what nobody told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
