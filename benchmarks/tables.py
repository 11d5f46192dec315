"""Figures brought together: medians of what counts, ratios within one round, and tables of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.results import Figure


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the middle and the most of some rounds."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(min(values), median(values), max(values))


class Figures:
    """Figures of one experiment. What is void is kept apart: it counts nowhere."""

    def __init__(self, figures: Iterable[Figure]) -> None:
        self.all = list(figures)
        self.valid = [figure for figure in self.all if not figure.void]
        self.void = [figure for figure in self.all if figure.void]

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def contenders(self) -> list[str]:
        """Who has a valid figure, in the order of their turns."""
        return list(dict.fromkeys(figure.contender for figure in self.valid))

    @property
    def cases(self) -> list[str]:
        """What was varied, in order."""
        return list(dict.fromkeys(figure.case for figure in self.valid))

    def of(self, contender: str, case: str | None = None) -> list[Figure]:
        """One contender's valid figures, one a round."""
        return [figure for figure in self.valid if figure.contender == contender and case in {None, figure.case}]

    def values(self, contender: str, value: str, case: str | None = None) -> list[float]:
        """One value of one contender, one a round."""
        return [figure.values[value] for figure in self.of(contender, case) if value in figure.values]

    def middle(self, contender: str, value: str, case: str | None = None) -> float | None:
        """The median over the rounds; None if there is none."""
        found = self.values(contender, value, case)
        return median(found) if found else None

    def ratio(self, value: str, above: tuple[str, str | None], below: tuple[str, str | None]) -> Spread | None:
        """One (contender, case) over another, within the same round each; None if they never met."""
        others = {figure.round: figure.values.get(value) for figure in self.of(*below)}
        found = [
            figure.values[value] / other
            for figure in self.of(*above)
            if value in figure.values and (other := others.get(figure.round))
        ]
        return Spread.of(found) if found else None


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table of Markdown; so many columns are words, and numbers stand right."""
    lines = [" | ".join(heads), " | ".join(["---"] * words + ["---:"] * (len(heads) - words))]
    lines += [" | ".join(row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def number(value: float | None, digits: int = 0) -> str:
    """A number for people; a dash for none."""
    return "-" if value is None else f"{value:,.{digits}f}"


def spread(values: Sequence[float], digits: int = 0) -> list[str]:
    """Least, middle and most, as cells."""
    if not values:
        return ["-"] * 3
    found = Spread.of(values)
    return [number(value, digits) for value in (found.least, found.middle, found.most)]


def times(ratio: Spread | None, digits: int = 2) -> str:
    """A ratio for people: its median, and from what to what it went."""
    if ratio is None:
        return "-"
    return f"{ratio.middle:.{digits}f} ({ratio.least:.{digits}f} .. {ratio.most:.{digits}f})"


def group(figures: Iterable[Figure], key: Callable[[Figure], str]) -> dict[str, list[Figure]]:
    """Figures by something of theirs, in order."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(key(figure), []).append(figure)
    return found
