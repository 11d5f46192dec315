"""docs/versions.md: on which versions the tests passed, from the results that `make matrix` keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.matrix.combinations import COMBINATIONS, Combination

_RESULTS = Path(__file__).with_name("results")
_INTRODUCTION = """
The same tests on the broker, the databases and the Python of several years. `make matrix` runs what can be had on
the machine, `make matrix ARGS=sid` one line of it.

A line named for a release of Debian is made of its packages, in containers: RabbitMQ, PostgreSQL, and the services
on its Python. Whole sagas, every refusal, and the faults that end connections
(`tests/e2e/test_saga_in_containers.py`, `tests/e2e/test_faults_in_containers.py`). A line named for a Python runs on
the machine itself, with the RabbitMQ and PostgreSQL that are installed: unit tests, every cell and rule on SQLite and
PostgreSQL, whole sagas in processes.
"""


def page(note: str) -> str:
    """The whole document; `note` says that nobody should edit it."""
    results = [(combination, _result(combination.name)) for combination in COMBINATIONS]
    told = [(combination, result) for combination, result in results if result]
    head = "| | RabbitMQ | Erlang/OTP | PostgreSQL | Python | passed | failed | skipped | minutes | on | of |"
    table = [head, "|" + " --- |" * 11, *(_row(result) for _, result in told)]
    notes = [line for pair in told for line in _notes(*pair)]
    notes += [f"- {combination.name}: has not run yet" for combination, result in results if not result]
    parts = ["# Versions", note, _INTRODUCTION.strip(), "\n".join(table), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _result(name: str) -> dict[str, Any] | None:
    file = _RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def _row(result: dict[str, Any]) -> str:
    found = result["versions"]
    cells = [result["name"], *(found[name] for name in ("rabbitmq", "erlang", "postgres", "python"))]
    cells += [str(result[name]) for name in ("passed", "failed", "skipped")]
    cells += [f"{result['seconds'] / 60:.0f}", result["date"], result["commit"]]
    return f"| {' | '.join(cells)} |"


def _notes(combination: Combination, result: dict[str, Any]) -> Iterator[str]:
    """What did not pass, and what was chosen otherwise than today."""
    if tuple(result["tests"]) != combination.tests:
        yield f"- {combination.name}: ran {', '.join(f'`{test}`' for test in result['tests'])}"
    for name in result["why"]:
        yield f"- {combination.name}: `{name}` failed"
