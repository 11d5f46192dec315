"""docs/first-payment.md, walked as a new user would walk it: every command, in order, and what it shows.

A block marked as `console` is run: lines that begin with `$ ` are typed, the others are what has to be shown. Of
times and durations only the form counts, of columns only the order; `…` stands for anything within a line, or
alone in a line for any lines. What only looks is looked at again until it shows what it should, as a person would.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ops.where import database_urls
from tests.support.tools import missing
from tools.broker import PrivateBroker
from tools.stack import ROOT

PAGES = (ROOT / "docs/first-payment.md", ROOT / "docs/first-payment.ko.md")

#: What may be asked again without changing anything.
_LOOKS = (
    *("./saga show", "./saga list", "./saga outcome", "./saga doctor", "./saga audit"),
    *("./saga parked list", "./saga parked show", "make status", "cut "),
)
_SECONDS = 60
_FORMS = (
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "TIME"),
    (re.compile(r"(?<![\w.])\d[\d,]*(\.\d+)? (ms|s|min|h)(?!\w)"), "DURATION"),
    (re.compile(r"\s+"), " "),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A command as it is typed, and the lines that it shows."""

    command: str
    shown: tuple[str, ...]


def steps(page: str) -> list[Step]:
    """Every command of a page, in order."""
    found: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        command = ""
        shown: list[str] = []
        for line in block.splitlines():
            if line.startswith("$ ") or (command.endswith("\\") and not shown):
                if line.startswith("$ ") and command:
                    found.append(Step(command, tuple(shown)))
                    command, shown = "", []
                command += ("\n" if command else "") + line.removeprefix("$ ")
            else:
                shown.append(line)
        found.append(Step(command, tuple(shown)))
    return found


def formed(line: str) -> str:
    """A line with its times, durations and spaces reduced to their form."""
    for pattern, form in _FORMS:
        line = pattern.sub(form, line)
    return line.strip()


def is_shown(wanted: tuple[str, ...], got: str) -> bool:
    """Whether this is what the page shows."""
    pattern = ""
    for line in wanted:
        if line.strip() == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in formed(line).split("…")) + "\n"
    lines = "".join(f"{formed(line)}\n" for line in got.splitlines() if line.strip())
    return re.fullmatch(pattern, lines) is not None


class Terminal:
    """A shell in a clone of the repository, with a broker of its own."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self._end = f"end-{secrets.token_hex(8)}"
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=place,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, command: str) -> str:
        """What a command shows."""
        assert self._shell.stdin
        assert self._shell.stdout
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null; echo; echo {self._end}\n")
        self._shell.stdin.flush()
        shown = ""
        for line in self._shell.stdout:
            if line.strip() == self._end:
                return shown
            shown += line
        raise AssertionError(f"the shell ended at {command!r} after {shown!r}")

    def leave(self) -> None:
        """Close it."""
        self._shell.kill()
        self._shell.communicate(timeout=10)


def clone(place: Path) -> None:
    """A clone of this checkout, as a new user has it, with what was changed here since the last commit."""
    if not (ROOT / ".git").exists():
        shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".venv*", "var", "__pycache__", ".*_cache"))
        return
    subprocess.run(["git", "clone", "--quiet", "--local", ROOT, place], check=True, timeout=60)
    for changed in listed("--modified", "--others", "--exclude-standard"):
        if (ROOT / changed).is_file():
            (place / changed).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / changed, place / changed)
    for gone in listed("--deleted"):
        (place / gone).unlink()


def listed(*which: str) -> list[str]:
    """Files of this checkout, as git knows them."""
    done = subprocess.run(["git", "ls-files", "-z", *which], cwd=ROOT, capture_output=True, check=True, timeout=60)
    return [name for name in done.stdout.decode().split("\0") if name]


@pytest.fixture
def terminal(node: PrivateBroker, tmp_path: Path) -> Iterator[Terminal]:
    """Somebody's terminal in a fresh clone; what was started from it is stopped afterwards."""
    if not shutil.which("rabbitmqadmin"):
        missing("rabbitmqadmin", "it comes with Debian's rabbitmq-server, and has to be on the PATH")
    place = tmp_path / "concert-saga"
    clone(place)
    # The environment of this run stands in for the one that `make` would install: that alone would take minutes.
    (place / ".venv/bin").mkdir(parents=True)
    python = place / ".venv/bin/python"
    python.write_text(f'#!/bin/sh\nexec "{ROOT}/.venv/bin/python" "$@"\n')
    python.chmod(0o755)
    shutil.copy(place / "requirements/dev.txt", place / ".venv/requirements-installed")
    told = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_URL", "MAKE"))}
    broker = node.broker
    # As on the page, where `make up` has written down which databases go with which broker.
    told |= {f"DATABASE_URL_{name.upper()}": url for name, url in database_urls({}, place / "var").items()}
    told |= {"RABBITMQ_URL": broker.amqp_url, "RABBITMQ_MANAGEMENT_URL": broker.management_url, "COLUMNS": "100"}
    opened = Terminal(place, told)
    try:
        yield opened
    finally:
        try:
            subprocess.run(["make", "down"], cwd=place, env=told, capture_output=True, check=False, timeout=60)
        finally:
            opened.leave()


def walked(terminal: Terminal, step: Step, *, told: dict[str, str]) -> str:
    """What a step shows in the end."""
    command = step.command
    for word, value in told.items():
        command = command.replace(word, value)
    ends = time.monotonic() + _SECONDS
    while True:
        shown = terminal.type(command)
        if is_shown(step.shown, shown) or not command.startswith(_LOOKS) or time.monotonic() > ends:
            return shown


@pytest.mark.broker
@pytest.mark.timeout(600)
def test_a_new_user_gets_what_the_page_shows(terminal: Terminal, node: PrivateBroker) -> None:
    """Whoever copies the first command of a project and gets something else does not copy a second."""
    port = str(urlsplit(node.broker.management_url).port)
    for step in steps(PAGES[0].read_text()):
        shown = walked(terminal, step, told={"PORT": port, "PASSWORD": node.broker.password})
        wanted = "\n".join(step.shown)
        assert is_shown(step.shown, shown), f"$ {step.command}\n--- the page shows\n{wanted}\n--- but\n{shown}"


def test_the_korean_page_has_the_same_commands_and_the_same_answers() -> None:
    """Only one of the two is walked; what holds for it must hold for the other."""
    english, korean = (steps(page.read_text()) for page in PAGES)
    assert len(english) > 20, "the pages are not read as they are written"
    assert korean == english


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (("p-1: completed",), "p-1: failed\n"),
        (("p-1: completed",), "p-1: completed\nand more\n"),
        (("p-1: completed", "and more"), "p-1: completed\n"),
        (("took 45 ms",), "took no time\n"),
        (("at 2026-11-22 10:00:00",), "at noon\n"),
        (("a … c",), "a b d\n"),
        (("a", "…", "c"), "a\nb\n"),
    ],
)
def test_another_answer_is_noticed(wanted: tuple[str, ...], got: str) -> None:
    """A walk that accepts anything leads nowhere."""
    assert not is_shown(wanted, got)


def test_times_durations_and_what_is_left_out_may_differ() -> None:
    """They are never the same twice."""
    wanted = ("p-1   at 2026-11-22 10:00:00.123  +45 ms", "…", "by …, in the end")
    assert is_shown(wanted, "p-1\tat 2027-01-02 03:04:05\t+1.20 s\n\nb\nc\nby ann, in the end\n")
