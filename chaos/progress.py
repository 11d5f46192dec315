"""What a run tells a person: a line for each thing done, and at a terminal what it is waiting for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from chaos.results import Run, Turn


class Teller:
    """Tells of turns; plain lines where nobody sits at a terminal."""

    def __init__(self, console: Console, status: Status) -> None:
        self._console = console
        self._status = status

    def say(self, line: str) -> None:
        """Tell one line."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def begin(self, number: int, fault: str, told: str) -> None:
        """A turn begins."""
        self.say(f"{time.strftime('%H:%M:%S')} {number}. {fault}: {told}")
        self._status.update(fault)

    def end(self, turn: Turn) -> None:
        """A turn is over."""
        for find in turn.finds:
            self.say(f"  FIND: {find}")
        back = "not within its bound" if turn.recovered is None else f"within {turn.recovered:.1f} s"
        also = f", {turn.repeated} asked again" if turn.repeated else ""
        also += f"; {turn.otherwise}" if turn.otherwise else ""
        self.say(f"  as before {back}; {turn.sagas} payments: {turn.completed} done, {turn.undone} undone{also}")

    def total(self, run: Run) -> None:
        """All is over."""
        total = run.total
        if total is None:
            return
        for find in total.finds:
            self.say(f"FIND: {find}")
        commands = sum(total.commands.values())
        word = "passed" if run.passed else "FAILED"
        self.say(
            f"{word}: {len(run.turns)} faults, {commands} commands confirmed; {total.sagas} payments: "
            f"{total.completed} wholly done, {total.undone} wholly undone"
        )


@contextmanager
def telling(*, aside: bool) -> Iterator[Teller]:
    """Tell on standard output; `aside`: on standard error, since the other is for a program."""
    console = Console(file=sys.stderr if aside else sys.stdout)
    with console.status("starting") as status:
        yield Teller(console, status)
