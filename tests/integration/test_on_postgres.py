"""The other half of these tests: the same ones, and those of races and lost connections, on PostgreSQL.

They run in a process of their own, since one process works with one vendor. By hand:
`TEST_DATABASE=postgres python -m pytest tests/integration`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.databases import NO_POSTGRES, binaries

HERE = Path(__file__).parent


@pytest.mark.sqlite_only
def test_everything_here_holds_on_postgresql_too() -> None:
    """Vendors differ in locks, types, limits and errors; the promises do not."""
    if "TEST_POSTGRES_URL" not in os.environ and binaries() is None:
        pytest.skip(NO_POSTGRES)
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--no-header",
            "-p",
            "no:cacheprovider",
            "-m",
            "not sqlite_only",
            HERE,
        ],
        cwd=HERE.parents[1],
        env=os.environ | {"TEST_DATABASE": "postgres"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]
