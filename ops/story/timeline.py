"""All that the history tells of one id, moment by moment: for a person who wants to know what happened.

A moment is an element of a set: told twice it is there once, and in whatever order the records come, the timeline
is the same. Moments stand in the order of the services' clocks; where two clocks differ, so may this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from common import history, saga
from common.history import Became, Record
from common.recovery import Deed

#: Moments of one id that are kept; the rest is counted.
MOST = 10_000
# A bound for durations that anybody may have written: a year.
_LONGEST_MS = 365 * 24 * 60 * 60 * 1000.0


class What(StrEnum):
    """What a moment was, in the words of ARCHITECTURE.md."""

    COMMAND = "command"
    EVENT = "event"
    REPEATED = "repeated"
    RETRY = "retry"
    DEAD_LETTER = "dead letter"
    PARKED = "parked"
    FAILED = "failed"
    COMPENSATION = "compensation"
    CLOSED = "closed"
    NOTICE = "notice"
    IGNORED = "ignored"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """One message and what became of it. `index`: its place in its batch; `took_ms`: what that batch took."""

    at: datetime
    index: int
    service: str
    replica: str
    took_ms: float
    type: str
    became: str
    deed: str
    reason: str
    detail: str
    attempt: int
    delay_ms: int
    waited_ms: int
    said: tuple[tuple[str, str], ...]
    trace: str
    by: str
    why: str

    @property
    def what(self) -> What:
        """What this moment was."""
        if self.service == history.OPERATOR:
            return What.OPERATOR
        if self.became != Became.DONE:
            return _UNFINISHED.get(self.became, What.UNKNOWN)
        if self.deed in {Deed.DID, Deed.ANSWERED}:
            return What.EVENT if saga.is_of_a_saga(self.type) and self.type != saga.FIRST.on else What.COMMAND
        return _DEEDS.get(self.deed, What.UNKNOWN)

    @property
    def attempts(self) -> int:
        """Which attempt this was; 0 where a dead letter was decided, which is no attempt."""
        return 0 if self.deed in {Deed.FAILED, Deed.IGNORED} or self.what is What.OPERATOR else self.attempt


_UNFINISHED: dict[str, What] = {
    Became.RETRY: What.RETRY,
    Became.DEAD: What.DEAD_LETTER,
    Became.PARKED: What.PARKED,
}
_DEEDS: dict[str, What] = {
    Deed.REPEATED: What.REPEATED,
    Deed.UNDID: What.COMPENSATION,
    Deed.CLOSED: What.CLOSED,
    Deed.FAILED: What.FAILED,
    Deed.SENT: What.NOTICE,
    Deed.IGNORED: What.IGNORED,
}


@dataclass(slots=True)
class Timeline:
    """What is told of one id: a saga, or a command beside it."""

    id: str
    left_out: int = 0
    _moments: set[Moment] = field(default_factory=set)

    def __iter__(self) -> Iterator[Moment]:
        return iter(sorted(self._moments))

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, record: Record) -> None:
        """Take from a record what it tells of this id."""
        for index, entry in enumerate(record.entries):
            if entry.saga != self.id:
                continue
            moment = Moment(
                at=record.at,
                index=index,
                service=record.service,
                replica=record.replica,
                took_ms=min(max(record.took_ms, 0.0), _LONGEST_MS),
                type=entry.type,
                became=str(entry.became),
                deed=str(entry.deed),
                reason=entry.reason,
                detail=entry.detail,
                attempt=entry.attempt,
                delay_ms=int(min(entry.delay_ms, _LONGEST_MS)),
                waited_ms=int(min(entry.waited_ms, _LONGEST_MS)),
                said=tuple((type_, trace) for type_, trace in entry.said),
                trace=entry.trace,
                by=entry.by,
                why=entry.why,
            )
            if len(self._moments) < MOST:
                self._moments.add(moment)
            elif moment not in self._moments:
                self.left_out += 1

    @property
    def commands(self) -> list[Moment]:
        """What was told of commands beside the saga that have the same id."""
        return [moment for moment in self if not saga.is_of_a_saga(moment.type)]

    @property
    def why_failed(self) -> tuple[str, str]:
        """Reason and detail of its end, as the service that ended it told, or else another one."""
        told = [moment for moment in self if moment.reason and moment.what in _TELL_WHY]
        told.sort(key=lambda moment: moment.what is not What.FAILED)
        return (told[0].reason, told[0].detail) if told else ("", "")

    @property
    def traces(self) -> list[str]:
        """The ids of its traces, in the order in which they came up."""
        contexts = [context for moment in self for context in (moment.trace, *(trace for _, trace in moment.said))]
        return list(dict.fromkeys(context.split("-")[1] for context in contexts if context.count("-") == 3))


_TELL_WHY = {What.FAILED, What.COMPENSATION, What.CLOSED, What.IGNORED}
