"""The board at work: it follows the history, whatever becomes of the broker, and tells the feed."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from common import topology
from common.history import Record
from ops.board import letters, sections
from ops.board.feed import Feed
from ops.board.scene import Scene
from ops.board.telling import Traces, tell
from ops.board.timelines import Followed, Read, Timelines
from ops.output import CannotLookError
from ops.story.timeline import Timeline

#: Seconds between two looks at the lanes, and at everything else.
FAST = 0.25
SLOW = 1.0
#: A look may take this part of the time; a flood makes looks rarer, not the page slower.
_SHARE = 0.25
_AGAIN = 1.0
#: How far back the reading begins again after a loss: records come late, and clocks differ.
_OVERLAP = timedelta(seconds=30)
_REMEMBERED = 50_000
#: Seconds that records may lie behind before the page says that it is still reading.
_BEHIND = 5.0

#: Follows the history from a moment on: None when the broker answers, then what it holds and what comes. Raises
#: CannotLookError when it cannot, or no more.
Follow = Callable[[datetime], AsyncGenerator[Record | None, None]]
_Key = tuple[str, str, datetime, int, str]


@dataclass(frozen=True, slots=True)
class Places:
    """What the page says and links to: the broker without its login, its management UI, a queue's page there."""

    broker: str
    management: str | None = None
    queue_page: Callable[[str], str | None] = field(default=lambda _: None)
    traces: Traces = field(default=lambda _: None)


class Watch:
    """One board. `run` works until it is cancelled; `story` answers for one saga at any time."""

    def __init__(
        self,
        feed: Feed,
        places: Places,
        follow: Follow,
        read: Read,
        *,
        since: datetime,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.scene = Scene()
        self._feed = feed
        self._places = places
        self._follow = follow
        self._began = since
        self._clock = clock
        self._marks = sections.Marks()
        self._timelines = Timelines(read)
        self._depths: letters.Depths | None = None
        self._why = ""
        self._trouble = ""
        self._answers = False
        self._busy = False
        self._latest = since
        self._taken: deque[_Key] = deque()
        self._known: set[_Key] = set()
        feed.tell("table", sections.table())
        self._tell_status()

    async def run(self) -> None:
        """Follow the history and tell the feed, until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_following())
            group.create_task(self._keep_telling())

    def count_letters(self, depths: letters.Depths | None) -> None:
        """Take note of how many messages wait in each queue; None: nobody could be asked."""
        self._depths = depths

    async def story(self, id_: str) -> dict[str, Any] | None:
        """What the page shows of one saga; None if nothing is known of it. Raises CannotLookError."""
        if held := self.scene.heard(id_):
            followed = Followed(Timeline(id_))
            for record in held:
                followed.hear(record)
            return tell(followed.timeline, followed.story, now=self._clock(), traces=self._places.traces)
        seen = self.scene.known(id_)
        since = None
        if seen is not None:
            since = datetime.fromtimestamp(seen.standing.began, UTC) - _OVERLAP
        followed = await self._timelines.of(id_, since)
        return tell(followed.timeline, followed.story, now=self._clock(), traces=self._places.traces)

    def take(self, record: Record) -> None:
        """Learn from a record, once: after a loss some come again."""
        first = record.entries[0].saga if record.entries else ""
        key = (record.service, record.replica, record.at, len(record.entries), first)
        if key in self._known:
            return
        self._known.add(key)
        self._taken.append(key)
        if len(self._taken) > _REMEMBERED:
            self._known.discard(self._taken.popleft())
        self._busy = True
        self._latest = max(self._latest, min(record.at, datetime.now(UTC)))
        self.scene.take(record, self._clock())
        self._timelines.hear(record)

    async def _keep_following(self) -> None:
        while True:
            try:
                async with aclosing(self._follow(self._latest - _OVERLAP)) as records:
                    async for record in records:
                        self._answers, self._why = True, ""
                        if record is not None:
                            self.take(record)
            except CannotLookError as error:
                self._why = str(error)
                # Who says that the stream is missing has reached the broker.
                self._trouble = "No history" if topology.HISTORY in self._why else "Broker away"
            self._answers = False
            self._tell_status()
            self._timelines.forget()
            await asyncio.sleep(_AGAIN)

    async def _keep_telling(self) -> None:
        slow_at = 0.0
        while True:
            begin = time.monotonic()
            now = self._moment()
            self.scene.look(now)
            self._feed.tell("lanes", self._marks.lanes(self.scene, now))
            if begin - slow_at >= SLOW:
                slow_at = begin
                self._tell_slowly(now)
            await asyncio.sleep(max(FAST, (time.monotonic() - begin) / _SHARE))

    def _moment(self) -> float:
        """Now, or while the history is still being read, where it is read: nothing there is overdue yet."""
        now, latest = self._clock(), self._latest.timestamp()
        return latest if self._busy and now - latest > _BEHIND else now

    def _tell_slowly(self, now: float) -> None:
        scene = self.scene
        parked = {service: lane.parked for service, lane in scene.lanes.items()}
        waiting = letters.section(self._depths, parked, self._places.queue_page)
        self._tell_status()
        self._busy = False
        self._feed.tell("chart", sections.chart(scene, now))
        self._feed.tell("figures", sections.figures(scene, waiting))
        self._feed.tell("groups", sections.groups(scene, now))
        self._feed.tell("failures", sections.failures(scene, self._began.timestamp()))
        self._feed.tell("letters", waiting)

    def _tell_status(self) -> None:
        now = self._clock()
        state, text = self._state(now)
        self._feed.tell(
            "status",
            {
                "state": state,
                "text": text,
                "why": self._why,
                "now": round(now * 1000),
                "began": round(self._began.timestamp() * 1000),
                "broker": self._places.broker,
                "management": self._places.management,
                "sagas": self.scene.count_completed + self.scene.count_failed + len(self.scene.open),
                "entries": self.scene.stories.entries,
                "forgotten": self.scene.forgotten,
            },
        )

    def _state(self, now: float) -> tuple[str, str]:
        if self._why:
            return "away", self._trouble
        if not self._answers:
            return "waiting", "Connecting"
        if self._busy and now - self._latest.timestamp() > _BEHIND:
            return "waiting", "Reading the history"
        return "live", f"Live from {self._places.broker}"
