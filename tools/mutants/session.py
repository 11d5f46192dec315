"""mutmut at work: it mutates the copy, learns which tests reach which function, and tests each mutant in a fork.

A few mutants more for each file change nothing. Every test that may kill in that file must let them live: where
one does not, a kill says nothing about the mutant that it is said to have killed.
"""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools.mutants import reading
from tools.mutants.reading import NO_OP

_LOG = "mutmut.log"
_MUTMUT = "from mutmut.__main__ import cli; cli()"
_KILLED = (1, 3)


class BrokenError(Exception):
    """mutmut could not do its work; the text is the end of what it said."""


def run(home: Path, files: Sequence[str], *, jobs: int, told: Callable[[int, int], None]) -> None:
    """Mutate these files of the copy and test every mutant that no earlier run has killed.

    `told` hears, again and again, how many are tested and how many there are.
    """
    _forget_survivors(home, files)
    # The first call is there for the files that it makes: mutants, and which test reaches what.
    smallest = min(files, key=lambda file: (home / file).stat().st_size)
    _mutmut(home, jobs, (f"{_module(smallest)}.*__mutmut_1",), lambda: None)
    _add_no_ops(home, files)
    _mutmut(home, jobs, (), lambda: told(*reading.progress(home, files)))


def _mutmut(home: Path, jobs: int, names: Sequence[str], watch: Callable[[], None]) -> None:
    # A mutant that runs out of time is ended by a signal that would leave a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # Not `python -m mutmut`: it would be imported twice.
    command = [sys.executable, "-c", _MUTMUT, "run", f"--max-children={jobs}", *names]
    with (home / _LOG).open("wb") as log:
        child = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
        try:
            while child.poll() is None:
                watch()
                time.sleep(1)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGINT)  # it ends its workers then
            child.wait()
    if child.returncode:
        raise BrokenError((home / _LOG).read_text(errors="replace").replace("\r", "\n")[-4000:])


def _forget_survivors(home: Path, files: Sequence[str]) -> None:
    """A survivor of an earlier run is tried again: there may be new tests. What was killed stays killed."""

    def forgotten(codes: Mapping[str, int | None]) -> dict[str, int | None]:
        return {name: code if code in _KILLED else None for name, code in codes.items()}

    for file in files:
        _change(home, file, forgotten)


def _add_no_ops(home: Path, files: Sequence[str]) -> None:
    """Add mutants that change nothing, in functions which together are reached by every test that may kill."""
    stats = json.loads((home / "mutants/mutmut-stats.json").read_text())
    tests: dict[str, list[str]] = stats["tests_by_mangled_function_name"]

    def with_more(codes: Mapping[str, int | None]) -> dict[str, int | None]:
        mutated = {name.partition("__mutmut_")[0] for name in codes}
        chosen = _covering({name: set(tests.get(name, ())) for name in sorted(mutated)})
        return {**codes, **dict.fromkeys(f"{name}__mutmut_{NO_OP}" for name in chosen)}

    for file in files:
        _change(home, file, with_more)


def _covering(reached: Mapping[str, set[str]]) -> list[str]:
    """A few names that reach all tests that any name reaches: always the one that adds most."""
    chosen: list[str] = []
    left = set().union(*reached.values())
    while left:
        chosen.append(max(reached, key=lambda name: len(reached[name] & left)))
        left -= reached[chosen[-1]]
    return chosen


def _change(home: Path, file: str, change: Callable[[Mapping[str, int | None]], dict[str, int | None]]) -> None:
    """Change the results that mutmut keeps of a file, if it has any."""
    path = home / "mutants" / f"{file}.meta"
    if path.exists():
        kept = json.loads(path.read_text())
        kept["exit_code_by_key"] = change(kept["exit_code_by_key"])
        path.write_text(json.dumps(kept, indent=4))


def _module(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")
