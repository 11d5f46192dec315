"""What the board knows: every saga that is under way, the last of those that ended, and how fast it all goes.

It holds a bounded number of sagas however many there are, and counts those that it has let go.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from common import saga
from common.history import Became, Record
from common.recovery import Deed
from ops.board.rates import Rate
from ops.story.fold import Stories, fold
from ops.story.judging import judge
from ops.story.standing import Phase, Standing
from ops.story.story import Story

#: Seconds of the chart.
MINUTES = 300
#: Sagas under way that are held; of more, the oldest are let go.
MOST_OPEN = 10_000
#: Ended sagas that are held, of each kind.
MOST_ENDED = 1_000
#: Records of one saga that are held: the first ones, and the last.
MOST_HEARD, FIRST_HEARD = 60, 20
#: Seconds after its end for which a saga is news.
FRESH = 5.0
#: Ids of sagas that were let go, so that a late word does not bring one back as if it had just begun.
MOST_GONE = 100_000
#: Kinds of failure that are told apart.
MOST_REASONS = 200
#: Open sagas that are judged anew in one look although nothing was told of them: time alone makes them stuck.
_AT_ONCE = 2_000
_SMOOTH = 0.2
_STEPS = {step.service: step.on for step in saga.SAGA}


@dataclass(frozen=True, slots=True)
class Seen:
    """One saga as it stood when it was last judged."""

    story: Story
    standing: Standing


@dataclass(slots=True)
class Lane:
    """How a service works."""

    rate: Rate
    batch_ms: float | None = None
    parked: int = 0


class Scene:
    """Takes records as they come, and knows how everything stands whenever it is looked at."""

    def __init__(self) -> None:
        self.open: dict[str, Seen] = {}
        self.completed: deque[Seen] = deque(maxlen=MOST_ENDED)
        self.failed: deque[Seen] = deque(maxlen=MOST_ENDED)
        self.just_ended: list[Seen] = []
        """Those that ended between the last two looks."""
        self.reasons: Counter[tuple[str, str]] = Counter()
        self.lanes = {service: Lane(Rate(MINUTES)) for service in saga.SERVICES}
        self.begun, self.completions, self.failures = Rate(MINUTES), Rate(MINUTES), Rate(MINUTES)
        self.count_completed = self.count_failed = self.count_undone = self.forgotten = 0
        self.stories = Stories()
        self._told: dict[str, Story] = {}
        self._heard: dict[str, list[Record]] = {}
        self._ended: set[str] = set()
        self._gone: dict[str, None] = {}
        self._turn = 0

    def take(self, record: Record, now: float) -> None:
        """Learn from a record. Times are in seconds since 1970."""
        lane = self.lanes.get(record.service)
        if lane is not None:
            self._work(lane, record, now)
        for story in fold(self.stories, record):
            if story.id in self._gone or not story.exists:
                self.stories.sagas.pop(story.id, None)
            else:
                if story.id not in self._told and story.id not in self.open and story.id not in self._ended:
                    self.begun.add(story.first or now, now=now)
                self._told[story.id] = story
        for entry in record.entries:
            if entry.saga in self.stories.sagas:
                heard = self._heard.setdefault(entry.saga, [])
                # Without its neighbours: a batch would be held as long as its longest saga.
                heard.append(replace(record, entries=[entry]))
                if len(heard) > MOST_HEARD:
                    del heard[FIRST_HEARD]

    def look(self, now: float) -> None:
        """Conclude how every saga stands that was told of, and in turn some of those that were not."""
        self.just_ended = []
        told, self._told = self._told, {}
        for story in told.values():
            self._judge(story, now)
        for id_ in self._some_open():
            if id_ not in told:
                self._judge(self.open[id_].story, now)
        while len(self.open) > MOST_OPEN:
            self._let_go(next(iter(self.open)))
            self.forgotten += 1

    def known(self, id_: str) -> Seen | None:
        """One saga, if it is held."""
        return self.open.get(id_) or next(
            (seen for seen in (*self.completed, *self.failed) if seen.story.id == id_), None
        )

    def heard(self, id_: str) -> list[Record]:
        """What was told of a saga that is held, if from its beginning; else nothing."""
        heard = self._heard.get(id_, [])
        began = any(entry.type == saga.FIRST.on for record in heard for entry in record.entries)
        return list(heard) if began else []

    @property
    def typical_ms(self) -> float | None:
        """The median of what the last completed sagas took, in milliseconds."""
        took = [seen.standing.took for seen in self.completed if seen.standing.took is not None]
        return 1000 * statistics.median(took) if took else None

    def _work(self, lane: Lane, record: Record, now: float) -> None:
        at, trigger = record.at.timestamp(), _STEPS[record.service]
        handled = sum(entry.type == trigger and entry.deed in {Deed.DID, Deed.FAILED} for entry in record.entries)
        if handled:
            lane.rate.add(at, handled, now=now)
            before = record.took_ms if lane.batch_ms is None else lane.batch_ms
            lane.batch_ms = before + _SMOOTH * (record.took_ms - before)
        lane.parked += sum(entry.became == Became.PARKED for entry in record.entries)

    def _judge(self, story: Story, now: float) -> None:
        standing = judge(story, now)
        seen = Seen(story, standing)
        if story.id in self._ended:
            return
        if not standing.phase.ended:
            self.open[story.id] = seen
            return
        self.open.pop(story.id, None)
        self._ended.add(story.id)
        at = standing.ended or story.last
        if now - at < FRESH:
            self.just_ended.append(seen)
        if standing.phase is Phase.COMPLETED:
            self.count_completed += 1
            self.completions.add(at, now=now)
            self._keep(self.completed, seen)
            return
        self.count_failed += 1
        self.count_undone += standing.phase is Phase.UNDONE
        self.failures.add(at, now=now)
        cause = (standing.failed_at or "somewhere", standing.reason or "unknown")
        if cause in self.reasons or len(self.reasons) < MOST_REASONS:
            self.reasons[cause] += 1
        self._keep(self.failed, seen)

    def _keep(self, ended: deque[Seen], seen: Seen) -> None:
        if len(ended) == ended.maxlen:
            self._let_go(ended[0].story.id)
        ended.append(seen)

    def _let_go(self, id_: str) -> None:
        self.open.pop(id_, None)
        self.stories.sagas.pop(id_, None)
        self._heard.pop(id_, None)
        self._ended.discard(id_)
        self._gone[id_] = None
        if len(self._gone) > MOST_GONE:
            del self._gone[next(iter(self._gone))]

    def _some_open(self) -> Iterator[str]:
        """The next of the open sagas, round and round."""
        begin = self._turn if self._turn < len(self.open) else 0
        self._turn = begin + _AT_ONCE
        return iter(list(islice(self.open, begin, begin + _AT_ONCE)))
