"""The timelines of the sagas that somebody has opened: read from the stream once, then heard as they go on.

Only what is looked at is held. Reading the stream for one saga is dear, so few read at a time, and not for ever.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from common.history import Record
from ops.output import CannotLookError
from ops.story.fold import Stories, fold
from ops.story.story import Story
from ops.story.timeline import Timeline

#: Sagas that are followed; the one that nobody has asked for the longest goes.
MOST_FOLLOWED = 32
_READERS = 2
_SECONDS = 30.0

#: Reads the records that may mention an id, from a moment on.
Read = Callable[[str, datetime | None], AsyncGenerator[Record, None]]


@dataclass(slots=True)
class Followed:
    """What was heard of one saga."""

    timeline: Timeline
    _stories: Stories = field(default_factory=Stories)

    @property
    def story(self) -> Story | None:
        """What follows for its steps; None for what is no saga."""
        return self._stories.sagas.get(self.timeline.id)

    def hear(self, record: Record) -> None:
        """Take what a record tells of it. Told twice is told once."""
        mine = [entry for entry in record.entries if entry.saga == self.timeline.id]
        if mine:
            self.timeline.add(record)
            fold(self._stories, dataclasses.replace(record, entries=mine))


class Timelines:
    """What was heard of each saga that is followed."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._readers = asyncio.Semaphore(_READERS)
        self._followed: dict[str, Followed] = {}
        self._reading: dict[str, Followed] = {}

    async def of(self, id_: str, since: datetime | None) -> Followed:
        """All that is told of a saga, from a moment on if it was not followed before; raises CannotLookError."""
        if id_ in self._followed:
            # Asked for just now, so the last to go.
            self._followed[id_] = self._followed.pop(id_)
            return self._followed[id_]
        async with self._readers:
            # It is heard from now on: nothing falls between what is read and what comes.
            followed = self._reading[id_] = Followed(Timeline(id_))
            try:
                async with asyncio.timeout(_SECONDS), aclosing(self._read(id_, since)) as records:
                    async for record in records:
                        followed.hear(record)
            except TimeoutError:
                raise CannotLookError(
                    f"The history is too long to be read here; `saga show {id_}` takes its time."
                ) from None
            finally:
                self._reading.pop(id_, None)
        if len(followed.timeline):
            self._followed[id_] = followed
        while len(self._followed) > MOST_FOLLOWED:
            del self._followed[next(iter(self._followed))]
        return followed

    def hear(self, record: Record) -> None:
        """Let a record be heard by those that it may tell of."""
        if self._followed or self._reading:
            for id_ in {entry.saga for entry in record.entries}:
                for held in (self._followed, self._reading):
                    if id_ in held:
                        held[id_].hear(record)

    def forget(self) -> None:
        """Read everything anew when it is asked for again: something may have been missed."""
        self._followed.clear()
