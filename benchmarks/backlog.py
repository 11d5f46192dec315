"""Commands that piled up while the services were stopped, and how fast they are worked off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from benchmarks import orders
from benchmarks.bench import Bench, throughput
from benchmarks.contender import Factory
from benchmarks.ours import Ours
from benchmarks.results import Figure
from benchmarks.roster import FLOOR, OURS
from benchmarks.turn import How

BACKLOG = 50_000
#: The rate is taken from the middle: programs that start and a pipeline that runs empty are not the steady state.
_MIDDLE = (0.1, 0.9)


def backlog(bench: Bench) -> None:
    """Stop, publish, start, and wait for the last saga."""
    # So many at once may take longer than the time that a payment is given by default.
    patient: Factory = partial(Ours, settings={"PAYMENT_DEADLINE_SECONDS": "7200"})
    for name, factory in bench.chosen(FLOOR, OURS).items():
        with bench.turn("backlog", name, patient if name == OURS else factory) as its:
            wanted = orders.clean(min(BACKLOG, bench.sagas * 10))
            its.contender.prepare(wanted)
            its.contender.stop()
            timed = its.timed(wanted, How(when_sent=its.contender.start, seconds=3600))
            ends = sorted(moment for moment in timed.times.last if moment)
            begun = timed.times.all_sent
            values = throughput(timed) | {
                "seconds": round(timed.times.ended - begun, 1),
                "sagas_per_s": round(_rate(ends), 1),
            }
            bench.note(
                Figure(
                    experiment="backlog",
                    contender=name,
                    round=1,
                    case=f"{len(wanted):,}",
                    values=values,
                    cpu=timed.cpu,
                    memory=timed.memory,
                    series={"per_second": per_second(ends, begun)},
                    void=timed.void + its.audit(),
                )
            )


def _rate(ends: Sequence[float]) -> float:
    first, last = (int(part * (len(ends) - 1)) for part in _MIDDLE)
    return (last - first) / max(ends[last] - ends[first], 1e-9) if ends else 0.0


def per_second(ends: Sequence[float], begun: float) -> list[list[float]]:
    """How many sagas ended in each second since a moment."""
    counted = Counter(int(moment - begun) for moment in ends)
    return [[second, counted[second]] for second in range(max(counted, default=0) + 1)]
