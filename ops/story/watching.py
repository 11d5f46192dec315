"""The live watch: what the newest records changed, how many sagas are at what, and how fast they end.

Pure: records and the time are handed in. It remembers only sagas that move or have just ended, so it can run for
ever beside any load.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from common.history import Record
from ops.story.fold import Stories, fold
from ops.story.judging import judge
from ops.story.standing import Phase, Standing
from ops.story.story import Story

#: Seconds after which a saga that has ended is forgotten: what is told late has come by then.
KEPT_FOR = 30.0
#: Sagas held at most; beyond, those are forgotten first that were silent longest.
MOST = 20_000
#: Ids of forgotten sagas, whose late records would else look like sagas without a beginning.
_MOST_FORGOTTEN = 200_000
#: Seconds over which rates are told.
RATE_OVER = 10


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sagas are shown; without any condition, all."""

    prefix: str = ""
    failed: bool = False
    stuck: bool = False

    def takes(self, story: Story, standing: Standing) -> bool:
        """Whether this saga is shown."""
        if not story.id.startswith(self.prefix):
            return False
        if not self.failed and not self.stuck:
            return True
        return (self.failed and is_failed(standing)) or (self.stuck and standing.phase is Phase.STUCK)


def is_failed(standing: Standing) -> bool:
    """Whether it has failed, be it undone already or not."""
    return standing.backwards or standing.phase in {Phase.UNDONE, Phase.FAILED}


@dataclass(frozen=True, slots=True)
class Seen:
    """A saga and how it stands."""

    story: Story
    standing: Standing


@dataclass(slots=True)
class Watch:
    """What is watched. `take` and `look` give what has changed since one was told before."""

    filter: Filter = field(default_factory=Filter)
    stuck_after: float = 120.0
    stories: Stories = field(default_factory=Stories)
    ended: Counter[Phase] = field(default_factory=Counter)
    """Sagas that ended while this was watched, by how; those that are forgotten included."""
    _told: dict[str, Standing] = field(default_factory=dict)
    _open: dict[str, None] = field(default_factory=dict)
    _forgotten: dict[str, None] = field(default_factory=dict)
    _endings: Counter[int] = field(default_factory=Counter)
    _messages: Counter[int] = field(default_factory=Counter)

    def take(self, record: Record, now: float) -> list[Seen]:
        """Learn from a record; the sagas that are shown and changed by it."""
        second = int(record.at.timestamp())
        self._messages[second] += len(record.entries)
        touched = {story.id: story for story in fold(self.stories, record) if story.id not in self._forgotten}
        return list(self._changes(touched.values(), now))

    def look(self, now: float) -> list[Seen]:
        """Let time pass: what became overdue or stuck meanwhile; and forget what has ended."""
        sagas = self.stories.sagas
        changes = list(self._changes([sagas[id_] for id_ in self._open], now))
        self._forget(now)
        for counter in (self._endings, self._messages):
            for second in [second for second in counter if second < now - 2 * RATE_OVER]:
                del counter[second]
        return changes

    def shown(self, now: float, most: int) -> list[Seen]:
        """Up to so many sagas: first those that need a person, then those that move, then the latest."""
        sagas = self.stories.sagas
        known = ((sagas[id_], standing) for id_, standing in self._told.items() if id_ in sagas)
        taken = (pair for pair in known if self.filter.takes(*pair))
        first = heapq.nsmallest(most, taken, key=urgency)
        return [Seen(story, judge(story, now, stuck_after=self.stuck_after)) for story, _ in first]

    def counts(self) -> Counter[Phase]:
        """How many sagas are at what; those that ended since the watch began are all counted."""
        told: Counter[Phase] = Counter(self.ended)
        told.update(self._told[id_].phase for id_ in self._open)
        return told

    def rates(self, now: float) -> tuple[float, float]:
        """Sagas that ended, and messages that were handled, a second, over the last `RATE_OVER` seconds."""
        recent = range(int(now) - RATE_OVER, int(now))
        ended, messages = (
            sum(counter[second] for second in recent) / RATE_OVER for counter in (self._endings, self._messages)
        )
        return ended, messages

    def _changes(self, stories: Iterable[Story], now: float) -> Iterator[Seen]:
        for story in stories:
            if not story.exists:
                continue
            standing = judge(story, now, stuck_after=self.stuck_after)
            before = self._told.get(story.id)
            self._told[story.id] = standing
            if before and (before.phase, before.steps) == (standing.phase, standing.steps):
                continue
            self._count(story, standing, before)
            if self.filter.takes(story, standing):
                yield Seen(story, standing)

    def _count(self, story: Story, standing: Standing, before: Standing | None) -> None:
        had_ended = before is not None and before.phase.ended
        if before is not None and had_ended:
            self.ended[before.phase] -= 1
        if not standing.phase.ended:
            self._open[story.id] = None
            return
        self.ended[standing.phase] += 1
        self._open.pop(story.id, None)
        if not had_ended:
            self._endings[int(standing.ended or story.last)] += 1

    def _forget(self, now: float) -> None:
        """Drop what has ended and is quiet, and, beyond the bound, what was silent longest."""
        sagas = self.stories.sagas
        gone = [id_ for id_, it in sagas.items() if id_ not in self._open and it.last < now - KEPT_FOR]
        if len(sagas) - len(gone) > MOST:
            by_silence = sorted(sagas, key=lambda id_: sagas[id_].last)
            gone = list({*gone, *by_silence[: len(sagas) - MOST]})
        for id_ in gone:
            del sagas[id_]
            self._open.pop(id_, None)
            self._told.pop(id_, None)
            self._forgotten[id_] = None
        while len(self._forgotten) > _MOST_FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]


_URGENCY = {Phase.STUCK: 0, Phase.MOVING: 1, Phase.UNDONE: 2, Phase.FAILED: 2, Phase.COMPLETED: 2}


def urgency(pair: tuple[Story, Standing]) -> tuple[int, bool, float]:
    """To sort by: first what needs a person, then what moves, then the latest."""
    story, standing = pair
    return _URGENCY[standing.phase], not standing.overdue, -story.last
