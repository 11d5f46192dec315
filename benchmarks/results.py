"""What a run leaves: everything that the report is made from, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contender did in one round of one experiment.

    `case` tells apart what an experiment varies, for example `200/s` or `4 replicas`. `values` are its numbers
    by name, `series` whatever is drawn as a curve. `void` says why it does not count; empty if it does.
    """

    experiment: str
    contender: str
    round: int
    case: str = ""
    values: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    series: dict[str, list[list[float]]] = field(default_factory=dict)
    void: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """One run: the machine, what took part, and all figures."""

    began: str
    machine: dict[str, str]
    settings: dict[str, str]
    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def write(self, file: Path) -> None:
        """Leave the results in a file, one figure a line, so that a difference can be read."""
        head = {key: value for key, value in asdict(self).items() if key != "figures"}
        lines = ",\n".join(f"    {json.dumps(asdict(figure))}" for figure in self.figures)
        body = json.dumps(head, indent=2).removesuffix("\n}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'{body},\n  "figures": [\n{lines}\n  ]\n}}\n')


def read(file: Path) -> Results:
    """Read the results that `write` left."""
    document = json.loads(file.read_text())
    figures = [Figure(**figure) for figure in document.pop("figures")]
    return Results(**document, figures=figures)
