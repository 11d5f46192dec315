"""Every interleaving of a few sagas, searched exhaustively: `python -m proof.explorer`, or `make explore`.

One unit of work at a time first, then with losses and their repair, then two replicas of a service at once.
`--json` prints the figures of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from common import barrier
from proof.cells import named, noting
from proof.laboratory import Laboratory, open_laboratory
from proof.races import races, replicated
from proof.scenarios import Scenario, repaired, scenarios
from proof.search import Search

__all__ = ["Scenario", "Search", "explore_all", "repaired", "scenarios"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one search found. `experiments`: questions to the production code that no search before had asked."""

    scenario: str
    replicas: int
    states: int
    experiments: int
    endings: tuple[str, ...]
    seconds: float
    violation: str | None

    def __str__(self) -> str:
        verdict = "BROKEN" if self.violation else "holds"
        line = (
            f"{self.scenario:44} {self.states:>9,} states  {len(self.endings)} endings  "
            f"{self.seconds:6.1f} s  {verdict}"
        )
        return f"{line}\n{self.violation}" if self.violation else line


async def explore_all(wanted: Sequence[Scenario], tell: Callable[[str], None]) -> list[Figures]:
    """Search every scenario, telling what was found in each."""
    found = []
    async with open_laboratory() as laboratory:
        for scenario in wanted:
            found.append(await _explore(laboratory, scenario))
            tell(str(found[-1]))
        total = sum(figures.states for figures in found)
        tell(f"{total:,} states, decided by {laboratory.experiments:,} experiments on the production code")
    return found


async def _explore(laboratory: Laboratory, scenario: Scenario) -> Figures:
    before, began = laboratory.experiments, time.monotonic()
    search = await Search(laboratory, scenario).run()
    return Figures(
        scenario=scenario.name,
        replicas=2 if scenario.replicas else 1,
        states=search.states,
        experiments=laboratory.experiments - before,
        endings=tuple(sorted(", ".join(ending) or "no saga" for ending in search.endings)),
        seconds=round(time.monotonic() - began, 1),
        violation=str(search.violation) if search.violation else None,
    )


def main() -> int:
    """Search what the command line wants; 1 if a promise breaks."""
    parser = argparse.ArgumentParser(prog="python -m proof.explorer", description=__doc__)
    parser.add_argument("duplicates", nargs="?", type=int, default=2, help="messages that may be repeated")
    parser.add_argument("--json", action="store_true", help="print figures instead of lines")
    parser.add_argument("--only", default="", help="only scenarios with this in their name")
    arguments = parser.parse_args()
    lossy = repaired(duplicates=1, losses=2)
    all_ = (*scenarios(duplicates=arguments.duplicates, two_sagas=True), *lossy, *races(), *replicated())
    wanted = [scenario for scenario in all_ if arguments.only in scenario.name]
    with noting() as asked:
        tell = _nothing if arguments.json else _line
        found = asyncio.run(explore_all(wanted, tell))
    never = sorted(named(cell) for cell in barrier.TABLE if cell not in asked)
    if arguments.json:
        _line(json.dumps({"searches": [asdict(figures) for figures in found], "never_asked": never}, indent=2))
    else:
        _line(f"never asked of the barrier's table: {', '.join(never) or 'nothing'}")
    return 1 if any(figures.violation for figures in found) else 0


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _nothing(_: str) -> None:
    """Where nobody reads along."""


if __name__ == "__main__":
    sys.exit(main())
