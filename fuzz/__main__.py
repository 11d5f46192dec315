"""Search every target for so many seconds: `make fuzz SECONDS=600`; what was found out is kept in fuzz/results.

Targets run two at a time. An input that broke a property is in var/fuzz/found, and belongs into a named test.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fuzz import corpus, hostile
from fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "fuzz" / "results" / "search.json"
_VAR = ROOT / "var" / "fuzz"
#: Bytes: above the largest body that is read, and near the largest table of headers.
_LONGEST = 70_000
_RUNS = re.compile(r"stat::number_of_executed_units: (\d+)")
_REACHED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_PEAK = re.compile(r"stat::peak_rss_mb: +(\d+)")


async def search(target: str, seconds: int, *, seed: int) -> dict[str, Any]:
    """Search one target in a process of its own; its figures. `found`: the inputs that broke a property."""
    home = _VAR / target
    shutil.rmtree(home, ignore_errors=True)
    for folder in ("seeds", "corpus", "found", "worst"):
        (home / folder).mkdir(parents=True)
    for data in (*hostile.seeds(target), *corpus.kept(target)):
        (home / "seeds" / _name(data)).write_bytes(data)
    search = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fuzz.guided", target, home / "worst"),
        *(
            f"-max_total_time={seconds}",
            f"-max_len={_LONGEST}",
            f"-seed={seed}",
            f"-artifact_prefix={home}/found/",
        ),
        *("-print_final_stats=1", "-timeout=20", "-rss_limit_mb=1024"),
        *(home / "corpus", home / "seeds"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    told = (await search.communicate())[1].decode(errors="replace")
    (home / "log").write_text(told)
    return _figures(told, home)


def _figures(told: str, home: Path) -> dict[str, Any]:
    reached = (_REACHED.findall(told) or [("0", "0", "0")])[-1]
    worst = (
        json.loads((home / "worst" / "worst.json").read_text()) if (home / "worst" / "worst.json").exists() else {}
    )
    runs, peak = _RUNS.search(told), _PEAK.search(told)
    return {
        "executions": int(runs[1]) if runs else 0,
        "edges": int(reached[0]),
        "features": int(reached[1]),
        "kept": int(reached[2]),
        "worst_ms": round(1000 * worst.get("seconds", 0.0), 1),
        "worst_bytes": worst.get("bytes", 0),
        "peak_rss_mb": int(peak[1]) if peak else 0,
        "found": sorted(file.name for file in (home / "found").iterdir()),
    }


async def _all(targets: Sequence[str], seconds: int, seed: int) -> dict[str, Any]:
    room = asyncio.Semaphore(max(1, os.cpu_count() or 1))

    async def one(target: str) -> dict[str, Any]:
        async with room:
            figures = await search(target, seconds, seed=seed)
        print(_line(target, figures), flush=True)  # noqa: T201 - it talks to a person at a terminal
        return figures

    return dict(zip(targets, await asyncio.gather(*map(one, targets)), strict=True))


def _line(target: str, figures: dict[str, Any]) -> str:
    found = f"BROKEN by {', '.join(figures['found'])}" if figures["found"] else "holds"
    return (
        f"{target:<11} {figures['executions']:>10,} executions, {figures['edges']:>5,} edges, worst "
        f"{figures['worst_ms']:.1f} ms, {figures['worst_bytes'] / 1024:.0f} KiB: {found}"
    )


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def main() -> int:
    """Search, tell, keep the figures; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="write the figures to fuzz/results")
    chosen = parser.parse_args()
    targets = chosen.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    figures = asyncio.run(_all(targets, chosen.seconds, chosen.seed))
    if chosen.keep:
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        RESULTS.write_text(
            json.dumps(
                {
                    "at": f"{datetime.now(UTC):%Y-%m-%d}",
                    "python": platform.python_version(),
                    "atheris": metadata.version("atheris"),
                    "seconds": chosen.seconds,
                    "targets": figures,
                },
                indent=2,
            )
            + "\n"
        )
    broken = [target for target, told in figures.items() if told["found"] or not told["executions"]]
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
