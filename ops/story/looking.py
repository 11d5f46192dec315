"""`saga show` and `saga list`: read what is there, fold it, tell it, and say by the exit code how it stands."""

from __future__ import annotations

import contextlib
import heapq
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from ops import output
from ops.output import Exit
from ops.story import documents, telling
from ops.story.fold import Stories, fold
from ops.story.judging import judge
from ops.story.reading import records
from ops.story.searching import search
from ops.story.standing import Phase, Standing
from ops.story.story import Story
from ops.story.timeline import Timeline, What
from ops.story.watching import Filter, is_failed, urgency

_BAD = {Phase.UNDONE, Phase.FAILED, Phase.STUCK}


async def show(
    id_: str,
    *,
    since: datetime | None,
    whole: bool = False,
    stuck_after: float,
    as_json: bool,
    url: str | None = None,
) -> Exit:
    """Tell all that the history holds of one id. Raises CannotLookError."""
    timeline, stories = Timeline(id_), Stories()
    with progress() as told:
        found = await search(id_, since=since, whole=whole, progress=told, url=url)
    for record in found.records:
        fold(stories, record)
        timeline.add(record)
    now = telling.now()
    story = stories.sagas.get(id_)
    standing = judge(story, now, stuck_after=stuck_after) if story is not None and story.exists else None
    if as_json:
        output.tell_json(_document(timeline, story, standing, now) | {"unread_before": found.unread_before})
    else:
        _tell(timeline, standing, now)
        if found.unread_before is not None:
            before = telling.clock(found.unread_before)
            output.warn(f"Its beginning was found, so the history before {before} was not read; --all reads it")
    if standing is not None:
        return Exit.NEGATIVE if standing.phase in _BAD or standing.backwards else Exit.OK
    answers = [moment for moment in timeline.commands if moment.what is What.COMMAND]
    return Exit.OK if answers and not _rejections(timeline) else Exit.NEGATIVE


async def list_(
    wanted: Filter,
    *,
    since: datetime | None,
    limit: int,
    stuck_after: float,
    as_json: bool,
    url: str | None = None,
) -> Exit:
    """List the sagas that are asked for. Raises CannotLookError."""
    stories = Stories()
    with progress() as told:
        async with contextlib.aclosing(records(url, since=since, progress=told)) as history:
            async for record in history:
                fold(stories, record)
    now = telling.now()
    phases: Counter[Phase] = Counter()
    failing = 0

    def taken() -> Iterator[tuple[Story, Standing]]:
        nonlocal failing
        for story in stories.sagas.values():
            if not story.exists:
                continue
            standing = judge(story, now, stuck_after=stuck_after)
            if wanted.takes(story, standing):
                phases[standing.phase] += 1
                failing += is_failed(standing) or standing.phase is Phase.STUCK
                yield story, standing

    shown = heapq.nsmallest(limit, taken(), key=urgency)
    left_out = phases.total() - len(shown)
    if as_json:
        output.tell_json(
            {
                "sagas": [documents.story_json(story, standing, now) for story, standing in shown],
                "counts": {phase: phases[phase] for phase in Phase},
                "left_out": left_out,
                "parked_without_a_saga": stories.nameless,
            }
        )
    else:
        _tell_table(shown, phases, left_out, now)
        if stories.nameless:
            parked = output.counted(stories.nameless, "parked message")
            output.warn(f"{parked} without a saga: `saga parked list` shows what lies there now")
    return Exit.NEGATIVE if failing else Exit.OK


_COLUMNS = ("saga", "phase", "steps", "where", "why", "last heard of", "took, or age")


def _tell_table(shown: list[tuple[Story, Standing]], phases: Counter[Phase], left_out: int, now: float) -> None:
    signs = output.on_terminal()
    rows = [
        (
            story.id,
            standing.phase,
            telling.signs(standing) if signs else telling.steps(standing),
            telling.where(standing),
            telling.reason(story, standing) or standing.why_stuck,
            telling.clock(story.last),
            telling.duration(standing, now),
        )
        for story, standing in shown
    ]
    output.table(_COLUMNS, rows)
    if signs:
        output.say(telling.legend(), style="dim")
    counted = ", ".join(f"{phases[phase]} {phase}" for phase in Phase if phases[phase]) or "no saga"
    output.warn(counted + (f"; {left_out} more than --limit lists" if left_out else ""))


def _tell(timeline: Timeline, standing: Standing | None, now: float) -> None:
    if standing is None and not timeline:
        output.say(f"{timeline.id}: the history tells nothing of it")
    elif standing is None:
        _tell_command(timeline)
    else:
        _tell_standing(timeline, standing, now)
    if len(timeline):
        output.say()
        output.table(telling.TIMELINE, telling.timeline_rows(timeline))
        if timeline.left_out:
            output.say(f"{output.counted(timeline.left_out, 'more moment')} left out.")
    if standing is not None or not timeline.commands:
        for line in telling.advice(timeline.id, standing):
            output.say(line)


def _tell_standing(timeline: Timeline, standing: Standing, now: float) -> None:
    detail = timeline.why_failed[1] if standing.backwards else ""
    output.say(telling.title(timeline.id, standing, detail), style=telling.PHASE_STYLE[standing.phase])
    began = f"first told of {telling.clock(standing.began)}"
    took = f"took {telling.span(standing.took)}" if standing.took is not None else ""
    if standing.phase.ended and not took:
        took = f"{telling.NOT_TOLD} how long it took"
    output.say(f"{began}, {took or 'age ' + telling.duration(standing, now)}")
    output.say(telling.steps(standing))
    for line in telling.next_words(standing):
        output.say(f"next: {line}")
    for hole in standing.holes:
        output.say(f"hole in the history: {hole}")
    if timeline.traces:
        output.say(f"trace: {', '.join(timeline.traces[:5])}")


def _tell_command(timeline: Timeline) -> None:
    """An id that is no saga's: a command beside it, or a letter, or what only an operator named."""
    rejections = _rejections(timeline)
    if not timeline.commands:
        output.say(f"{timeline.id}: no service tells of a saga with this id")
    elif rejections:
        output.say(f"{timeline.id}: a command beside the sagas, not done: {', '.join(rejections)}")
    else:
        output.say(f"{timeline.id}: a command beside the sagas, answered")


def _rejections(timeline: Timeline) -> list[str]:
    """Why a command was not done, as far as that was told."""
    told = [moment.reason for moment in timeline.commands if moment.what in {What.FAILED, What.PARKED}]
    told += [type_ for moment in timeline.commands for type_, _ in moment.said if type_.endswith(".rejected")]
    return list(dict.fromkeys(told))


def _document(timeline: Timeline, story: Story | None, standing: Standing | None, now: float) -> dict[str, Any]:
    known: dict[str, Any] = {"id": timeline.id, "known": bool(len(timeline))}
    if story is not None and standing is not None:
        known |= documents.story_json(story, standing, now)
        known["detail"] = timeline.why_failed[1] if standing.backwards else ""
    else:
        known["phase"] = None
    known["advice"] = telling.advice(timeline.id, standing) if standing or not timeline.commands else []
    known["traces"] = timeline.traces
    known["timeline"] = [documents.moment_json(moment) for moment in timeline]
    known["left_out"] = timeline.left_out
    return known


@contextlib.contextmanager
def progress() -> Iterator[Callable[[int], None] | None]:
    """Show on standard error how far reading has come; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415 - only a terminal needs it

    with Console(stderr=True).status("reading the history ...") as status:
        yield lambda read: status.update(f"reading the history: {read:,} records ...")
