"""How far a run is: a bar at a terminal, a line for each turn anywhere else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Teller:
    """Tells a person what is being done, what was found, and how many turns are still to come."""

    def __init__(self, console: Console, bar: Progress | None, turns: int) -> None:
        self._console = console
        self._bar = bar
        self._turns = turns
        self._task = bar.add_task("", total=turns) if bar else None
        self._done = 0
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """Tell one line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, what: str) -> None:
        """A turn begins."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=f"{what}, {self._left()}")
        else:
            self.say(f"{time.strftime('%H:%M:%S')} turn {self._done + 1} of {self._turns}: {what}, {self._left()}")

    def end(self) -> None:
        """A turn is over."""
        self._done += 1
        if self._bar and self._task is not None:
            self._bar.advance(self._task)

    def _left(self) -> str:
        if not self._done:
            return "who knows how long"
        each = (time.monotonic() - self._began) / self._done
        return f"about {timedelta(seconds=round(each * (self._turns - self._done)))} to go"


@contextmanager
def telling(turns: int) -> Iterator[Teller]:
    """Tell the progress of so many turns on standard output."""
    console = Console()
    if not console.is_terminal:
        yield Teller(console, None, turns)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        yield Teller(console, bar, turns)
