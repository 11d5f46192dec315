"""Survivors held against the explanations: each needs one, and each explanation must still be needed."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.reading import Fate, Mutant

EXPLAINED = Path(__file__).with_name("explained.toml")
_NOT_KILLED = (Fate.SURVIVED, Fate.UNTESTED)
_PARTS = ("file", "function", "line", "was", "becomes")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why mutants may survive. Each part is a pattern in which `*` stands for anything; the default is `*`."""

    reason: str
    file: str = "*"
    function: str = "*"
    line: str = "*"
    was: str = "*"
    becomes: str = "*"

    def covers(self, mutant: Mutant) -> bool:
        """Whether it speaks of this mutant."""
        return all(_like(getattr(self, part), getattr(mutant, part)) for part in _PARTS)

    def __str__(self) -> str:
        return ", ".join(f"{part} {value}" for part in _PARTS if (value := getattr(self, part)) != "*")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the run has shown."""

    counts: Mapping[str, Mapping[str, int]]
    """By file: how many mutants were killed, ran out of time, survived, are explained or unknown."""
    unexplained: Sequence[Mutant]
    unknown: Sequence[Mutant]
    unneeded: Sequence[Explanation]

    @property
    def is_good(self) -> bool:
        """Whether every survivor is explained, and every explanation needed."""
        return not (self.unexplained or self.unknown or self.unneeded)


def read(path: Path = EXPLAINED) -> list[Explanation]:
    """The explanations of a file. TypeError for a part that does not exist, or a missing reason."""
    return [Explanation(**entry) for entry in tomllib.loads(path.read_text()).get("explained", [])]


def judge(mutants: Sequence[Mutant], explanations: Sequence[Explanation], *, whole: bool) -> Verdict:
    """Hold the mutants against the explanations; `whole`: these are all mutants that there are."""
    counts: dict[str, Counter[str]] = {}
    unexplained: list[Mutant] = []
    needed: set[Explanation] = set()
    for mutant in mutants:
        of_file = counts.setdefault(mutant.file, Counter())
        of_file["mutants"] += 1
        if mutant.fate not in _NOT_KILLED:
            of_file[mutant.fate] += 1
            continue
        by = [explanation for explanation in explanations if explanation.covers(mutant)]
        needed.update(by)
        if by:
            of_file["explained"] += 1
        else:
            of_file["survived"] += 1
            unexplained.append(mutant)
    return Verdict(
        counts=counts,
        unexplained=unexplained,
        unknown=[mutant for mutant in mutants if mutant.fate is Fate.UNKNOWN],
        unneeded=[explanation for explanation in explanations if whole and explanation not in needed],
    )


def _like(pattern: str, text: str) -> bool:
    parts = (re.escape(part) for part in " ".join(pattern.split()).split("*"))
    return re.fullmatch(".*".join(parts), " ".join(text.split())) is not None
