"""Prometheus' own checker, promtool: found on this machine, or taken out of Debian's package, not installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from tests.support.tools import missing

_KEPT = Path(__file__).parents[2] / "var" / "promtool"


#: Where no mirror answers, the tests are to go on soon.
_STEPS = (
    "apt-get download -qq -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 prometheus",
    "dpkg-deb --fsys-tarfile prometheus_*.deb > all.tar",
    "tar -xf all.tar ./usr/bin/promtool",
)


@cache
def _find() -> tuple[str, str]:
    """Where promtool is, or else why it cannot be had."""
    if found := shutil.which("promtool"):
        return found, ""
    if not _KEPT.exists():
        _KEPT.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT.parent) as here:
            for step in _STEPS:
                try:
                    subprocess.run(["sh", "-c", step], cwd=here, capture_output=True, timeout=60, check=True)
                except subprocess.SubprocessError as error:
                    return "", str(error)
            (Path(here) / "usr/bin/promtool").replace(_KEPT)
    return str(_KEPT), ""


def promtool(*arguments: str | Path) -> str:
    """Run promtool and give what it said; the test fails if it is not content, and is skipped where it is not."""
    program, why_not = _find()
    if not program:
        missing("promtool", f"apt-get install prometheus brings it, and it could not be had from there: {why_not}")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
