"""What became of each mutant, read from the files that mutmut leaves."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: The number of the mutant that changes nothing; mutmut counts from 1.
NO_OP = "0"
_TOKEN = re.compile(r"""\w+|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[<>=!+\-*/|&^%]+|\s+|.""")


class Fate(StrEnum):
    """What the tests made of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNTESTED = "untested"
    """It survived because no test reaches it."""
    UNKNOWN = "unknown"
    """It was not run, or its worker ended in a way that says nothing."""


#: The exit codes of a worker: pytest's own, mutmut's, and a signal's number below zero.
_FATES = {1: Fate.KILLED, 3: Fate.KILLED, 0: Fate.SURVIVED, 5: Fate.UNTESTED, 33: Fate.UNTESTED} | dict.fromkeys(
    (36, 24, 152, 255, -24, -9), Fate.TIMEOUT
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change and its fate. It is known by its source, so that it stays the same when lines move."""

    file: str
    function: str
    line: str
    """The changed lines as they were, in one."""
    was: str
    """The part of it that was changed,"""
    becomes: str
    """and what it was changed to."""
    fate: Fate

    def __str__(self) -> str:
        change = f"{self.was or '(nothing)'}  ->  {self.becomes or '(nothing)'}"
        return f"{self.file} {self.function}: {self.line}\n      {change}"


def progress(home: Path, files: Iterable[str]) -> tuple[int, int]:
    """How many mutants are tested by now, and how many there are."""
    codes = [code for file in files for code in _exit_codes(home, file).values()]
    return sum(code is not None for code in codes), len(codes)


def mutants(home: Path, files: Iterable[str]) -> list[Mutant]:
    """Every mutant of these files; the one of each file that changes nothing is left out."""
    return [mutant for file in files for mutant in _of_file(home, file)]


def no_ops(home: Path, files: Iterable[str]) -> dict[str, Fate]:
    """What the tests made of the changes that change nothing, by the function they were made in."""
    return {
        f"{file} {_function(name)}": _fate(code)
        for file in files
        for name, code in _exit_codes(home, file).items()
        if _number(name) == NO_OP
    }


def _of_file(home: Path, file: str) -> Iterator[Mutant]:
    lines = (home / "mutants" / file).read_text().splitlines()
    spans: dict[str, Sequence[int]] = json.loads((home / "mutants" / f"{file}.spans").read_text())["spans"]

    def source(name: str) -> list[str]:
        first, last = spans[name]
        body = (line.strip() for line in lines[first - 1 : last])
        return [line for line in body if line and f"def {name}(" not in line]

    for full_name, code in _exit_codes(home, file).items():
        name = full_name.rpartition(".")[2]
        if _number(name) == NO_OP:
            continue
        before, after = _difference(source(f"{name.rpartition('_')[0]}_orig"), source(name))
        was, becomes = _narrowed(before, after)
        yield Mutant(file, _function(name), before, was, becomes, _fate(code))


def _difference(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """The lines that differ."""
    changed = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    old, new = ([line[1:] for line in changed if line.startswith(sign)] for sign in "-+")
    return " ".join(old), " ".join(new)


def _narrowed(before: str, after: str) -> tuple[str, str]:
    """The words that differ: without what both have in common at their beginning and at their end."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    return "".join(old[start : len(old) - end]).strip(), "".join(new[start : len(new) - end]).strip()


def _exit_codes(home: Path, file: str) -> dict[str, int | None]:
    try:
        codes: dict[str, int | None] = json.loads((home / "mutants" / f"{file}.meta").read_text())[
            "exit_code_by_key"
        ]
    except (FileNotFoundError, json.JSONDecodeError):  # not there yet, or half written
        return {}
    return codes


def _fate(code: int | None) -> Fate:
    return Fate.UNKNOWN if code is None else _FATES.get(code, Fate.UNKNOWN)


def _number(name: str) -> str:
    return name.rpartition("_")[2]


def _function(name: str) -> str:
    """The name of a function as its source has it: mutmut calls them `x_name` and `xǁClassǁname`."""
    mangled = name.rpartition(".")[2].partition("__mutmut_")[0]
    return mangled[2:].replace("ǁ", ".")
