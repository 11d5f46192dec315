"""What is pinned in a file of requirements: names and exact versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PIN = re.compile(r"(?m)^([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)")


@dataclass(frozen=True, slots=True, order=True)
class Pin:
    """One release of one package."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def read(file: Path) -> list[Pin]:
    """All that a file pins, whatever system or version of Python it is for."""
    return sorted({Pin(_normal(name), version) for name, version in _PIN.findall(file.read_text())})


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
