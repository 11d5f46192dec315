"""What the history tells of one saga: how it stands, why it failed, and on which trace each message went round."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime

from common.history import Became, Entry, Record
from common.recovery import Deed
from common.telemetry import valid_traceparent
from ops.output import waiting
from ops.story.fold import Stories, fold
from ops.story.judging import judge
from ops.story.searching import search
from ops.story.standing import Standing


@dataclass(slots=True)
class Past:
    """One saga in the history, record by record."""

    id: str
    detail: str = ""
    """Why it failed, for people."""
    _stories: Stories = field(default_factory=Stories)
    _attempts: dict[str, int] = field(default_factory=dict)
    _traces: dict[str, str] = field(default_factory=dict)

    def learn(self, record: Record) -> None:
        """Take note of what a record tells of this saga."""
        fold(self._stories, record)
        for entry in record.entries:
            if entry.saga == self.id:
                self._learn(record.service, entry)

    def _learn(self, service: str, entry: Entry) -> None:
        for type_, trace in ((entry.type, entry.trace), *entry.said):
            if valid_traceparent(trace):
                self._traces[type_] = trace
        if entry.became == Became.RETRY:
            self._attempts[service] = max(entry.attempt, self.attempts(service))
        if entry.deed == Deed.FAILED:
            self.detail = entry.detail

    def trace(self, type_: str) -> str:
        """The trace context of the message of this type; empty: nobody told."""
        return self._traces.get(type_, "")

    def attempts(self, service: str) -> int:
        """How often a service tried something of this saga in vain."""
        return self._attempts.get(service, 0)

    def standing(self, now: float | None = None) -> Standing | None:
        """How it stands; None if no service has told anything of it."""
        story = self._stories.sagas.get(self.id)
        return judge(story, time.time() if now is None else now) if story and story.exists else None


async def past_of(saga_id: str, *, since: datetime | None = None) -> Past:
    """Read the history for one saga; raises CannotLookError where there is none."""
    past = Past(saga_id)
    with waiting("reading the history") as show:
        found = await search(
            saga_id, since=since, progress=lambda count: show(f"reading the history: {count:,} messages")
        )
    for record in found.records:
        past.learn(record)
    return past
