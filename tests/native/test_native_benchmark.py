"""The benchmark itself, in seconds: that it runs, that its figures count, and that its report can be made.

What the figures are is no business of tests: this machine may be busy.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.driver import Times
from benchmarks.experiments import EXPERIMENTS
from benchmarks.latency import at, waited
from benchmarks.report import compose
from benchmarks.results import Figure, Results, read
from benchmarks.tables import Figures, Spread

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.broker
@pytest.mark.timeout(280)
def test_a_small_run_measures_floor_and_sagas_and_its_report_can_be_made(tmp_path: Path) -> None:
    """A benchmark that is run once a year is broken when it is needed; so a run of seconds is part of the tests.

    It takes the way of `make bench`, with SQLite files and a private broker, which are everywhere. Its sagas
    fail in each way, its driver sends in each way, and its figures count only if the audit is clean.
    """
    left = tmp_path / "results.json"
    command = [
        *(sys.executable, "-m", "benchmarks", "--stand=processes", "--contenders=floor,sqlite"),
        *("--experiments=mixed,latency,backlog", "--rounds=1", "--sagas=100", f"--json={left}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=270)
    assert done.returncode == 0, done.stdout + done.stderr

    results = read(left)
    assert {(figure.experiment, figure.contender, figure.case) for figure in results.figures} >= {
        ("mixed", "sqlite", "clean"),
        ("mixed", "sqlite", "mixed"),
        ("latency", "floor", "50/s"),
        ("backlog", "floor", "1,000"),
    }
    assert all(figure.values["sagas_per_s"] > 0 and not figure.void for figure in results.figures)

    written = compose([results], tmp_path / "benchmarks")
    document = written[tmp_path / "benchmarks.md"]
    assert "this system, SQLite" in document
    pictures = re.findall(r"\]\((benchmarks/[^)]+\.svg)\)", document)
    assert pictures
    assert all(tmp_path / picture in written for picture in pictures)


def figure(contender: str, rate: float, number: int = 1, **changes: object) -> Figure:
    """A figure as a run leaves it."""
    plain = Figure("throughput", contender, number, values={"sagas_per_s": rate})
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_void_figure_counts_nowhere() -> None:
    """A run that lost a payment may have been very fast; its figure must not raise a median or a ratio."""
    figures = Figures([figure("ours", 100), figure("ours", 900, void=["a payment is gone"]), figure("floor", 200)])
    assert figures.values("ours", "sagas_per_s") == [100]
    assert len(figures.void) == 1


def test_a_ratio_is_taken_within_each_round() -> None:
    """The machine's mood changes: a quick round of one over a slow round of another says nothing."""
    figures = Figures(
        [figure("ours", 90, 1), figure("floor", 100, 1), figure("ours", 30, 2), figure("floor", 50, 2)]
    )
    assert figures.ratio("sagas_per_s", ("ours", None), ("floor", None)) == Spread(0.6, 0.75, 0.9)


def test_a_wait_counts_from_the_moment_a_command_was_due() -> None:
    """A driver that was late itself, or a system that stood still, must not make waits look shorter."""
    times = Times(due=[1.0, 2.0, 3.0], marks={"last": [1.5, 4.0, 0.0]})
    assert waited(times, "last") == [500.0, 2000.0]
    assert at([1.0, 2.0, 3.0, 4.0], 0.5) == 3.0
    assert at([1.0, 2.0, 3.0, 4.0], 1.0) == 4.0


def test_results_survive_being_written_and_the_report_says_what_is_void(tmp_path: Path) -> None:
    """The report is made from files alone, also much later, and a figure that does not count is not hidden."""
    results = Results(
        began="2026-11-22T10:00:00+00:00",
        machine={"cores": "2"},
        settings={"rounds": "1"},
        contenders={
            name: {
                "title": name,
                "guarantees": dict.fromkeys(("delivery", "effect", "undo", "event"), "-"),
                "versions": {},
            }
            for name in ("floor", "postgres")
        },
        figures=[
            figure("floor", 700),
            figure("postgres", 650),
            figure("postgres", 900, 2, void=["two seats are torn"]),
        ],
    )
    file = tmp_path / "results.json"
    results.write(file)
    assert read(file) == results
    document = compose([read(file)], tmp_path / "benchmarks")[tmp_path / "benchmarks.md"]
    assert "0.93" in document
    assert "two seats are torn" in document


def test_every_experiment_says_how_many_turns_it_takes() -> None:
    """Who starts a run of hours is told beforehand how long it is."""
    wanted = {"throughput", "mixed", "latency", "backlog", "costs", "alone", "old", "replicas", "soak"}
    assert wanted <= set(EXPERIMENTS)
