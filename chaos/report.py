"""Writes docs/reliability.md from the runs that are kept, and from the table of faults: `python -m chaos.report`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from chaos.faults import FAULTS, LEFT_OUT, Fault, Ground
from chaos.results import RESULTS, Run, Total, Turn, read
from containers.labels import ROOT

DOCUMENT = ROOT / "docs" / "reliability.md"
_NOTE = "<!-- Written by `python -m chaos.report` from chaos/results and chaos/faults.py. Change those. -->"

_INTRODUCTION = """\
What real faults cost, on real containers and under load all the time. `make chaos` makes them anew.

A payment that somebody makes here has a seat, points and a token, all asked for over the exchange; 14 in 100 are made so
that one of the four steps must refuse them, 5 in 100 are sent twice. Every command is published with a confirm, and waits in
its client until it has one. A fault **passes** only if

- the system comes back **by itself**: every queue is read, and no more payments are under way than before the fault, within
  the bound that the table sets (counted from the moment when the fault was lifted);
- every confirmed command is **settled**: each payment wholly done or wholly undone in all five databases, its user told, no
  event unpublished; each seat, top-up and token recorded;
- nothing else is lost: where a fault may cost only time, every good payment is done and every bad one is refused by the
  step that must refuse it;
- `saga audit` finds nothing.

*Load per core* is how many programs wanted to run at once on each core while the system came back: everything here, load, broker,
database and services, shares one machine, and at times others use it, too. Above 1 some of them had to wait, so the times below
are longer than on machines of one's own.

A fault that destroys messages (a queue deleted or emptied, a broker's disk lost) may cost more: what was confirmed and not yet
taken from its queue is gone with the disk, and its client asks again, as any client may at any time.
"""
_GROUNDS: Mapping[Ground, str] = {
    Ground.PLAIN: "One broker, one PostgreSQL, five services",
    Ground.CLUSTER: "Three brokers: quorum queues of three, services that know three addresses",
    Ground.SMALL_DISK: "A database on a disk of 600 MB",
}


def compose(runs: Sequence[Run]) -> str:
    """The whole document."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    for run in runs:
        for turn in run.turns:
            turns[turn.fault].append(turn)
    parts = ["# Reliability", "", _NOTE, "", _INTRODUCTION, _sum(runs), ""]
    for ground in Ground:
        faults = [fault for fault in FAULTS.values() if fault.ground is ground]
        parts += [f"## {_GROUNDS[ground]}", "", _table(faults, turns), ""]
    parts += _finds(runs)
    parts += _soaks(runs)
    parts += [
        "## Not made here",
        "",
        *(f"- {what}: {why}." for what, why in LEFT_OUT.items()),
        *_skipped(runs, turns),
        "",
    ]
    parts += ["## Where", "", _machines(runs)]
    return "\n".join(parts).rstrip() + "\n"


def _sum(runs: Sequence[Run]) -> str:
    ended = [run.total for run in runs if run.total]
    broken_off = [turn for run in runs if not run.total for turn in run.turns]
    commands = sum(sum(total.commands.values()) for total in ended)
    made = sum(len(run.turns) for run in runs)
    finds = sum(len(turn.finds) for run in runs for turn in run.turns) + sum(len(total.finds) for total in ended)
    counted: list[Total | Turn] = [*ended, *broken_off]
    off = (
        f" (of {sum(not run.total for run in runs)} broken off, only what its turns counted)" if broken_off else ""
    )
    return (
        f"**{made} faults made in {len(runs)} runs{off}; {commands:,} commands confirmed; "
        f"{sum(one.sagas for one in counted):,} payments, of which {sum(one.completed for one in counted):,} wholly "
        f"done and {sum(one.undone for one in counted):,} wholly undone; {finds or 'no'} "
        f"{'thing' if finds == 1 else 'things'} found that must not be.**"
    )


def _table(faults: Iterable[Fault], turns: Mapping[str, Sequence[Turn]]) -> str:
    lines = [
        "| fault | what is done | may cost | held, s | as before after, s | bound, s | load per core | times | payments meanwhile | found |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for fault in faults:
        made = turns.get(fault.name, [])
        held = _range([turn.held for turn in made])
        back = _range([turn.recovered for turn in made if turn.recovered is not None])
        late = sum(turn.recovered is None for turn in made)
        found = sum(bool(turn.finds) for turn in made)
        lines.append(
            f"| `{fault.name}` | {fault.told.rstrip('.')} | {fault.cost} | {held} | {back}"
            f"{f', {late} not' if late else ''} | {fault.bound:g} | {_range([turn.busy for turn in made])} | {len(made) or 'not yet'} | "
            f"{sum(turn.sagas for turn in made):,} | {f'**{found}**' if found else 'nothing' if made else '-'} |"
        )
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} - {high:.0f}"


def _finds(runs: Sequence[Run]) -> list[str]:
    lines = [
        f"- `{turn.fault}` ({turn.began}; {turn.detail or 'not made'}): {find}"
        for run in runs
        for turn in run.turns
        for find in turn.finds
    ]
    lines += [
        f"- at the end of the run of {run.began}: {find}" for run in runs if run.total for find in run.total.finds
    ]
    return ["## Found", "", *lines, ""] if lines else []


def _soaks(runs: Sequence[Run]) -> list[str]:
    parts: list[str] = []
    for run in runs:
        if not run.samples:
            continue
        minutes = run.samples[-1]["seconds"] / 60
        parts += [
            f"## {minutes:.0f} minutes at {run.rate:g} payments a second, {len(run.turns)} faults",
            "",
            f"Run of {run.began}, {len(run.samples)} samples. Medians of the first third and of the last.",
            "",
            "| measure | judged |",
            "|---|---|",
            *(f"| {measure} | {word} |" for measure, word in run.judged.items()),
            "",
        ]
    return parts


def _skipped(runs: Sequence[Run], turns: Mapping[str, Sequence[Turn]]) -> list[str]:
    why = {name: reason for run in runs for name, reason in run.skipped.items() if name not in turns}
    return [f"- `{name}`: {reason}." for name, reason in why.items()]


def _machines(runs: Sequence[Run]) -> str:
    rows = sorted({(name, value) for run in runs for name, value in run.machine.items()})
    return "\n".join(["| what | is |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report, or with --check look whether it is fresh."""
    parser = argparse.ArgumentParser(prog="python -m chaos.report", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, default=sorted(RESULTS.glob("*.json")))
    parser.add_argument("--check", action="store_true", help="write nothing; fail if what is there is stale")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="default: docs/reliability.md")
    options = parser.parse_args(arguments)
    content = compose([read(file) for file in options.results])
    if options.check:
        if not options.output.exists() or options.output.read_text() != content:
            sys.stderr.write(f"{options.output} is stale: python -m chaos.report\n")
            return 1
        return 0
    options.output.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
