"""What is measured: each experiment lets contenders take turns and notes figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks import orders
from benchmarks.backlog import backlog
from benchmarks.bench import Bench, throughput
from benchmarks.contender import Factory
from benchmarks.costs import alone, costs
from benchmarks.flames import profile
from benchmarks.latency import latency
from benchmarks.ours import Ours
from benchmarks.parts import parts
from benchmarks.results import Figure
from benchmarks.roster import FLOOR, OURS
from benchmarks.soak import soak
from benchmarks.turn import IN_FLIGHT, How

#: Of the mixed load: which part of the sagas fails, and which part of the commands is sent twice.
FAILING, TWICE = 0.10, 0.05
OLD = (0, 100_000, 1_000_000)
REPLICAS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One thing to measure."""

    title: str
    run: Callable[[Bench], None]
    turns: Callable[[Bench], int]


@dataclass(frozen=True, slots=True)
class Load:
    """What a turn of plain throughput is given, and under what name it is noted."""

    experiment: str
    round: int
    case: str = ""
    failing: float = 0
    twice: float = 0
    old: int = 0


def clean(bench: Bench) -> None:
    """Every saga completes: all contenders, turn by turn."""
    for number in bench.numbers():
        for name, factory in bench.roster.items():
            measure(bench, name, factory, Load("throughput", number))


def mixed(bench: Bench) -> None:
    """Sagas that fail in every way and commands that come twice, beside clean ones."""
    for number in bench.numbers():
        for name, factory in bench.chosen(OURS, "sqlite").items():
            measure(bench, name, factory, Load("mixed", number, "clean"))
            measure(bench, name, factory, Load("mixed", number, "mixed", failing=FAILING, twice=TWICE))


def old_sagas(bench: Bench) -> None:
    """Throughput with so many sagas in the databases already."""
    for number in bench.numbers():
        for name, factory in bench.chosen(OURS).items():
            for old in _old(bench):
                measure(bench, name, factory, Load("old", number, f"{old:,} old", old=old))


def _old(bench: Bench) -> list[int]:
    """How many old sagas there are in turn; a short run is not to fill databases for minutes."""
    return [old for old in OLD if old <= bench.sagas * 200]


def replicas(bench: Bench) -> None:
    """Throughput with several replicas of each service; one machine, so the cores stay the same."""
    for number in bench.numbers():
        for name in bench.chosen(OURS):
            for count in REPLICAS:
                measure(bench, name, partial(Ours, replicas=count), Load("replicas", number, f"{count} each"))


#: Where no collector listens: what is measured is what the services spend on their traces.
_TRACES = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
_SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
#: What may be set otherwise, against the default that comes first.
_SETTINGS: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "no history": {"HISTORY": "false"},
    "1 % traced": _TRACES | _SAMPLED,
    "all traced": _TRACES,
    "batches of 50": {"BATCH_SIZE": "50"},
    "batches of 500": {"BATCH_SIZE": "500"},
}


def settings(bench: Bench) -> None:
    """What single settings cost or bring."""
    for number in bench.numbers():
        for name in bench.chosen(OURS):
            for case, changed in _SETTINGS.items():
                measure(bench, name, partial(Ours, settings=changed), Load("settings", number, case))


def measure(bench: Bench, name: str, factory: Factory, load: Load) -> None:
    """One turn of plain throughput."""
    with bench.turn(load.experiment, name, factory, number=load.round, case=load.case) as its:
        count = max(int(bench.sagas * its.contender.share), 20)
        wanted = orders.mixed(count, failing=load.failing)
        if load.old:
            assert isinstance(its.contender, Ours)
            its.contender.grow_old(load.old)
        its.contender.prepare(wanted)
        rest = bench.warm_up(its, wanted)
        again = orders.repeated(len(rest), load.twice)
        timed = its.timed(rest, How(in_flight=IN_FLIGHT, twice=again))
        bench.note(
            Figure(
                experiment=load.experiment,
                contender=name,
                round=load.round,
                case=load.case,
                values=throughput(timed),
                cpu=timed.cpu,
                memory=timed.memory,
                void=timed.void + its.audit(),
            )
        )


def _of(*names: str, cases: int = 1, once: bool = False) -> Callable[[Bench], int]:
    """How many turns these contenders take: for each case, and in each round unless it is done `once`."""
    return lambda bench: len(bench.chosen(*names)) * cases * (1 if once else bench.rounds)


EXPERIMENTS: Mapping[str, Experiment] = {
    "throughput": Experiment(
        "sagas a second, every contender", clean, lambda bench: len(bench.roster) * bench.rounds
    ),
    "mixed": Experiment("with 10 % failing sagas and 5 % repeated commands", mixed, _of(OURS, "sqlite", cases=2)),
    "latency": Experiment("from the moment a command was due, open loop", latency, _of(FLOOR, OURS)),
    "backlog": Experiment(
        "50,000 commands that waited for stopped services", backlog, _of(FLOOR, OURS, once=True)
    ),
    "costs": Experiment("messages, commits and bytes of a saga", costs, _of(FLOOR, OURS, "single", once=True)),
    "alone": Experiment(
        "what a saga costs when every batch holds one message", alone, _of(FLOOR, OURS, "sqlite", once=True)
    ),
    "old": Experiment(
        "with old sagas in the databases", old_sagas, lambda bench: _of(OURS, cases=len(_old(bench)))(bench)
    ),
    "replicas": Experiment("with replicas of every service", replicas, _of(OURS, cases=len(REPLICAS))),
    "settings": Experiment("what single settings cost or bring", settings, _of(OURS, cases=len(_SETTINGS))),
    "parts": Experiment("processor time of single parts, each alone", parts, lambda _: 0),
    "soak": Experiment("a steady load for long, and the memory", soak, _of(OURS, once=True)),
    "profile": Experiment("flame graphs of the services under load", profile, _of(OURS, once=True)),
}
