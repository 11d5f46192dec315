"""What is to be reached, as ratios within one run, and what was."""

from __future__ import annotations

from benchmarks.facts import MARKS, PERCENTILES, RATE, Facts, Section, rate_of
from benchmarks.roster import FLOOR, OURS
from benchmarks.tables import number, table, times


def targets(facts: Facts) -> Section | None:
    """What is to be reached, and what was."""
    rows = [[what, aim, reached] for what, aim, reached in _targets(facts) if reached != "-"]
    if not rows:
        return None
    return Section("What is to be reached", "", table(("ratio", "at least or at most", "reached"), rows))


def _targets(facts: Facts) -> list[tuple[str, str, str]]:
    speed, mixed, old, soak = (facts.of(name) for name in ("throughput", "mixed", "old", "soak"))

    def against(other: str) -> str:
        return times(speed.ratio(RATE, (OURS, None), (other, None)))

    found = [
        ("sagas/s over the floor's", ">= 0.9", against(FLOOR)),
        (
            "processor time of a saga, over the floor's",
            "",
            times(speed.ratio("cpu_ms_per_saga", (OURS, None), (FLOOR, None))),
        ),
        ("sagas/s over one message per transaction", ">= 6", against("single")),
        ("sagas/s over FastStream's", ">= 4.5", against("faststream")),
        ("sagas/s over DBOS's", ">= 12", against("dbos")),
        (
            "sagas/s with failures and repetitions, over clean",
            ">= 0.8",
            times(mixed.ratio(RATE, (OURS, "mixed"), (OURS, "clean"))),
        ),
    ]
    if case := _at_a_fifth(facts):
        for mark, said in MARKS.items():
            for percentile, aim in (("p50", "<= 2.5"), ("p99", "<= 3")):
                ratio = facts.of("latency").ratio(f"{mark}_{percentile}", (OURS, case), (FLOOR, case))
                what = f"latency to `{said}` at {case}, {PERCENTILES[percentile]}, over the floor's"
                found.append((what, aim, times(ratio)))
    if old.cases:
        ratio = old.ratio(RATE, (OURS, old.cases[-1]), (OURS, old.cases[0]))
        found.append((f"sagas/s with {old.cases[-1]}, over none", ">= 0.9", times(ratio)))
    backlog, steady = facts.of("backlog").middle(OURS, RATE), speed.middle(OURS, RATE)
    if backlog and steady:
        found.append(("rate of the drain over the steady rate", ">= 1", number(backlog / steady, 2)))
    largest = [
        mb
        for experiment in facts.figures.values()
        for figure in experiment.of(OURS)
        for mb in figure.memory.values()
    ]
    if largest:
        found.append(("largest service, MB", "<= 150", number(max(largest))))
    if (growth := soak.middle(OURS, "growth_mb")) is not None:
        found.append(
            (f"growth over {number(soak.middle(OURS, 'minutes'))} minutes of soak, MB", "flat", number(growth, 1))
        )
    return found


def _at_a_fifth(facts: Facts) -> str | None:
    """The measured rate that is nearest to a fifth of ours' saturation."""
    latency, most = facts.of("latency"), facts.of("throughput").middle(OURS, RATE)
    shared = [case for case in latency.cases if latency.of(OURS, case) and latency.of(FLOOR, case)]
    if not shared:
        return None
    most = most or max(latency.values(OURS, RATE))
    return min(shared, key=lambda case: abs(rate_of(case) - most / 5))
