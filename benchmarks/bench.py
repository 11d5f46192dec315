"""The run that all experiments share: its stand, its size, its results, and who hears how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.contender import Factory, Order
from benchmarks.progress import Teller
from benchmarks.results import Figure, Results
from benchmarks.stand import Stand
from benchmarks.turn import Timed, Turn, turn

#: Sagas run before the clock starts: connections are open, statements prepared, caches warm.
_WARM_UP = 200
_SECONDS_TO_SETTLE = 60


@dataclass(slots=True)
class Bench:
    """What an experiment is given."""

    stand: Stand
    roster: dict[str, Factory]
    rounds: int
    sagas: int
    minutes: float
    results: Results
    save: Callable[[], None]
    teller: Teller = field(init=False)

    def numbers(self) -> range:
        """The rounds, counted from 1."""
        return range(1, self.rounds + 1)

    def chosen(self, *names: str) -> dict[str, Factory]:
        """Those of these contenders that take part in this run."""
        return {name: self.roster[name] for name in names if name in self.roster}

    @contextlib.contextmanager
    def turn(
        self, experiment: str, name: str, factory: Factory, *, number: int = 1, case: str = ""
    ) -> Iterator[Turn]:
        """One contender's turn, and a note of who it was; if it fails, that is its figure, and the run goes on."""
        self.teller.begin(" ".join(filter(None, (experiment, name, case, f"round {number}"))))
        try:
            with turn(self.stand, factory) as its:
                contender = its.contender
                self.results.contenders[name] = {
                    "title": contender.title,
                    "guarantees": asdict(contender.guarantees),
                    "versions": dict(contender.versions),
                }
                yield its
        except Exception as error:  # noqa: BLE001 - whatever it was, the others are still to be measured
            void = [f"{type(error).__name__}: {error}"[:500]]
            self.note(Figure(experiment, name, number, case, void=void))
        self.teller.end()

    def warm_up(self, its: Turn, orders: Sequence[Order]) -> Sequence[Order]:
        """Put the first few orders in before anything is timed; the others."""
        count = min(_WARM_UP, len(orders) // 5)
        its.drive(orders[:count])
        its.contender.settle(_SECONDS_TO_SETTLE)
        return orders[count:]

    def note(self, figure: Figure) -> None:
        """Keep a figure, and tell it."""
        self.results.figures.append(figure)
        self.save()
        told = "  ".join(f"{name} {value:,.4g}" for name, value in figure.values.items())
        void = f"  VOID: {'; '.join(figure.void[:3])}" if figure.void else ""
        self.teller.say(f"  {figure.contender:<10} {figure.case:<12} {told}{void}")


def throughput(timed: Timed) -> dict[str, float]:
    """The figures of a timed part that is about how much."""
    spent = sum(timed.cpu.get(group, 0.0) for group in ("programs", "rabbitmq", "postgresql"))
    return {
        "sagas_per_s": round(timed.rate, 1),
        "cpu_ms_per_saga": round(1000 * spent / max(timed.times.done, 1), 3),
        "foreign_cpu": round(timed.cpu["others"] / timed.cpu["elapsed"], 2),
        "sagas": timed.times.done,
    }
