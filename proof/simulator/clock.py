"""A virtual clock: an event loop that never waits. When nothing is ready, its time jumps to the next timer.

`datetime.now()` and `time.monotonic()` of the production code follow it, so that hours of retries take seconds and
the same seed gives the same times.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from unittest import mock

import time_machine

#: When every simulation begins.
BEGINNING = datetime(2026, 1, 1, 12, tzinfo=UTC)


#: Seconds that a turn of the loop takes: in no time, whoever waits for a rounding error would wait for ever.
_TURN = 1e-6


class StandstillError(RuntimeError):
    """Everything waits, and no timer will ever wake it."""


class _Selector:
    """What an event loop asks for news from outside. There is no outside: it only lets time pass."""

    def __init__(self, passes: Callable[[float], None]) -> None:
        self._passes = passes

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass until the next timer."""
        if timeout is None:
            raise StandstillError("everything waits for ever")
        self._passes(max(timeout, _TURN))
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on virtual time, in seconds since the simulation began."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Selector(self._pass)
        self._nanoseconds = 0
        self._clock_resolution = _TURN / 2
        self._traveller: time_machine.Traveller | None = None

    def time(self) -> float:
        """Seconds since the beginning."""
        return self._nanoseconds / 1e9

    def _pass(self, seconds: float) -> None:
        nanoseconds = round(seconds * 1e9)
        self._nanoseconds += nanoseconds
        if self._traveller is not None:
            self._traveller.shift(nanoseconds / 1e9)

    def _process_events(self, event_list: list[Any]) -> None:
        """Nothing ever comes from outside."""

    def _write_to_self(self) -> None:
        """One thread: nobody has to be woken."""

    @contextlib.contextmanager
    def rules_the_clocks(self) -> Iterator[None]:
        """Let the clocks of the process follow this loop."""
        with (
            time_machine.travel(BEGINNING, tick=False) as traveller,
            mock.patch.object(time, "monotonic", self.time),
        ):
            self._traveller = traveller
            try:
                yield
            finally:
                self._traveller = None
