"""Writes docs/benchmarks.md and its plots from results alone: `python -m benchmarks.report [RESULTS.json ...]`.

Of several results each experiment is taken from the newest that has it. docs/benchmarks/changes.md, written by
people, is taken in as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks import sections
from benchmarks.facts import Facts
from benchmarks.programs import ROOT
from benchmarks.results import RESULTS, Results, read
from benchmarks.tables import Figures, table

DOCUMENT = ROOT / "docs" / "benchmarks.md"
_NOTE = "<!-- Written by `python -m benchmarks.report` from benchmarks/results. Change those, not this file. -->"


def compose(results: Sequence[Results], folder: Path) -> dict[Path, str]:
    """All files of the report, by their path: the document, and its plots in `folder` beside it."""
    newest = sorted(results, key=lambda run: run.began)
    source: dict[str, Results] = {figure.experiment: run for run in newest for figure in run.figures}
    figures = {
        experiment: Figures(figure for figure in run.figures if figure.experiment == experiment)
        for experiment, run in source.items()
    }
    contenders = {name: facts for run in newest for name, facts in run.contenders.items()}
    facts = Facts(figures, contenders, folder.name)
    written: dict[Path, str] = {}
    parts = ["# Benchmarks", "", _NOTE, "", _INTRODUCTION]
    for section in sections.ALL:
        made = section(facts)
        if made is None:
            continue
        parts += [f"## {made.title}", ""]
        if made.experiment in source:
            parts += [_run(source[made.experiment]), ""]
        parts += [made.text, "", *_void(figures.get(made.experiment))]
        written |= {folder / name: drawing for name, drawing in made.plots.items()}
    parts += [_changes(folder / "changes.md"), _METHOD, "", _machines(source.values())]
    written[folder.with_suffix(".md")] = "\n".join(parts).rstrip() + "\n"
    return written


def _run(run: Results) -> str:
    broken = [name for name in run.settings if name.startswith("broken")]
    also = f" Broken off: {', '.join(broken)}." if broken else ""
    said = ", ".join(f"{value} {name}" for name, value in run.settings.items() if name not in broken)
    return f"<sub>Run of {run.began}; {said}.{also}</sub>"


def _void(figures: Figures | None) -> list[str]:
    """What does not count, and why."""
    if not figures or not figures.void:
        return []
    lines = [
        f"- {figure.contender} {figure.case}, round {figure.round}: {figure.void[0]}"
        for figure in figures.void[:10]
    ]
    return [f"**Void: {len(figures.void)} of {len(figures.all)} figures do not count.**", "", *lines, ""]


def _changes(file: Path) -> str:
    return f"{file.read_text().strip()}\n" if file.exists() else ""


def _machines(runs: Iterable[Results]) -> str:
    rows: dict[tuple[str, str], None] = {}
    for run in runs:
        for name, value in {**run.machine, **_versions(run)}.items():
            rows[name, value] = None
    return "## Machine and versions\n\n" + table(("what", "is"), [(name, value) for name, value in sorted(rows)])


def _versions(run: Results) -> Mapping[str, str]:
    return {
        package: version for facts in run.contenders.values() for package, version in facts["versions"].items()
    }


_INTRODUCTION = """\
How fast the saga is beside a **floor**: the same five hops with no database and no checks at all. Everything runs
on one machine, which broker, database, five services and driver share. All durability is at its default: quorum
queues, persistent and confirmed messages, `fsync` and `synchronous_commit` on.

`make bench` measures anew, turn by turn, so that the machine's mood hits all alike. Ratios are taken within one
round. A figure counts only if the audit of all books is clean afterwards. *CPU ms* is the processor time of the
programs, the broker and the database together for one saga: it says what a saga costs even when the machine was
busy with something else.
"""

_METHOD = """\
## How it is measured

- **The floor** is written as fast as aio-pika's parts allow: every delivery is published on at once, all in flight
  on one connection, mandatory, persistent and confirmed; what was confirmed together is acked with one frame. Its
  messages have the size and the properties of ours. One saga is six messages, of ours seven (`payment.completed`,
  which nobody listens to, is the seventh).
- **The driver** is a process of its own that speaks AMQP with frames made in advance; it hears only the message
  that ends a saga (`notification.sent`, and for latencies also `queue.expired`).
- **Throughput** keeps 2,000 sagas under way. The clock starts with the first command and stops when the last
  notice was heard *and* no payment is provisional, no notice pending and no event unpublished any more.
- **Latency** is open loop: each command has its moment, and its wait counts from that moment, whatever became of
  those before it. A system that stands still is charged for everybody who would have come meanwhile.
- **Seats, wallets, tokens and old sagas** are copies, made in the database, of rows that the services wrote.
- **Each turn** begins with an empty database, new queues and 200 sagas that nobody counts, after a `CHECKPOINT`.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, default=sorted(RESULTS.glob("*.json")))
    parser.add_argument("--check", action="store_true", help="write nothing; fail if what is there is stale")
    parser.add_argument("--output", type=Path, default=DOCUMENT, help="default: docs/benchmarks.md")
    options = parser.parse_args(arguments)
    if not options.results:
        sys.stderr.write("There are no results yet: make bench\n")
        return 0 if options.check else 1
    files = compose([read(file) for file in options.results], options.output.with_suffix(""))
    if options.check:
        stale = [path for path, content in files.items() if not path.exists() or path.read_text() != content]
        sys.stderr.writelines(f"{path} is stale: python -m benchmarks.report\n" for path in stale)
        return 1 if stale else 0
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
