"""`python -m tools.mutants` changes the deciding code in one small way at a time; a test must notice each.

Exit 0: every mutant is killed, or explained in explained.toml. Exit 1: one survived without an explanation, or an
explanation is no longer needed. Exit 2: it could not be found out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tools.mutants import reading, session, verdict, workspace
from tools.mutants.reading import Fate
from tools.mutants.verdict import Verdict

_COLUMNS = ("mutants", "killed", "timeout", "explained", "survived")
_GOOD, _BAD, _UNKNOWN = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write, and give the exit code."""
    options = _options(arguments)
    started = time.monotonic()
    try:
        files = workspace.mutated_files(options.only)
        workspace.prepare(options.only, fresh=not options.again)
        print(f"{len(files)} files; learning which tests reach what (about a minute) ...", flush=True)
        session.run(workspace.HOME, files, jobs=options.jobs, told=_Progress(started))
    except (session.BrokenError, FileNotFoundError) as error:
        print(f"\n{error}", file=sys.stderr)
        return _UNKNOWN
    except KeyboardInterrupt:
        return _UNKNOWN
    seconds = round(time.monotonic() - started)
    blamed = [name for name, fate in reading.no_ops(workspace.HOME, files).items() if fate is not Fate.SURVIVED]
    mutants = reading.mutants(workspace.HOME, files)
    judged = verdict.judge(mutants, verdict.read(), whole=not options.only)
    _print(judged, blamed, seconds)
    if options.json:
        figures = _figures(judged, blamed, seconds) | {"fresh": not options.again}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if blamed:
        return _UNKNOWN
    return _GOOD if judged.is_good else _BAD


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help="mutate only these files")
    parser.add_argument(
        "--again", action="store_true", help="test only what lived last time, and what has changed"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="mutants tested at once")
    return parser.parse_args(arguments)


class _Progress:
    """One line that changes on a terminal, a line every half minute elsewhere."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._next = 0.0

    def __call__(self, tested: int, mutants: int) -> None:
        now = time.monotonic()
        if not mutants or now < self._next:
            return
        live = sys.stdout.isatty()
        self._next = now + (1 if live else 30)
        line = f"{tested} of {mutants} mutants tested, {now - self._started:.0f} s"
        print(f"\r{line}  " if live else line, end="" if live else "\n", flush=True)


def _print(judged: Verdict, blamed: Sequence[str], seconds: int) -> None:
    width = max(len(file) for file in judged.counts) + 2
    print(f"\n{'':{width}}" + "".join(f"{column:>11}" for column in _COLUMNS))
    for file, counts in [*sorted(judged.counts.items()), ("all", _total(judged))]:
        print(f"{file:{width}}" + "".join(f"{counts.get(column, 0):>11}" for column in _COLUMNS))
    print(f"in {seconds // 60} min {seconds % 60} s\n")
    for title, things in (
        ("The tests fail although nothing is changed; kills in these files say nothing:", blamed),
        ("Not explained:", judged.unexplained),
        ("Nobody knows what became of:", judged.unknown),
        ("No survivor needs this explanation any more:", judged.unneeded),
    ):
        if things:
            print(title)
        for thing in things:
            print(f"  - {thing}")
    if judged.is_good and not blamed:
        print("Every mutant is killed or explained.")


def _figures(judged: Verdict, blamed: Sequence[str], seconds: int) -> dict[str, object]:
    total = _total(judged)
    return {
        "library": f"mutmut {importlib.metadata.version('mutmut')}",
        "seconds": seconds,
        **{column: total[column] for column in _COLUMNS},
        "unknown": len(judged.unknown),
        "files": {
            file: {column: counts.get(column, 0) for column in _COLUMNS} for file, counts in judged.counts.items()
        },
        "not_explained": [str(mutant) for mutant in judged.unexplained],
        "explanations_not_needed": [str(explanation) for explanation in judged.unneeded],
        "fails_unchanged": list(blamed),
    }


def _total(judged: Verdict) -> Counter[str]:
    return sum((Counter(counts) for counts in judged.counts.values()), Counter())


if __name__ == "__main__":
    sys.exit(main())
