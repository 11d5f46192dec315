"""How much happened in each of the last seconds: a ring of counts, whatever the flood."""

from __future__ import annotations

import math


class Rate:
    """Counts by the second, for so many seconds; what is older is forgotten. Times are in seconds since 1970."""

    def __init__(self, seconds: int) -> None:
        self._counts = [0] * seconds
        self._seconds = [-1] * seconds

    def add(self, at: float, count: int = 1, *, now: float) -> None:
        """Count what happened at `at`. A clock that is ahead of ours means now; what is too old is nothing."""
        second = math.floor(min(at, now))
        if second <= math.floor(now) - len(self._counts):
            return
        place = second % len(self._counts)
        if self._seconds[place] != second:
            self._seconds[place], self._counts[place] = second, 0
        self._counts[place] += count

    def last(self, seconds: int, *, now: float) -> list[int]:
        """The counts of so many whole seconds before this one, the oldest first."""
        end = math.floor(now)
        return [self._at(second) for second in range(end - seconds, end)]

    def mean(self, seconds: int, *, now: float) -> float:
        """How many a second, on average of so many whole seconds."""
        return sum(self.last(seconds, now=now)) / seconds

    def _at(self, second: int) -> int:
        place = second % len(self._counts)
        return self._counts[place] if self._seconds[place] == second else 0
