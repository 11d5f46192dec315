"""Which cells of the barrier's table a search asks: a cell that is never asked is a guard that is never tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

from common import barrier
from common.barrier import Action, Kind, State

Cell = tuple[State | None, Kind]


class _Noted(dict[Cell, Action]):
    """The table, and which cells somebody has read."""

    def __init__(self) -> None:
        super().__init__(barrier.TABLE)
        self.asked: set[Cell] = set()

    def __getitem__(self, cell: Cell) -> Action:
        self.asked.add(cell)
        return super().__getitem__(cell)


@contextlib.contextmanager
def noting() -> Iterator[set[Cell]]:
    """Note which cells the production code asks meanwhile."""
    noted = _Noted()
    with mock.patch.object(barrier, "TABLE", noted):
        yield noted.asked


def named(cell: Cell) -> str:
    """A cell in words: row and message."""
    state, kind = cell
    return f"{state or 'none'} x {kind.name.lower().replace('_', ' ')}"
