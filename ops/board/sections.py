"""What the page is told, section by section, ready for JSON, and never more than it can show."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from common import saga
from common.history import Became
from ops.board.scene import MINUTES, Scene, Seen
from ops.story.standing import Phase, Standing
from ops.story.story import LAST, PLACES
from ops.story.telling import span

#: Rows of each list, marks of each kind in each lane, marks of sagas that have just ended.
ROWS = 60
MARKS = 40
JUST_ENDED = 40
REASONS = 6
#: Of the latest, rows for what is stuck and for what is under way; the others have ended.
_FIRST = 15
#: Seconds over which "a second" is averaged.
_AVERAGE = 5
_PIVOT = PLACES[saga.PIVOT.service]


def table() -> dict[str, Any]:
    """The lanes: the saga table, as the page needs it."""
    return {
        "steps": [
            {
                "service": step.service,
                "on": step.on,
                "emits": step.emits,
                "undoes": step.compensation,
                "pivot": step.pivot,
                "after_pivot": place > _PIVOT,
            }
            for place, step in enumerate(saga.SAGA)
        ]
    }


def place_of(standing: Standing) -> int:
    """The lane in which a saga stands: whose word it waits for, on the way back the last that is still to undo."""
    if standing.backwards:
        undoing = [PLACES[it.service] for it in standing.expected if PLACES[it.service] != LAST]
        return max(undoing, default=0)
    if standing.phase is Phase.COMPLETED:
        return LAST
    place = PLACES[standing.baton] if standing.baton else 0
    # Past the pivot the first service is the one that completes; for who looks on, the saga has gone through.
    past = any(it.on == saga.PIVOT.emits for it in standing.expected)
    return LAST if past else place


def kind_of(seen: Seen, now: float) -> str:
    """What a saga's mark looks like."""
    if seen.standing.phase is Phase.STUCK:
        return "stuck"
    if seen.standing.backwards:
        return "back"
    return "retry" if _is_waiting(seen, now) else "forward"


def _is_waiting(seen: Seen, now: float) -> bool:
    trouble = seen.story.trouble
    return trouble is not None and trouble.became == Became.RETRY and seen.standing.quiet_since > now


class Marks:
    """Which sagas are shown as marks. It remembers which were, so that their ends are told rather than others'."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def lanes(self, scene: Scene, now: float) -> dict[str, Any]:
        """How many sagas stand in each lane, the oldest of them by name, and some that have just ended."""
        counts = [dict.fromkeys(("forward", "retry", "stuck", "back"), 0) for _ in saga.SERVICES]
        dots = []
        for id_, seen in scene.open.items():
            place, kind = place_of(seen.standing), kind_of(seen, now)
            counts[place][kind] += 1
            if counts[place][kind] <= MARKS:
                dots.append((id_, place, kind, _failed_at(seen.standing)))
        ended = list(islice(self._ends(scene.just_ended), JUST_ENDED))
        self._shown = {id_ for id_, *_ in dots}
        lanes = [
            {
                "here": sum(at.values()) - at["back"],
                "back": at["back"],
                "retry": at["retry"],
                "stuck": at["stuck"],
                "rate": round(lane.rate.mean(_AVERAGE, now=now), 1),
                "ms": None if lane.batch_ms is None else round(lane.batch_ms, 1),
            }
            for at, lane in zip(counts, scene.lanes.values(), strict=True)
        ]
        return {
            "lanes": lanes,
            "dots": dots,
            "ended": ended,
            "new": round(scene.begun.mean(_AVERAGE, now=now), 1),
            "completed": scene.count_completed,
            "undone": scene.count_undone,
        }

    def _ends(self, ended: Sequence[Seen]) -> Iterator[tuple[str, int, str]]:
        # First those whose marks are there; then what failed, which is rarer than what went well.
        for seen in sorted(
            ended, key=lambda it: (it.story.id not in self._shown, it.standing.phase is Phase.COMPLETED)
        ):
            place = LAST if seen.standing.phase is Phase.COMPLETED else _failed_at(seen.standing)
            yield seen.story.id, place, seen.standing.phase.value


def _failed_at(standing: Standing) -> int:
    return PLACES[standing.failed_at] if standing.failed_at else 0


def chart(scene: Scene, now: float) -> dict[str, Any]:
    """The last minutes, second by second."""
    return {
        "completed": scene.completions.last(MINUTES - 1, now=now),
        "failed": scene.failures.last(MINUTES - 1, now=now),
        "average": round(scene.completions.mean(_AVERAGE, now=now), 1),
        "until": round(now * 1000),
    }


def figures(scene: Scene, letters: dict[str, Any]) -> dict[str, Any]:
    """The large numbers."""
    stuck = sum(seen.standing.phase is Phase.STUCK for seen in scene.open.values())
    return {
        "under_way": len(scene.open) - stuck,
        "stuck": stuck,
        "failed": scene.count_failed,
        "parked": _total(letters, "parked"),
        "dead": _total(letters, "dead"),
        "median": None if scene.typical_ms is None else round(scene.typical_ms, 1),
    }


def _total(letters: dict[str, Any], kind: str) -> int | None:
    known = [row[kind] for row in letters["rows"] if row[kind] is not None]
    return sum(known) if known else None


def groups(scene: Scene, now: float) -> dict[str, Any]:
    """The lists: the oldest of what is open, the latest of what has ended."""
    stuck = [seen for seen in scene.open.values() if seen.standing.phase is Phase.STUCK]
    moving = [seen for seen in scene.open.values() if seen.standing.phase is not Phase.STUCK]
    latest = heapq.merge(
        reversed(scene.completed), reversed(scene.failed), key=lambda seen: seen.story.last, reverse=True
    )
    return {
        "latest": {
            "count": scene.count_completed + scene.count_failed + len(scene.open),
            "rows": _rows(chain(stuck[:_FIRST], moving[:_FIRST], latest), now),
        },
        "under_way": {"count": len(moving), "rows": _rows(moving, now)},
        "stuck": {"count": len(stuck), "rows": _rows(stuck, now)},
        "failed": {"count": scene.count_failed, "rows": _rows(reversed(scene.failed), now)},
        "completed": {"count": scene.count_completed, "rows": _rows(reversed(scene.completed), now)},
    }


def _rows(listed: Iterable[Seen], now: float) -> list[dict[str, Any]]:
    return [row(seen, now) for seen in islice(listed, ROWS)]


def row(seen: Seen, now: float) -> dict[str, Any]:
    """One saga in a list. `since`: milliseconds since 1970; `took`: milliseconds."""
    standing = seen.standing
    ended = standing.phase.ended
    tag, tone, what = _words(seen, now)
    since = (standing.ended or seen.story.last) if ended else standing.began
    return {
        "id": seen.story.id,
        "at": standing.failed_at or saga.SERVICES[place_of(standing)],
        "tag": tag,
        "tone": tone,
        "what": what,
        "since": round(since * 1000),
        "ended": ended,
        "took": None if standing.took is None else round(standing.took * 1000, 1),
    }


def _words(seen: Seen, now: float) -> tuple[str, str, str]:
    """A word for a saga's state, its tone, and what else there is to say in a row."""
    standing, trouble = seen.standing, seen.story.trouble
    why = f"{standing.failed_at or 'somewhere'}: {spaced(standing.reason) or 'reason unknown'}"
    match standing.phase:
        case Phase.COMPLETED:
            return "completed", "good", "" if standing.took is None else f"in {span(standing.took)}"
        case Phase.UNDONE:
            return "undone", "back", why
        case Phase.FAILED:
            return "refused", "bad", why
        case Phase.STUCK:
            return "stuck", "bad", standing.why_stuck
        case Phase.MOVING:
            pass
    if standing.backwards:
        left = [it.service for it in standing.expected if it.service != saga.SERVICES[LAST]]
        return "undoing", "back", f"{why}; {' and '.join(left)} still to come"
    if trouble is not None and _is_waiting(seen, now):
        again = span(max(0.0, standing.quiet_since - now))
        return "retry", "go", f"attempt {trouble.attempt}: {spaced(trouble.reason)}; again in {again}"
    if standing.overdue:
        return "overdue", "back", f"{_awaited(standing)} should have come"
    return "under way", "go", f"waits for {_awaited(standing)}"


def _awaited(standing: Standing) -> str:
    return standing.expected[0].says[0] if standing.expected else "its end"


def spaced(code: str) -> str:
    """A reason code as words.

    >>> spaced("balance_too_low")
    'balance too low'
    """
    return code.replace("_", " ")


def failures(scene: Scene, began: float) -> dict[str, Any]:
    """Why sagas failed, the most frequent first."""
    most = scene.reasons.most_common(REASONS)
    told = [{"service": service, "reason": spaced(reason), "count": count} for (service, reason), count in most]
    return {
        "since": round(began * 1000),
        "reasons": told,
        "more": scene.count_failed - sum(count for _, count in most),
    }
