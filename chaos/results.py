"""What a run found, as it is kept: one JSON file a run, written after every turn."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: Runs that are kept; the report is made from them alone.
RESULTS = Path(__file__).with_name("results")


@dataclass(slots=True)
class Turn:
    """One fault, and what became of the system and of the payments under way."""

    fault: str
    detail: str = ""
    began: str = ""
    held: float = 0
    """Seconds from its beginning until it was lifted."""
    recovered: float | None = None
    """Seconds from there until all was as before; None: not within its bound."""
    bound: float = 0
    busy: float = 0
    """Programs that wanted to run meanwhile, for each core of the machine; above 1 some had to wait."""
    sagas: int = 0
    completed: int = 0
    undone: int = 0
    repeated: int = 0
    otherwise: dict[str, int] = field(default_factory=dict)
    finds: list[str] = field(default_factory=list)
    """What must not be; empty: passed."""


@dataclass(slots=True)
class Total:
    """The count over a whole run, when all is still again."""

    commands: dict[str, int] = field(default_factory=dict)
    """Confirmed, repetitions included, by routing key."""
    sagas: int = 0
    completed: int = 0
    undone: int = 0
    finds: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Run:
    """All turns on one ground."""

    began: str
    ground: str
    seed: int
    rate: float
    machine: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    total: Total | None = None
    skipped: dict[str, str] = field(default_factory=dict)
    """Faults that could not be made here, and why."""
    samples: list[dict[str, float]] = field(default_factory=list)
    """Of a soak: what was measured again and again."""
    judged: dict[str, str] = field(default_factory=dict)
    """Of a soak: what each measure is judged to be."""

    @property
    def passed(self) -> bool:
        """Whether nothing was found that must not be."""
        finds = [find for turn in self.turns for find in turn.finds]
        finds += self.total.finds if self.total else []
        return not finds and not any(word.startswith("GROWS") for word in self.judged.values())

    def write(self, file: Path) -> None:
        """Keep it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(file: Path) -> Run:
    """A run that was kept."""
    found: dict[str, Any] = json.loads(file.read_text())
    turns = [Turn(**turn) for turn in found.pop("turns")]
    total = found.pop("total")
    return Run(**found, turns=turns, total=Total(**total) if total else None)
