"""The dead letter by which an operator ends a saga: whom it may be given to, and what is in it. Pure.

It is a copy of the message for which the holder of the baton is to do its part, dead before its time. The service
decides about it as about any other: if it has done its part meanwhile, nothing happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from common import history, messages, recovery, saga
from common.history import OPERATOR, REPLICA, Entry, Record
from common.messages import Body, ForwardEvent, Malformed, Pay, printable
from ops.acting.command import SlipError, write
from ops.story.standing import Phase, Standing, StepState

#: The reason that everybody is told.
ABORTED = saga.ABORTED
#: What the user is told, too: who it was, and why, is for the history alone.
_DETAIL = "an operator stopped it"
#: The act, as the history tells it.
ACT = "abort"
#: What it tells of one that was put on record and then did not happen.
IN_VAIN = "not aborted"

#: Who tells.
DATABASES = "the databases"
HISTORY = "the records of the history"

_PIVOT = saga.SERVICES.index(saga.PIVOT.service)
_BEFORE_THE_PIVOT = saga.SERVICES[: _PIVOT + 1]
_OVER = {"failed", "undone", "closed"}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the baton; or, `service` None, why nobody can be given a letter.

    `told_by`: who says so. `unheard`: whoever was asked knows no such saga, which then may wait anywhere.
    """

    service: str | None
    why: str = ""
    told_by: str = ""
    unheard: bool = False


def unheard_by(saga_id: str, told_by: str) -> Holder:
    """Nobody holds a baton that anybody has heard of."""
    first = saga.FIRST
    why = (
        f"{told_by} know nothing of {saga_id}. If its {first.on} waits at {first.service}, say "
        f"--service {first.service}, and the payment's fields"
    )
    return Holder(None, why, told_by, unheard=True)


def holder_by_rows(saga_id: str, states: Mapping[str, str | None], payment: str | None = None) -> Holder:
    """Who holds the baton by what the five services have written down; `payment`: that of the payment itself.

    Rows of sagas are forgotten one day, payments are not.
    """
    told_by = DATABASES
    if states[saga.PIVOT.service] == "done" or "settled" in states.values() or payment == "COMPLETED":
        return Holder(None, _past_the_pivot(saga_id), told_by)
    if payment == "CANCELLED" and not any(states.values()):
        return Holder(None, _over(saga_id, None, ""), told_by)
    over = [service for service in saga.SERVICES if states[service] in _OVER]
    if over:
        failed = next((service for service in over if states[service] == "failed"), None)
        return Holder(None, _over(saga_id, failed, ""), told_by)
    if not any(states.values()):
        return unheard_by(saga_id, told_by)
    return Holder(next(service for service in saga.SERVICES if states[service] is None), told_by=told_by)


def holder_by_history(saga_id: str, standing: Standing) -> Holder:
    """Who holds the baton by what the history tells."""
    told_by = HISTORY
    if standing.steps[_PIVOT] is StepState.DONE or standing.phase is Phase.COMPLETED:
        return Holder(None, _past_the_pivot(saga_id), told_by)
    if standing.baton in _BEFORE_THE_PIVOT:
        return Holder(standing.baton, told_by=told_by)
    if standing.backwards or standing.phase in {Phase.UNDONE, Phase.FAILED}:
        return Holder(None, _over(saga_id, standing.failed_at, standing.reason), told_by)
    untold = f"The history does not tell who holds the baton of {saga_id}"
    return Holder(None, f"{untold}: {standing.why_stuck}", told_by)


def choose(found: Holder | None, wished: str | None) -> Holder:
    """The service that is given the letter: the one that was found, which a wish must not contradict."""
    if wished is not None and wished not in _BEFORE_THE_PIVOT:
        after = f"{wished} comes after the pivot, from where a saga only goes forward"
        return Holder(None, after if wished in saga.SERVICES else f"there is no service {wished}")
    if wished is not None and (found is None or found.unheard):
        return Holder(wished, told_by="you")
    if found is None:
        return Holder(None, "nobody can be asked who holds the baton; if you know it, say --service")
    if found.service is not None and wished not in {None, found.service}:
        return Holder(None, f"by {found.told_by}, {found.service} holds the baton, not {wished}", found.told_by)
    return found


def _past_the_pivot(saga_id: str) -> str:
    return (
        f"{saga_id} is past its pivot: {saga.PIVOT.emits} was said, and from there a saga only goes forward. "
        "A refund is a new business"
    )


def _over(saga_id: str, failed: str | None, reason: str) -> str:
    where = f" in {failed}" if failed else ""
    return f"{saga_id} is over already: it failed{where}" + (f" ({reason})" if reason else "")


def made_up(service: str, fields: Mapping[str, str | int | None], now: datetime) -> bytes:
    """The message for which a service is to do its part, from the fields of the payment; raises SlipError.

    Of an event only whose payment it is will ever be read, so its moments are made up.
    """
    step = saga.step_of(service)
    pay = write(saga.FIRST.on, fields)
    if step is saga.FIRST:
        return pay.model_dump_json(exclude_none=True).encode()
    moments = {
        name: now.isoformat()
        for name, field in messages.TYPES[step.on].model_fields.items()
        if name.endswith("_at")
    }
    event = write(step.on, moments | pay.model_dump(mode="json", exclude_none=True))
    return event.encode().encode()


def read_forward(service: str, body: bytes) -> Body:
    """The message that is to be the letter; raises SlipError for what is none."""
    step = saga.step_of(service)
    try:
        content = messages.decode(step.on, body)
    except Malformed as error:
        raise SlipError(f"this is no {step.on}: {error.detail}") from None
    assert isinstance(content, Pay | ForwardEvent)
    return content


@dataclass(frozen=True, slots=True)
class Act:
    """One abortion: of which saga, by a letter to which service, by whom, why, on which trace, when."""

    saga_id: str
    service: str
    by: str
    why: str
    trace: str
    attempts: int
    at: datetime

    def headers(self) -> dict[str, str | int]:
        """What is written on the letter: the same as a service writes on its own (see `common.recovery`)."""
        return {
            "traceparent": self.trace,
            recovery.TYPE: saga.step_of(self.service).on,
            recovery.ATTEMPT: self.attempts,
            recovery.REASON: ABORTED,
            recovery.DETAIL: _DETAIL,
            recovery.FIRST_FAILED_AT: self.at.isoformat(),
            recovery.FAILED_IN: OPERATOR,
        }

    def record(self, *, in_vain: bool = False) -> bytes:
        """What the history is told before the letter is sent; `in_vain`: once it could not be sent."""
        entry = Entry(
            saga=self.saga_id,
            type=IN_VAIN if in_vain else ACT,
            reason=ABORTED,
            detail=f"a dead letter for {self.service}",
            trace=self.trace,
            by=printable(self.by),
            why=printable(self.why),
        )
        return history.encode(Record(service=OPERATOR, replica=REPLICA, at=self.at, took_ms=0.0, entries=[entry]))
