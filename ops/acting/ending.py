"""What became of a command, as its events tell it: pure, fed one event after another.

A payment is completed when `payment.completed` is heard. A failed one is over only when every step before the
failure is undone. Of a payment that failed long ago only the failure is repeated, not the compensations: that is
told by a failure under the routing key of another service than the one that failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from common import saga
from common.messages import Body, Failed, Rejected


class Ending(StrEnum):
    """How a command ended."""

    COMPLETED = "completed"
    ANSWERED = "answered"
    FAILED = "failed"
    """The saga failed, and what had been done before is undone."""
    REJECTED = "rejected"
    UNDER_WAY = "under way"
    """Nobody has told the end yet."""

    @property
    def is_good(self) -> bool:
        """Whether what was asked for is done."""
        return self in {Ending.COMPLETED, Ending.ANSWERED}


@dataclass(slots=True)
class Outcome:
    """What was heard of one command so far."""

    id: str
    heard: list[str] = field(default_factory=list)
    answer: Body | None = None
    failed: Failed | None = None
    _repeated: bool = False

    def hear(self, type_: str, body: Body) -> bool:
        """Take note of an event; whether it was about this command."""
        if body.key != self.id:
            return False
        self.heard.append(type_)
        match body:
            case Failed() if self.failed is None:
                self.failed = body
                self._repeated = type_ != saga.failed(body.service)
            case Rejected():
                self.answer = body
            case _ if type_ in _ANSWERS:
                self.answer = body
        return True

    @property
    def to_undo(self) -> tuple[str, ...]:
        """The services that have done their part and not yet said that they undid it."""
        if self.failed is None or self._repeated:
            return ()
        place = saga.SERVICES.index(self.failed.service) if self.failed.service in saga.SERVICES else 0
        return tuple(
            step.service for step in saga.SAGA[:place] if step.compensation and step.compensation not in self.heard
        )

    @property
    def undone(self) -> tuple[str, ...]:
        """The services that said that they undid their part."""
        return tuple(step.service for step in saga.SAGA if step.compensation in self.heard)

    @property
    def ending(self) -> Ending:
        """How it ended, if it has."""
        if isinstance(self.answer, Rejected):
            return Ending.REJECTED
        if saga.COMPLETED in self.heard:
            return Ending.COMPLETED
        if self.answer is not None:
            return Ending.ANSWERED
        return Ending.FAILED if self.failed and not self.to_undo else Ending.UNDER_WAY

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be waited for."""
        return self.ending is not Ending.UNDER_WAY


def told_by(type_: str) -> tuple[str, ...]:
    """The routing keys under which the end of a command of this type is told.

    Never an event that only the next step waits for: a queue of ours bound to it would hide from the broker that
    the service's own is missing, and the event would be confirmed and gone.
    """
    if type_ == saga.FIRST.on:
        return tuple(_of_the_saga())
    command = next(command for command in saga.COMMANDS if command.on == type_)
    return (command.answer, saga.rejected(command.service))


def _of_the_saga() -> Iterable[str]:
    for step in saga.SAGA:
        if step.refusals:
            yield step.failed
        if step.compensation:
            yield step.compensation
    yield saga.COMPLETED
    yield saga.rejected(saga.FIRST.service)


_ANSWERS = {command.answer for command in saga.COMMANDS}
