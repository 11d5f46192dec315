"""A steady load for a long time: whether memory stays flat and latency does not creep."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks import machine, orders
from benchmarks.bench import Bench
from benchmarks.latency import at, waited
from benchmarks.results import Figure
from benchmarks.roster import OURS
from benchmarks.turn import How

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Sagas a second: far from saturation, so that what grows is not a queue.
RATE = 50
_LOOK_EVERY = 5.0
#: The beginning does not count: pools fill, caches warm.
_WARM = 0.2


def soak(bench: Bench) -> None:
    """So many minutes at one rate, memory read all along."""
    seconds = int(bench.minutes * 60)
    for name, factory in bench.chosen(OURS).items():
        with bench.turn("soak", name, factory) as its:
            wanted = orders.clean(RATE * seconds)
            its.contender.prepare(wanted)
            with _watched(its.contender.pids) as curve:
                timed = its.timed(wanted, How(rate=RATE, seconds=seconds + 120))
            waits = waited(timed.times, "last")
            values = {
                "minutes": round(seconds / 60, 1),
                "largest_mb": max((mb for points in curve.values() for _, mb in points), default=0.0),
                "growth_mb": round(max((_growth(points) for points in curve.values()), default=0.0), 1),
                "last_p50": at(waits, 0.5),
                "last_p99": at(waits, 0.99),
            }
            bench.note(
                Figure(
                    experiment="soak",
                    contender=name,
                    round=1,
                    case=f"{RATE}/s",
                    values=values,
                    cpu=timed.cpu,
                    memory=timed.memory,
                    series=dict(curve),
                    void=timed.void + its.audit(),
                )
            )


@contextmanager
def _watched(pids: Callable[[], Mapping[str, int]]) -> Iterator[Mapping[str, list[list[float]]]]:
    """Read the memory of programs every few seconds, in a thread, while the context is open."""
    curve: dict[str, list[list[float]]] = defaultdict(list)
    over = threading.Event()
    begun = time.monotonic()

    def look() -> None:
        while not over.wait(_LOOK_EVERY):
            for name, megabytes in machine.memory(pids()).items():
                curve[name].append([round(time.monotonic() - begun, 1), megabytes])

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield curve
    finally:
        over.set()
        watching.join()


def _growth(points: Sequence[Sequence[float]]) -> float:
    """How much more a program holds at the end than when it was warm, in MB."""
    warm = points[int(_WARM * len(points)) :]
    return warm[-1][1] - warm[0][1] if warm else 0.0
