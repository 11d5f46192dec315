"""Records as the services tell them, without services: whole sagas with the times of each step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common import saga
from common.history import NOTICE, Became, Entry, Record

BEGIN = datetime(2026, 11, 22, 12, tzinfo=UTC)
TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
_SENT = saga.SAGA[-1].emits


def after(seconds: float, begin: datetime = BEGIN) -> datetime:
    """So many seconds after the beginning."""
    return begin + timedelta(seconds=seconds)


def told(service: str, at: datetime, *entries: Entry, took_ms: float = 4.0) -> Record:
    """What one batch of a service is told as."""
    return Record(service=service, replica=f"{service}-1", at=at, took_ms=took_ms, entries=list(entries))


def did(id_: str, service: str) -> Entry:
    """A service did its part."""
    step = saga.step_of(service)
    return Entry(saga=id_, type=step.on, deed="did", said=[(step.emits, _PARENT)], trace=_PARENT)


def steps(
    id_: str, until: str = saga.SERVICES[-1], *, begin: datetime = BEGIN, pace: float = 0.05
) -> list[Record]:
    """The way of a saga from the first step to this one, each `pace` seconds after the one before."""
    place = saga.SERVICES.index(until)
    return [
        told(step.service, after(pace * (at + 1), begin), did(id_, step.service))
        for at, step in enumerate(saga.SAGA[: place + 1])
    ]


def completed(id_: str, *, begin: datetime = BEGIN, pace: float = 0.05) -> list[Record]:
    """A whole saga that goes well."""
    ways = steps(id_, begin=begin, pace=pace)
    said = [(saga.COMPLETED, _PARENT)]
    end = after(pace * (len(ways) + 1), begin)
    # Notify does its part when it notes the notice down; it says so when the notice is delivered.
    ways[-1].entries[0].said = ()
    return [
        *ways,
        told(
            saga.FIRST.service, end, Entry(saga=id_, type=saga.PIVOT.emits, deed="did", said=said, trace=_PARENT)
        ),
        told(
            saga.SERVICES[-1],
            after(0.01, end),
            Entry(saga=id_, type=NOTICE, deed="sent", said=[(_SENT, _PARENT)], trace=_PARENT),
        ),
    ]


def refused(
    id_: str, at: str, reason: str, detail: str = "", *, begin: datetime = BEGIN, pace: float = 0.05
) -> list[Record]:
    """A whole saga that is refused at a step, and taken back by all before it."""
    place = saga.SERVICES.index(at)
    ways = steps(id_, saga.SERVICES[place - 1], begin=begin, pace=pace) if place else []
    now = after(pace * (place + 1), begin)
    failed = saga.failed(at)
    trigger = saga.step_of(at).on
    refusal = Entry(saga=id_, type=trigger, became=Became.DEAD, reason=reason, detail=detail, trace=_PARENT)
    ended = Entry(
        saga=id_,
        type=trigger,
        deed="failed",
        reason=reason,
        detail=detail,
        said=[(failed, _PARENT)],
        trace=_PARENT,
    )
    ways += [told(at, now, refusal), told(at, after(pace / 2, now), ended)]
    now = after(pace, now)
    for back, step in enumerate(reversed(saga.SAGA[:place])):
        assert step.compensation
        undone = Entry(
            saga=id_,
            type=failed,
            deed="undid",
            reason=reason,
            detail=detail,
            said=[(step.compensation, _PARENT)],
            trace=_PARENT,
        )
        ways.append(told(step.service, after(pace * (back + 1), now), undone))
    end = after(pace * (place + 1), now)
    for step in saga.SAGA[place + 1 :]:
        closed = Entry(saga=id_, type=failed, deed="closed", reason=reason, detail=detail, trace=_PARENT)
        ways.append(told(step.service, end, closed))
    notice = Entry(saga=id_, type=NOTICE, deed="sent", said=[(_SENT, _PARENT)], trace=_PARENT)
    return [*ways, told(saga.SERVICES[-1], after(0.01, end), notice)]


def retried(
    id_: str, service: str, *, at: datetime, delay_ms: int, attempt: int = 1, reason: str = "OSError"
) -> Record:
    """A service could not do its part yet."""
    trigger = saga.step_of(service).on
    entry = Entry(
        saga=id_,
        type=trigger,
        became=Became.RETRY,
        reason=reason,
        detail="disk I/O error",
        attempt=attempt,
        delay_ms=delay_ms,
        trace=_PARENT,
    )
    return told(service, at, entry)


def parked(id_: str, service: str, *, at: datetime, reason: str = "malformed") -> Record:
    """A message that only a person can decide."""
    trigger = saga.step_of(service).on
    return told(service, at, Entry(saga=id_, type=trigger, became=Became.PARKED, reason=reason, detail="no JSON"))
