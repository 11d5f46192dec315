"""The other vendors: the same tests, and those of races and lost connections, on PostgreSQL and on MariaDB.

They run in processes of their own, since one process works with one vendor. By hand:
`TEST_DATABASE=postgres python -m pytest tests/integration`, or `TEST_DATABASE=mariadb`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import mariadb
from tests.support.databases import NO_POSTGRES, binaries

HERE = Path(__file__).parent
#: What a vendor can break; the rest of the tests never sees one.
_SENSITIVE = (
    "audit_on_servers",
    "barrier_cells",
    "databases",
    "dead_letters",
    "encrypted",
    "exactly_once",
    "hostile",
    "mariadb",
    "notices",
    "outbox",
    "races",
    "refusals",
    "rows",
)


def _run(vendor: str, *what: str | Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
            *("-m", "not sqlite_only"),
            *what,
        ],
        cwd=HERE.parents[1],
        env=os.environ | {"TEST_DATABASE": vendor},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-20_000:]


@pytest.mark.sqlite_only
def test_everything_here_holds_on_postgresql_too() -> None:
    """Vendors differ in locks, types, limits and errors; the promises do not."""
    if "TEST_POSTGRES_URL" not in os.environ and binaries() is None:
        pytest.skip(NO_POSTGRES)
    _run("postgres", HERE)


@pytest.mark.sqlite_only
def test_all_that_a_vendor_can_break_holds_on_mariadb_too() -> None:
    """As above; `TEST_DATABASE=mariadb` by hand runs the rest as well."""
    if not mariadb.is_there():
        pytest.skip(mariadb.NO_MARIADB)
    # Five services migrate alike, and each takes three processes.
    one_is_enough = ("-k", "not at_once_migrate_it_once or payment")
    _run("mariadb", *one_is_enough, *(HERE / f"test_{name}.py" for name in _SENSITIVE))
