"""A copy of the checkout to mutate: mutmut writes beside what it reads, and the working tree stays clean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Where the copy lives; everything below it may be deleted.
HOME = ROOT / "var" / "mutants"

#: What is mutated: the code that decides, or that no decision survives without.
MUTATED = (
    "*_svc/domain.py",
    "*_svc/dead_letter.py",
    "*_svc/step.py",
    "common/recovery.py",
    "common/barrier.py",
    "common/outbox.py",
    "common/unit_of_work.py",
)
_PACKAGES = ("common", "payment_svc", "reservation_svc", "point_svc", "queue_svc", "notify_svc")

#: The tests that may kill: those that need neither a broker nor a server. Left out are the ones that read the
#: sources as text, since a mutated file holds all its mutants at once, and the ones that reach no mutated code.
_LEFT_OUT = (
    "tests/unit/test_audit.py",
    "tests/unit/test_documents.py",
    "tests/unit/test_messages.py",
    "tests/unit/test_mutants.py",
    "tests/unit/test_settings.py",
    "tests/integration/test_audit_on_servers.py",
    "tests/integration/test_databases.py",
    "tests/integration/test_on_servers.py",
)
#: What Apprise starts in the process that learns does not live on in the forks that test, where it waits for ever.
_DESELECTED = (
    "tests/integration/test_hostile.py::test_notices_go_out_through_apprise_word_for_word",
    "tests/integration/test_hostile.py::test_a_notice_that_apprise_cannot_deliver_is_tried_again",
)
_TESTS = (
    "tests/unit",
    "tests/integration",
    *(f"--ignore={path}" for path in _LEFT_OUT),
    *(f"--deselect={test}" for test in _DESELECTED),
)
#: A mutant that hangs fails a test after so many seconds; the slowest needs two, and machines can be busy. Every
#: other setting is the repository's own, warnings as errors included.
_PYTEST = ("--timeout=60", "-p", "no:cacheprovider")

_NOT_COPIED = (".git", ".venv*", "var", "__pycache__", ".*_cache", ".hypothesis", "*.sqlite3*", "*.egg-info")


def prepare(only: Sequence[str], *, fresh: bool) -> None:
    """Bring the copy up to date with the checkout; `fresh`: forget all earlier results.

    `only` narrows what is mutated to files that match one of these patterns.
    """
    wanted = "".join((*(ROOT / "pyproject.toml").read_text(), "\n", *_configuration(only)))
    configuration = HOME / "pyproject.toml"
    if fresh or not configuration.exists() or configuration.read_text() != wanted:
        shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir(parents=True, exist_ok=True)
    _copy(ROOT, HOME)
    configuration.write_text(wanted)


def mutated_files(only: Sequence[str]) -> list[str]:
    """The files that are mutated, by their path from the root; FileNotFoundError if there are none."""
    found = sorted(
        name
        for package in _PACKAGES
        for name in (f"{package}/{path.name}" for path in (ROOT / package).glob("*.py"))
        if _matches(name, MUTATED) and (not only or _matches(name, only))
    )
    if not found:
        raise FileNotFoundError(f"nothing that is mutated matches {' '.join(only)}")
    return found


def _configuration(only: Sequence[str]) -> Iterator[str]:
    """The section for mutmut, which reads nothing but the pyproject.toml where it runs."""
    besides = sorted(path.name for path in ROOT.iterdir() if path.name not in _PACKAGES and _is_copied(path))
    settings: dict[str, object] = {
        "source_paths": _PACKAGES,
        "only_mutate": mutated_files(only),
        "also_copy": besides,
        "pytest_add_cli_args": _PYTEST,
        "pytest_add_cli_args_test_selection": _TESTS,
        # A test that hangs is ended by pytest; these only bound a worker as a whole, on a machine that is busy.
        "timeout_multiplier": 10.0,
        "timeout_constant": 10.0,
        "track_dependencies": False,
        "use_git_change_detection": False,
        "on_dependency_change": "ignore",
    }
    yield "\n[tool.mutmut]\n"
    for name, value in settings.items():
        yield f"{name} = {json.dumps(value)}\n"


def _copy(source: Path, target: Path) -> None:
    """Copy what changed and nothing else: mutmut tells by a file's age whether it must mutate it again."""
    kept = {path.name for path in source.iterdir() if _is_copied(path)}
    for path in target.iterdir():
        if path.name not in kept and (target != HOME or path.name != "mutants"):
            _remove(path)
            _remove(HOME / "mutants" / path.relative_to(HOME))
    for name in kept:
        origin, copy = source / name, target / name
        if origin.is_dir():
            copy.mkdir(exist_ok=True)
            _copy(origin, copy)
        elif not copy.exists() or (name != "pyproject.toml" and copy.read_bytes() != origin.read_bytes()):
            shutil.copyfile(origin, copy)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_copied(path: Path) -> bool:
    return not _matches(path.name, _NOT_COPIED)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)
