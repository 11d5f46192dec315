"""SQLite: one file, one process, one transaction at a time."""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.vendors.fault import Fault

#: How every SQLite file begins that is not empty (https://sqlite.org/fileformat.html).
_MAGIC = b"SQLite format 3\0"


def credentials(options: Mapping[str, Any], _encryption: None) -> dict[str, Any]:
    """The options we rely on, unless the URL sets them itself. A power cut may not lose what was acked."""
    return {"synchronous": "FULL", "busy_timeout": "5000"} | dict(options)


def fault(error: BaseException) -> Fault | None:
    """What one of SQLite's errors means; None if it is none of those, or says nothing in particular."""
    if not isinstance(error, sqlite3.OperationalError):
        return None
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return Fault.AWAY if primary in _AWAY else None


_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
}


def path_of(url: str) -> Path | None:
    """The file of a SQLite URL; None for memory and for other vendors."""
    if not url.startswith("sqlite://"):
        return None
    path = url.removeprefix("sqlite://").partition("?")[0]
    return None if path == ":memory:" else Path(path)


@contextlib.contextmanager
def one_process_per_file(url: str) -> Iterator[None]:
    """A second process on the same file is refused. Other vendors: nothing to do."""
    path = path_of(url)
    if path is None:
        yield
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() or not _is_sqlite(path):
            raise SystemExit(f"{path} is no SQLite database; mend DATABASE_URL")
        held = path.with_name(f"{path.name}.lock").open("w")
    except OSError as error:
        raise SystemExit(f"the database {path} cannot be opened: {error.strerror}; mend DATABASE_URL") from None
    with held as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"{path} is in use by another process: SQLite serves one replica of a service; "
                "stop the other one, or set DATABASE_URL to a PostgreSQL or MariaDB database"
            ) from None
        yield


def _is_sqlite(path: Path) -> bool:
    """Whether a file is a SQLite database, or is yet to become one."""
    if not path.exists():
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) in {b"", _MAGIC}
