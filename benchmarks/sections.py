"""The sections of the report, each a pure function of the figures."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.facts import MARKS, PERCENTILES, RATE, Facts, Section, rate_of
from benchmarks.plots import Axis, curves
from benchmarks.roster import FLOOR, OURS
from benchmarks.tables import Figures, number, spread, table, times
from benchmarks.targets import targets


def throughput(facts: Facts) -> Section | None:
    """Everybody's sagas a second, and what they guarantee for it."""
    figures = facts.of("throughput")
    if not figures:
        return None
    rows = [
        [
            facts.title(name),
            *spread(figures.values(name, RATE)),
            times(figures.ratio(RATE, (name, None), (FLOOR, None))),
            times(figures.ratio(RATE, (OURS, None), (name, None)), 1),
            number(figures.middle(name, "cpu_ms_per_saga"), 2),
            number(figures.middle(name, "foreign_cpu"), 1),
        ]
        for name in figures.contenders
    ]
    promises = [
        [
            facts.title(name),
            *(facts.contenders[name]["guarantees"][word] for word in ("delivery", "effect", "undo", "event")),
        ]
        for name in figures.contenders
    ]
    heads = ("contender", "least", "median", "most", "over the floor", "ours over it", "CPU ms", "foreign cores")
    text = [
        "Sagas a second, every one of which completes.",
        "",
        table(heads, rows),
        "",
        "*Foreign cores*: how many were busy with what had no business here. What each promises for its figure:",
        "",
        table(
            ("contender", "delivery", "effect of a message that comes twice", "undone on failure", "events"),
            promises,
            words=5,
        ),
    ]
    return Section("Throughput", "throughput", "\n".join(text))


def mixed(facts: Facts) -> Section | None:
    """The same with failures and repetitions."""
    return _cases(
        facts, "mixed", "With failures and repetitions",
        "10 % of the sagas fail, each refusal of each step in turn, and 5 % of the commands come twice.",
    )  # fmt: skip


def old(facts: Facts) -> Section | None:
    """The same on full databases."""
    return _cases(facts, "old", "With old sagas in the databases", "So many completed sagas lay there before.")


def replicas(facts: Facts) -> Section | None:
    """The same with replicas."""
    return _cases(
        facts, "replicas", "With replicas of every service",
        "All on the same cores, so this shows what replicas cost, not what more machines bring.",
    )  # fmt: skip


def settings(facts: Facts) -> Section | None:
    """The same with other settings."""
    return _cases(facts, "settings", "What single settings cost or bring", "All else as it is by default.")


def _cases(facts: Facts, experiment: str, title: str, what: str) -> Section | None:
    """Throughput in several cases, each over the first."""
    figures = facts.of(experiment)
    if not figures:
        return None
    rows = [
        [
            facts.title(name),
            case,
            *spread(figures.values(name, RATE, case)),
            times(figures.ratio(RATE, (name, case), (name, figures.cases[0]))),
            number(figures.middle(name, "cpu_ms_per_saga", case), 2),
            number(figures.middle(name, "foreign_cpu", case), 1),
        ]
        for name in figures.contenders
        for case in figures.cases
        if figures.of(name, case)
    ]
    heads = (
        "contender",
        "case",
        "least",
        "median",
        "most",
        f"over {figures.cases[0] if figures.cases else ''}",
        "CPU ms",
        "foreign cores",
    )
    return Section(title, experiment, f"{what}\n\n{table(heads, rows)}")


def latency(facts: Facts) -> Section | None:
    """How long one waits at which rate."""
    figures = facts.of("latency")
    if not figures:
        return None
    rows = [
        [
            facts.title(name),
            case,
            *(number(figures.middle(name, f"{mark}_{word}", case), 1) for mark in MARKS for word in PERCENTILES),
        ]
        for case in figures.cases
        for name in figures.contenders
        if figures.of(name, case)
    ]
    heads = (
        "contender",
        "rate",
        *(f"{mark}, {word}" for mark in MARKS.values() for word in PERCENTILES.values()),
    )
    plots = {}
    for mark, said in (("pivot", "queue.expired"), ("last", "notification.sent")):
        lines = {
            f"{name} {PERCENTILES[word]}": [
                [rate_of(case), middle]
                for case in figures.cases
                if (middle := figures.middle(name, f"{mark}_{word}", case)) is not None
            ]
            for name in figures.contenders
            for word in ("p50", "p99")
        }
        plots[f"latency-{mark}.svg"] = curves(
            f"From command to {said}", lines, x=Axis("sagas per second"), y=Axis("milliseconds", logarithmic=True)
        )
    text = [
        "Milliseconds from the moment a command was due to `queue.expired` and to `notification.sent`.",
        "",
        *(facts.picture(name, "latency over rate") for name in plots),
        "",
        table(heads, rows),
    ]
    return Section("Latency", "latency", "\n".join(text), plots)


def backlog(facts: Facts) -> Section | None:
    """How a backlog is worked off."""
    figures = facts.of("backlog")
    if not figures:
        return None
    rows = [
        [
            facts.title(name),
            figures.of(name)[0].case,
            number(figures.middle(name, "seconds")),
            number(figures.middle(name, RATE)),
            number(facts.of("throughput").middle(name, RATE)),
        ]
        for name in figures.contenders
    ]
    lines = {name: figures.of(name)[0].series["per_second"][:-1] for name in figures.contenders}
    plot = curves(
        "Working off a backlog",
        lines,
        x=Axis("seconds since the services were started"),
        y=Axis("sagas per second"),
    )
    heads = ("contender", "commands", "seconds", "sagas/s of the middle 80 %", "sagas/s of throughput")
    text = ["Published while the services were stopped.", "", facts.picture("backlog.svg", "drain"), ""]
    text.append(table(heads, rows))
    return Section("Drain of a backlog", "backlog", "\n".join(text), {"backlog.svg": plot})


def costs(facts: Facts) -> Section | None:
    """What a saga costs the servers."""
    text = "For each saga, by the counters of RabbitMQ and PostgreSQL; the driver's own part is in the messages."
    return _counted(facts.of("costs"), "Messages, commits and bytes", "costs", text)


def alone(facts: Facts) -> Section | None:
    """What a saga costs that has no company."""
    text = (
        "One saga after the other, so that every batch holds one message: what low rates cost. A statement\n"
        "outside of a transaction is a commit by itself: commits are nearly the ways to PostgreSQL and back."
    )
    return _counted(facts.of("alone"), "One saga at a time", "alone", text)


def _counted(figures: Figures, title: str, experiment: str, text: str) -> Section | None:
    if not figures:
        return None
    whats = list(dict.fromkeys(what for figure in figures.valid for what in figure.values))
    rows = [[what, *(number(figures.middle(name, what), 2) for name in figures.contenders)] for what in whats]
    return Section(title, experiment, f"{text}\n\n{table(('what', *figures.contenders), rows)}")


def memory(facts: Facts) -> Section | None:
    """How much each program held at the end of its turns."""
    found: dict[str, dict[str, float]] = {}
    for figures in facts.figures.values():
        for figure in figures.valid:
            held = found.setdefault(figure.contender, {})
            for program, megabytes in figure.memory.items():
                held[program] = max(held.get(program, 0.0), megabytes)
    rows = [
        [facts.title(name), ", ".join(f"{program} {number(megabytes)}" for program, megabytes in held.items())]
        for name, held in found.items()
        if held
    ]
    if not rows:
        return None
    text = f"Resident MB, the most at the end of any turn.\n\n{table(('contender', 'programs'), rows)}"
    return Section("Memory", "", text)


def soak(facts: Facts) -> Section | None:
    """How memory went over a long time."""
    figures = facts.of("soak")
    if not figures.valid:
        return None
    figure = figures.valid[-1]
    plot = curves("Memory over time", figure.series, x=Axis("seconds"), y=Axis("resident MB"))
    values = ", ".join(f"{name.replace('_', ' ')} {number(value, 1)}" for name, value in figure.values.items())
    told = f"{figure.case} for {number(figure.values['minutes'])} minutes: {values} (latencies in ms)."
    return Section("Soak", "soak", f"{told}\n\n{facts.picture('soak.svg', 'memory')}", {"soak.svg": plot})


def parts(facts: Facts) -> Section | None:
    """What single parts of a message's way cost."""
    figures = facts.of("parts")
    if not figures.valid:
        return None
    rows = [[what, number(microseconds, 1)] for what, microseconds in figures.valid[-1].values.items()]
    text = "Microseconds of the processor for one message, each part run alone."
    return Section("What single parts cost", "parts", f"{text}\n\n{table(('part', 'microseconds'), rows)}")


def flames(facts: Facts) -> Section | None:
    """Where to look at the flame graphs."""
    figures = facts.of("profile")
    if not figures:
        return None
    links = [f"- [{case}]({facts.folder}/flame-{case}.svg)" for case in figures.cases]
    return Section("Flame graphs", "profile", "\n".join(["Each service under full load, by py-spy:", "", *links]))


ALL: tuple[Callable[[Facts], Section | None], ...] = (
    targets, throughput, mixed, latency, backlog, costs, alone, memory,
    old, replicas, settings, parts, soak, flames,
)  # fmt: skip
