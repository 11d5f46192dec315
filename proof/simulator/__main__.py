"""Simulate thousands of sagas and hold what is left against the promise: `python -m proof.simulator [--json]`.

SEED= (by default a fresh one) and SAGAS= (by default 2000) come from the environment.
Exit code: 0 it holds, 1 it is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections import Counter
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from proof.simulator import shrinking
from proof.simulator.cases import cases
from proof.simulator.faults import Act, Moment
from proof.simulator.simulation import Run, run
from proof.simulator.verdict import Verdict, Violation, judge

_SHOWN = 10


class Total:
    """What all runs of one seed come to."""

    def __init__(self) -> None:
        self.crashes: Counter[Moment] = Counter()
        self.acts: Counter[Act] = Counter()
        self.endings: Counter[str] = Counter()
        self.sagas = self.events = self.commits = 0
        self.deliveries: Counter[str] = Counter()
        self.virtual_seconds = 0.0

    def add(self, result: Run, verdict: Verdict) -> None:
        """Count one run."""
        counts = verdict.counts
        self.crashes += result.crashes
        self.acts.update(strike.act for strike in result.strikes)
        self.endings += Counter(completed=counts.completed, undone=counts.undone, refused=counts.failed)
        self.sagas += len(result.case.orders)
        self.events += len(result.chronicle.events)
        self.commits += sum(database.commits for database in result.databases.values())
        self.deliveries += result.broker
        self.virtual_seconds += result.virtual_seconds


def main(arguments: list[str] | None = None) -> int:
    """Simulate as many sagas as asked for, and tell."""
    parser = argparse.ArgumentParser(
        prog="python -m proof.simulator", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="the figures, for programs")
    options = parser.parse_args(arguments)
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    sagas = int(os.environ.get("SAGAS") or 2000)
    console = Console(highlight=False, soft_wrap=True, stderr=options.json)
    began = time.perf_counter()
    total = Total()
    violations: list[Violation] = []
    console.print(f"seed {seed}, {sagas:,} sagas")
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        shown = progress.add_task("sagas", total=sagas)
        for case in cases(seed, sagas):
            result = run(case)
            verdict = judge(result)
            total.add(result, verdict)
            progress.update(shown, completed=total.sagas)
            if verdict.violations:
                violations = list(verdict.violations)
                break
    wall = time.perf_counter() - began
    if violations:
        console.print(f"BROKEN: replay with SEED={seed} SAGAS={sagas}", style="bold red")
        for violation in violations[:_SHOWN]:
            console.print(str(violation), style="red", markup=False)
        console.print(shrinking.story(result, violations[0]), markup=False)
        console.print("Looking for a small case that breaks, too ...")
        small = shrinking.smallest(shrinking.breaks, seed=seed)
        console.print(shrinking.told(small) if small else "no small case was found that breaks", markup=False)
    if options.json:
        sys.stdout.write(json.dumps(_figures(seed, total, violations, wall), indent=2) + "\n")
    else:
        _tell(console, total, wall)
    console.print("broken" if violations else "it holds", style="bold red" if violations else "bold green")
    return 1 if violations else 0


def _figures(seed: int, total: Total, violations: list[Violation], wall: float) -> dict[str, object]:
    return {
        "seed": seed,
        "sagas": total.sagas,
        "endings": total.endings,
        "crashes": sum(total.crashes.values()),
        "crashes_by_boundary": total.crashes,
        "faults": total.acts,
        "broker": total.deliveries,
        "commits": total.commits,
        "events": total.events,
        "virtual_seconds": round(total.virtual_seconds, 3),
        "wall_seconds": round(wall, 3),
        "violations": [asdict(violation) for violation in violations],
    }


def _tell(console: Console, total: Total, wall: float) -> None:
    """The figures for a person."""
    told = ", ".join(f"{count:,} {ending}" for ending, count in total.endings.items())
    console.print(f"{total.sagas:,} sagas: {told}")
    console.print(
        f"{total.deliveries['published']:,} messages published, {total.deliveries['delivered']:,} deliveries, "
        f"{total.deliveries['redelivered']:,} of them again; {total.commits:,} transactions"
    )
    console.print(f"{sum(total.crashes.values()):,} crashes:")
    for moment in Moment:
        if total.crashes[moment]:
            console.print(f"  {total.crashes[moment]:>6,}  {moment}")
    others = {act: count for act, count in total.acts.most_common() if act is not Act.CRASH}
    console.print(f"{sum(others.values()):,} other faults, where a service ...")
    for act, count in others.items():
        console.print(f"  {count:>6,}  {act}")
    console.print(
        f"{total.virtual_seconds / 60:,.1f} virtual minutes, {total.events:,} events, {wall:,.1f} s, "
        f"{total.sagas / wall:,.0f} sagas/s"
    )


if __name__ == "__main__":
    sys.exit(main())
