"""Latency at a given rate, from the moment a command was due: no wait is forgotten because the driver waited."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import orders
from benchmarks.bench import Bench
from benchmarks.contender import Order
from benchmarks.driver import Times
from benchmarks.results import Figure
from benchmarks.roster import FLOOR, OURS
from benchmarks.turn import How, Turn

RATES = (50, 100, 150, 200, 300, 400, 500, 600, 700, 800)
#: Seconds of load at one rate, and a median beyond which the contender is taken for saturated.
_SECONDS, _SECONDS_QUICK = 10, 3
_SATURATED = 2.0
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_WARM_UP = 1_000
#: Of the curve that is kept.
_POINTS = [point / 100 for point in range(5, 100, 5)] + [0.99, 0.995, 0.999, 1.0]


def latency(bench: Bench) -> None:
    """Rates one after the other, up to saturation: floor and ours."""
    seconds = _SECONDS if bench.sagas >= 2_000 else _SECONDS_QUICK
    for number in bench.numbers():
        for name, factory in bench.chosen(FLOOR, OURS).items():
            with bench.turn("latency", name, factory, number=number) as its:
                # A small run is to stay short.
                rates = [rate for rate in RATES if rate <= bench.sagas]
                prepared = orders.clean(sum(rates) * seconds + _WARM_UP)
                its.contender.prepare(prepared)
                bench.warm_up(its, prepared[:_WARM_UP])
                rest = prepared[_WARM_UP:]
                figures = []
                for rate in rates:
                    wanted, rest = rest[: rate * seconds], rest[rate * seconds :]
                    figure = _at(its, wanted, rate, name, number)
                    figures.append(figure)
                    if figure.values["last_p50"] > _SATURATED * 1000:
                        break
                wrong = its.audit()
                for figure in figures:
                    figure.void.extend(wrong)
                    bench.note(figure)


def _at(its: Turn, wanted: Sequence[Order], rate: int, name: str, number: int) -> Figure:
    timed = its.timed(wanted, How(rate=rate, pivot=True))
    values = {"sagas_per_s": round(timed.rate, 1), "driver_late": round(timed.times.late * 1000, 1)}
    series = {}
    for mark in timed.times.marks:
        waits = waited(timed.times, mark)
        values |= {f"{mark}_{word}": at(waits, part) for word, part in PERCENTILES.items()}
        series[mark] = [[point, at(waits, point)] for point in _POINTS]
    return Figure(
        experiment="latency",
        contender=name,
        round=number,
        case=f"{rate}/s",
        values=values,
        cpu=timed.cpu,
        memory=timed.memory,
        series=series,
        void=timed.void,
    )


def waited(times: Times, mark: str) -> list[float]:
    """How long each saga took from its due moment to a mark, in milliseconds, sorted; those that came so far."""
    moments = zip(times.marks[mark], times.due, strict=True)
    return sorted(1000 * (seen - due) for seen, due in moments if seen)


def at(waits: Sequence[float], part: float) -> float:
    """The wait that this part of all did not exceed."""
    return round(waits[min(int(part * len(waits)), len(waits) - 1)], 2) if waits else 0.0
