"""Measures: `python -m benchmarks`. The report is made from what this leaves: `python -m benchmarks.report`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, roster
from benchmarks.bench import Bench
from benchmarks.experiments import EXPERIMENTS
from benchmarks.progress import telling
from benchmarks.results import RESULTS, Results
from benchmarks.stand import standing
from tools.processes import terminated_like_interrupted


def main() -> int:
    """Run the experiments that were asked for, and leave their results."""
    known = roster.contenders()
    options = _options(list(known))
    wanted = options.contenders
    with terminated_like_interrupted(), standing(options.stand) as stand:
        if not stand.postgres_url:
            print("There is no PostgreSQL: only what needs none is measured.")
            wanted = [name for name in wanted if name in {"floor", "sqlite"}]
        results = Results(
            began=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=machine.describe() | stand.describe(),
            settings={"rounds": str(options.rounds), "sagas": str(options.sagas)},
        )
        bench = Bench(
            stand=stand,
            roster={name: known[name] for name in wanted},
            rounds=options.rounds,
            sagas=options.sagas,
            minutes=options.minutes,
            results=results,
            save=lambda: results.write(options.json),
        )
        plan = {name: EXPERIMENTS[name].turns(bench) for name in options.experiments}
        with telling(sum(plan.values())) as bench.teller:
            for name, turns in plan.items():
                bench.teller.say(f"{name}: {EXPERIMENTS[name].title}: {turns} turns")
                EXPERIMENTS[name].run(bench)
    print(f"Results: {options.json}")
    return 1 if any(figure.void for figure in results.figures) else 0


def _options(known: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--experiments", type=_list(list(EXPERIMENTS)), default=list(EXPERIMENTS), help=", ".join(EXPERIMENTS)
    )
    parser.add_argument("--contenders", type=_list(known), default=known, help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--sagas", type=int, default=15_000, help="sagas of a turn; default: %(default)s")
    parser.add_argument("--minutes", type=float, default=30, help="how long the soak takes; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one round of 500 sagas, to see that all works")
    parser.add_argument("--stand", choices=["auto", "containers", "processes"], default="auto")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", help="default: %(default)s")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.sagas, options.minutes = 1, 500, 0.5
    return options


def _list(known: list[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return names

    return read


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("Interrupted; what was measured so far is in the results.")
