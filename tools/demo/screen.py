"""The demo's live table; in a pipe, a plain line a second."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from rich.console import Console
from rich.live import Live
from rich.table import Table

from common import saga
from tools.demo.progress import Progress

# Marks in a row of the table, of which each stands for a payment that waits there.
_WIDEST = 36


class Screen:
    """Shows the progress, and tells what is being done to it."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._began = time.monotonic()
        self.stopped: set[str] = set()

    def say(self, what: str) -> None:
        """Tell what happens now; it stays above the table."""
        whole = not self._console.is_terminal
        self._console.print(f"{self._seconds:5.1f} s  {what}", highlight=False, soft_wrap=whole)

    @contextlib.asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Keep the picture fresh while the block runs."""
        live = Live(self._table(), console=self._console, auto_refresh=False)
        with live if self._console.is_terminal else contextlib.nullcontext():
            task = asyncio.create_task(self._redraw(live) if self._console.is_terminal else self._repeat())
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                if self._console.is_terminal:
                    live.update(self._table(), refresh=True)
                else:
                    self.say(self._line())

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began

    async def _redraw(self, live: Live) -> None:
        while True:
            live.update(self._table(), refresh=True)
            await asyncio.sleep(0.1)

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.say(self._line())

    def _table(self) -> Table:
        progress = self._progress
        waiting, done, undone, refused = (
            progress.waiting(),
            progress.done(),
            progress.undone(),
            progress.refused(),
        )
        table = Table(
            title=f"{progress.sent} of {progress.planned} payments sent, {progress.settled()} settled",
            title_justify="left",
            expand=False,
        )
        table.add_column("step")
        table.add_column("payments waiting for it", width=_WIDEST + 8)
        for column in ("done", "refused", "undone"):
            table.add_column(column, justify="right", width=8)
        for service in saga.SERVICES:
            marks = "●" * min(waiting[service], _WIDEST)
            table.add_row(
                f"[red]{service} (stopped)[/red]" if service in self.stopped else service,
                f"[cyan]{marks}[/cyan] {waiting[service] or ''}",
                str(done[service] or ""),
                f"[yellow]{refused[service] or ''}[/yellow]",
                f"[yellow]{undone[service] or ''}[/yellow]",
            )
        return table

    def _line(self) -> str:
        progress = self._progress
        waiting = progress.waiting()
        stations = "  ".join(
            f"{service}{' (stopped)' if service in self.stopped else ''} {waiting[service]}"
            for service in saga.SERVICES
        )
        return (
            f"waiting: {stations}   refused {progress.refused().total()}, completed {progress.completed()}, "
            f"settled {progress.settled()} of {progress.planned}"
        )
