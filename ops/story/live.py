"""The live watch for people and programs: a screen on a terminal, else one line for each change.

Both read the history until interrupted. A change is a saga whose phase or steps have changed: by a record or,
where it became overdue or stuck, by time alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common import saga
from ops import output
from ops.story import documents, telling
from ops.story.reading import records
from ops.story.standing import Phase
from ops.story.watching import Seen, Watch

_LOOK_EVERY = 1.0
_DRAW_EVERY = 0.25
#: Records older than this many seconds are of the past that is being read first.
_BEHIND = 5.0
_HEAD_LINES = 7

Tell = Callable[[Iterable[Seen], float], None]


async def follow(watch: Watch, since: datetime | None, *, as_json: bool, url: str | None = None) -> None:
    """Watch until cancelled. Raises CannotLookError."""
    if output.on_terminal() and not as_json:
        await _on_screen(watch, since, url)
        return
    tell = tell_json if as_json else tell_plainly
    await _feed(watch, since, url, tell)


def tell_plainly(seen: Iterable[Seen], now: float) -> None:
    """One line for each, its cells separated by tabs: when, which, its phase, its steps, where, why, how long."""
    for it in seen:
        cells = (
            telling.clock(it.story.last),
            it.story.id,
            it.standing.phase,
            telling.steps(it.standing),
            telling.where(it.standing),
            telling.reason(it.story, it.standing),
            telling.duration(it.standing, now),
        )
        print("\t".join(output.printable(cell) for cell in cells), flush=True)


def tell_json(seen: Iterable[Seen], now: float) -> None:
    """One JSON object a line for each."""
    for it in seen:
        told = documents.story_json(it.story, it.standing, now)
        print(json.dumps(told, default=_plain), flush=True)


def _plain(value: Any) -> str:  # noqa: ANN401 - whatever JSON has no word for
    return value.isoformat() if isinstance(value, datetime) else str(value)


async def _feed(
    watch: Watch, since: datetime | None, url: str | None, tell: Tell, *beside: Callable[[float], None]
) -> None:
    """Hand records and passing time to the watch, and tell what changed; `beside`: what is drawn meanwhile."""
    catching_up_until = 0.0

    async def read() -> None:
        nonlocal catching_up_until
        async with contextlib.aclosing(records(url, since=since, follow=True)) as history:
            async for record in history:
                # The past is judged as it stood then: by today's clock, all that moved would be stuck.
                now = telling.now()
                then = min(now, record.at.timestamp())
                if now - then > _BEHIND:
                    catching_up_until = now + _BEHIND
                tell(watch.take(record, then), then)

    def look(now: float) -> None:
        if now >= catching_up_until:
            tell(watch.look(now), now)

    tasks = {asyncio.create_task(read())}
    tasks.add(asyncio.create_task(_every(_LOOK_EVERY, look)))
    tasks |= {asyncio.create_task(_every(_DRAW_EVERY, do)) for do in beside}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _every(seconds: float, do: Callable[[float], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        do(telling.now())


async def _on_screen(watch: Watch, since: datetime | None, url: str | None) -> None:
    console = output.console()
    with Live(screen(watch, telling.now(), console), console=console, auto_refresh=False, screen=True) as live:

        def draw(now: float) -> None:
            live.update(screen(watch, now, console), refresh=True)

        await _feed(watch, since, url, lambda _seen, _now: None, draw)


def screen(watch: Watch, now: float, console: Console) -> RenderableType:
    """The whole screen: counts and rates above, one line a saga below, as many as fit."""
    room = max(1, console.size.height - _HEAD_LINES)
    drawn = Table(expand=True, header_style="bold", box=None, pad_edge=False)
    drawn.add_column("saga", overflow="ellipsis", no_wrap=True, min_width=16, ratio=2)
    for service in saga.SERVICES:
        drawn.add_column(service, no_wrap=True, min_width=11)
    drawn.add_column("phase", no_wrap=True, min_width=9)
    drawn.add_column("why", overflow="ellipsis", no_wrap=True, ratio=2)
    drawn.add_column("took, or age", no_wrap=True, justify="right")
    for it in watch.shown(now, room):
        drawn.add_row(*_cells(it, now))
    return Group(*_head(watch, now), drawn)


def _cells(it: Seen, now: float) -> list[Text]:
    standing = it.standing
    steps = [
        Text(f"{telling.STEP_SIGN[state]} {state}", style=telling.STEP_STYLE[state]) for state in standing.steps
    ]
    return [
        Text(output.printable(it.story.id)),
        *steps,
        Text(standing.phase, style=telling.PHASE_STYLE[standing.phase]),
        Text(output.printable(telling.reason(it.story, standing) or standing.why_stuck)),
        Text(telling.duration(standing, now)),
    ]


def _head(watch: Watch, now: float) -> list[Text]:
    counts = watch.counts()
    ended, messages = watch.rates(now)
    line = Text()
    for phase in Phase:
        line.append(f"{counts[phase]} {phase}", style=telling.PHASE_STYLE[phase])
        line.append("   ")
    line.append(f"{ended:.1f} sagas ended/s   {messages:.1f} messages handled/s", style="bold")
    left = Text("Ctrl+C leaves; `saga show ID` tells all of one saga.", style="dim")
    parked = watch.stories.nameless
    if parked:
        left.append(f"  {parked} parked messages name no saga: `saga parked list`.", style="bold red")
    return [Text("What the history tells of every saga", style="bold"), line, left, Text()]
