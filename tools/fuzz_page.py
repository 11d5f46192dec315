"""docs/fuzz.md: what the search for hostile input covers and what it came to, from the figures in fuzz/results/.

`make fuzz ARGS=--keep` writes those figures; this only tells them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_RESULTS = ROOT / "fuzz" / "results"

#: What each target reads, and what must hold for any input.
_TARGETS: Mapping[str, tuple[str, str]] = {
    "frames": ("the stream of AMQP frames", "frames, or the session ends with a reason"),
    "wire": ("properties and headers of a delivery", "properties, whatever a stranger wrote there"),
    "bodies": (
        "type, content type, encoding and body",
        "a message that says itself again, or a reason fit for a header",
    ),
    "deliveries": (
        "a delivery between two good ones, through the consumer",
        "acked; done, or set aside for a reason in a copy that others can read; its neighbours done; the session lives",
    ),
    "letters": (
        "a delivery in a dead or parked queue, through `saga dead` and `saga parked`",
        "shown, and harmless",
    ),
    "records": (
        "the history, through `saga show`, `list`, `watch` and the board",
        "no record, or told as sound JSON",
    ),
}
_INTRODUCTION = """
Whoever may publish can send any bytes. `make fuzz SECONDS=600` looks for some that do harm, in two ways.

**Guided by coverage** ([Atheris](https://pypi.org/project/atheris/), which is libFuzzer for Python): each target is
production code, run in one process with inputs that reached something new, changed in small ways - as bytes, as JSON,
as AMQP tables. The property must hold for each, and no other exception may come out.

**Through a real broker**: thousands of the same inputs are published as they are to five real services, good payments
among them. Every good payment completes, every service keeps its session and its memory, every queue of work is empty
in the end.
"""
_BOUNDS = """
Each input may cost one second of processor time and 24 MiB beside three copies of itself. What is too large to be
found or kept - bodies of 16 MiB, bracket upon bracket, numbers of 64 KiB, thousands of fields, tables in tables - is
made anew and measured in `tests/unit/test_fuzz.py`; what once reached something new is kept in `fuzz/kept/`, one input a
line, and tried in every run of the tests.
"""
_FOUND = """
## Found and mended

Each has a test of its own in `tests/unit/test_fuzz_found.py`.

| input | did | now |
| --- | --- | --- |
| a header of 120 KiB, in lists or tables nested 900 deep | took 128 MB to read, a service's whole allowance | nested deeper than 8: cannot be read |
| a body of 64 KiB with thousands of fields, one of them twice | took 0.4 s, a full prefetch longer than the heartbeat waits | one pass, 3 ms |
| a record whose batch took NaN | stopped `saga show`, and spoiled the board's means for good | is no record |
| a record with a number of 400 digits, or below zero | ended `saga show`, `watch` and the board | is no record |
| a letter with U+009B or U+202E in its body | steered the terminal of `--json` | is escaped |
| a frame too short for what it is | raised what no session expects | ends the session with a reason |
"""


def page(note: str) -> str:
    """The whole document; `note` says that nobody should edit it."""
    search, storm = _figures("search"), _figures("storm")
    parts = ["# Hostile input", note, _INTRODUCTION.strip(), "## What was searched", _searched(search)]
    parts += [_storm(storm), _BOUNDS.strip(), _FOUND.strip()]
    return "\n\n".join(parts) + "\n"


def _figures(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return figures


def _searched(figures: Mapping[str, Any]) -> str:
    targets = figures["targets"]
    total = sum(told["executions"] for told in targets.values())
    rows = [
        [
            name,
            what,
            must,
            f"{targets[name]['executions']:,}",
            f"{targets[name]['edges']:,}",
            f"{targets[name]['worst_ms']:g} ms",
            f"{targets[name]['worst_bytes'] / 1024:,.0f} KiB",
            str(len(targets[name]["found"]) or "-"),
        ]
        for name, (what, must) in _TARGETS.items()
        if name in targets
    ]
    told = (
        f"**{total:,} inputs**, {figures['seconds']} seconds for each target, on {figures['at']} with Python "
        f"{figures['python']} and Atheris {figures['atheris']}. Edges are those of our own Python and of the AMQP "
        "library; the worst are processor time and memory of one input, instrumented."
    )
    head = ["target", "reads", "gives", "inputs", "edges", "worst time", "worst memory", "broken by"]
    return f"{told}\n\n{_table(head, rows)}"


def _storm(figures: Mapping[str, Any]) -> str:
    return (
        f"Through RabbitMQ {figures['rabbitmq']}: **{figures['taken']:,} hostile messages** that it took, and "
        f"{figures['refused']:,} for which it closed the connection of whoever sent them; {figures['payments']} good "
        f"payments among them, all completed. No session was lost; no service held more than "
        f"{figures['most_memory_mb']} MB."
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(head)
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
