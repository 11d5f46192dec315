"""One combination: made ready, tested, and what came of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools import images
from tools.docker_engine import ROOT, answer
from tools.matrix import pythons, versions
from tools.matrix.combinations import Combination

_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a combination. `commit`: of the code, with a plus if it was changed since."""

    name: str
    versions: Mapping[str, str]
    tests: tuple[str, ...]
    passed: int
    failed: int
    skipped: int
    seconds: int
    date: str
    commit: str
    why: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        """It as JSON holds it."""
        return asdict(self)


def run(combination: Combination) -> Result:
    """Run its tests; raises SetupError if it cannot be had here. What the tests say goes to the terminal."""
    if combination.release:
        python, settings, found = _in_containers(combination.release)
    else:
        python = pythons.environment(combination.python)
        settings, found = {}, versions.on_this_machine(python)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        chosen = ("-k", combination.chosen) if combination.chosen else ()
        subprocess.run(
            [
                python,
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                f"--junitxml={report}",
                *chosen,
                *combination.tests,
            ],
            cwd=ROOT,
            env=os.environ | settings,
            timeout=_SECONDS,
            check=False,
        )
        passed, failed, skipped, why = _counted(report)
    return Result(
        name=combination.name,
        versions=found,
        tests=combination.tests,
        passed=passed,
        failed=failed,
        skipped=skipped,
        seconds=round(time.monotonic() - began),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=_commit(),
        why=why,
    )


def _in_containers(release: str) -> tuple[Path, dict[str, str], dict[str, str]]:
    """Images of one release of Debian, the services on its Python; the tests themselves run on ours."""
    made = {recipe: images.of_release(release, recipe) for recipe in ("rabbitmq", "postgres", "python")}
    service = f"concert-saga:{release}"
    images.service_on(made["python"], service)
    settings = {
        "RABBITMQ_IMAGE": made["rabbitmq"],
        "POSTGRES_IMAGE": made["postgres"],
        "PYTHON_IMAGE": made["python"],
        "SAGA_IMAGE": service,
    }
    return ROOT / ".venv/bin/python", settings, versions.in_images(made["rabbitmq"], made["postgres"], service)


def _counted(report: Path) -> tuple[int, int, int, tuple[str, ...]]:
    """Tests that passed, failed and were skipped, and the names of those that failed."""
    if not report.exists():
        return 0, 1, 0, ("pytest did not run",)
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - pytest wrote it a moment ago
    broken = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    names = tuple(str(case.get("name")) for case in broken)
    return len(cases) - len(broken) - skipped, len(broken), skipped, names


def _commit() -> str:
    commit = answer("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD") or "?"
    return commit + ("+" if answer("git", "-C", str(ROOT), "status", "--porcelain") else "")
