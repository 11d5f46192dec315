"""What one input may cost: seconds of this thread's processor time, and bytes of memory at its worst moment."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: For any input that a broker would carry. Most take a millisecond; instrumentation makes it a few.
SECONDS = 1.0
#: Beside the input itself, which the broker has sent already.
BYTES = 24 * 1024 * 1024
#: How often an input may be in memory: as it came, on its way out to where it is parked, and as it is shown.
COPIES = 3


#: How often an input that took too long is tried before it is to blame.
_TRIES = 4


class OutOfBoundsError(AssertionError):
    """An input cost more than any may."""


@dataclass(slots=True)
class Worst:
    """The dearest of all inputs so far."""

    executions: int = 0
    seconds: float = 0.0
    slowest: bytes = b""
    memory: int = 0
    largest: bytes = b""

    def save(self, folder: Path) -> None:
        """Write down what the worst cost, and the inputs themselves."""
        folder.mkdir(parents=True, exist_ok=True)
        figures = {"seconds": round(self.seconds, 4), "bytes": self.memory}
        (folder / "worst.json").write_text(json.dumps(figures))
        (folder / "slowest").write_bytes(self.slowest)
        (folder / "largest").write_bytes(self.largest)

    def timed(self, target: Callable[[bytes], None], data: bytes) -> None:
        """Run a target on an input; OutOfBoundsError if that takes too long, however often it is tried.

        A busy machine slows down anything at times, and what comes first pays for what is made only once.
        """
        took = math.inf
        for _ in range(_TRIES):
            began = time.thread_time()
            target(data)
            took = min(took, time.thread_time() - began)
            if took <= SECONDS:
                break
        self.executions += 1
        if took > self.seconds:
            self.seconds, self.slowest = took, data
        if took > SECONDS:
            raise OutOfBoundsError(f"{took:.1f} s of processor time for {len(data)} bytes; the limit is {SECONDS}")

    def weighed(self, target: Callable[[bytes], None], data: bytes) -> None:
        """Run a target on an input and watch its memory, which takes longer; OutOfBoundsError for too much."""
        tracemalloc.start()
        try:
            target(data)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if peak > self.memory:
            self.memory, self.largest = peak, data
        if peak > BYTES + COPIES * len(data):
            raise OutOfBoundsError(f"{peak} bytes of memory for {len(data)} bytes; the limit is {BYTES} beside it")
