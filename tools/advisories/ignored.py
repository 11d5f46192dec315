"""Known faults that do not touch us: each with the reason, and the day on which that is to be looked at again."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tools.advisories.asking import Fault


@dataclass(frozen=True, slots=True)
class Ignored:
    """One fault that is ignored. `id`: any of its names."""

    id: str
    package: str
    why: str
    decided: date
    until: date


@dataclass(frozen=True, slots=True)
class Judged:
    """What is left of the faults, and what is to be said of those that are ignored."""

    faults: list[Fault]
    remarks: list[str]


def read(file: Path) -> list[Ignored]:
    """The list; ValueError for an entry that lacks something, or that is to hold for more than half a year."""
    entries = []
    for told in tomllib.loads(file.read_text()).get("ignored", []):
        match told:
            case {
                "id": str(id_),
                "package": str(package),
                "why": str(why),
                "decided": date() as decided,
                "until": date() as until,
            } if why.strip():
                if not 0 <= (until - decided).days <= 184:
                    raise ValueError(f"{file.name}: {id_}: half a year at most, then somebody looks again")
                entries.append(Ignored(id_, package, why, decided, until))
            case _:
                raise ValueError(f"{file.name}: an entry has id, package, why, decided and until: {told}")
    return entries


def judged(faults: Iterable[Fault], ignored: Sequence[Ignored], *, today: date) -> Judged:
    """Which faults count, today."""
    left, remarks, used = [], [], set()
    for fault in faults:
        entry = next((it for it in ignored if it.package == fault.pin.name and it.id in fault.ids), None)
        if entry is not None:
            used.add(entry)
        if entry is None:
            left.append(fault)
        elif entry.until < today:
            left.append(fault)
            remarks.append(f"{entry.id} was ignored until {entry.until}: look again ({entry.why})")
        else:
            remarks.append(f"{fault.pin}: {entry.id} is ignored until {entry.until}: {entry.why}")
    remarks += [f"{it.id} is ignored, and {it.package} no longer has it" for it in ignored if it not in used]
    return Judged(left, remarks)
