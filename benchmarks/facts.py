"""What the sections of a report are made from, and what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.tables import Figures

RATE = "sagas_per_s"
PERCENTILES = {"p50": "median", "p90": "90 %", "p99": "99 %", "p999": "99.9 %"}
MARKS = {"pivot": "expired", "last": "notice"}


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a section may draw on: figures by experiment, contenders by name, and where plots lie."""

    figures: Mapping[str, Figures]
    contenders: Mapping[str, Mapping[str, Any]]
    folder: str

    def of(self, experiment: str) -> Figures:
        """The figures of an experiment; none if it was not run."""
        return self.figures.get(experiment, Figures([]))

    def title(self, contender: str) -> str:
        """What a contender is called."""
        return str(self.contenders.get(contender, {}).get("title", contender))

    def picture(self, name: str, what: str) -> str:
        """A plot as Markdown."""
        return f"![{what}]({self.folder}/{name})"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report, made of one experiment."""

    title: str
    experiment: str
    text: str
    plots: dict[str, str] = field(default_factory=dict)


def rate_of(case: str) -> float:
    """The rate that a case of the latencies is called by."""
    return float(case.removesuffix("/s"))
