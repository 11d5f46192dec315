"""What the machine is, and who used how much of it: processor time and memory of programs and their children.

Read from /proc, so on Linux only. Processor time tells a slow system from a machine that was busy with others.
"""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time that each group had used at one moment, and all groups of the machine together."""

    at: float
    groups: Mapping[str, float]
    machine: float

    def since(self, before: Usage) -> dict[str, float]:
        """What each group used since `before`, in seconds; `others` are those that had no business here."""
        used = {
            group: round(max(seconds - before.groups.get(group, 0.0), 0.0), 3)
            for group, seconds in self.groups.items()
        }
        others = self.machine - before.machine - sum(used.values())
        return used | {"others": round(max(others, 0.0), 3), "elapsed": round(self.at - before.at, 3)}


def usage(groups: Mapping[str, Iterable[int]]) -> Usage:
    """Read what the groups, each given by its first processes, and the whole machine have used so far."""
    processes = _processes()
    children = defaultdict(list)
    for pid, (parent, _, _) in processes.items():
        children[parent].append(pid)

    def used(pid: int) -> float:
        _, own, reaped = processes.get(pid, (0, 0.0, 0.0))
        return own + reaped + sum(used(child) for child in children[pid])

    return Usage(
        at=time.monotonic(),
        groups={name: sum(map(used, pids)) for name, pids in groups.items()},
        machine=_busy(),
    )


def memory(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of each program in MB; one that is gone is left out."""
    found = {}
    for name, pid in pids.items():
        try:
            resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
        found[name] = round(resident * _PAGE / 1e6, 1)
    return found


def describe() -> dict[str, str]:
    """Processor, cores, memory, kernel and Python of this machine."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int((_field('/proc/meminfo', 'MemTotal') or '0 kB').split()[0]) / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processes() -> dict[int, tuple[int, float, float]]:
    """Each process's parent, its own processor time, and that of its children that have ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The command's name, in parentheses, may hold parentheses of its own: read after the last one.
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
        found[int(entry.name)] = (int(fields[1]), own / _TICKS, reaped / _TICKS)
    return found


def _busy() -> float:
    """Seconds that all cores together were busy since the machine began."""
    user, nice, system, _, _, interrupt, soft, *_ = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupt + soft) / _TICKS


def _field(file: str, name: str) -> str | None:
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
