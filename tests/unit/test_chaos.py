"""The parts of `make chaos` that need no container: its table, its schedule, what it judges, and its report."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from chaos.faults import FAULTS, Ground, Need
from chaos.report import compose, main
from chaos.results import Run, Total, Turn, read
from chaos.schedule import turns
from chaos.soak import judge

PASSED = Turn("broker-killed", "rabbitmq", "2026-11-22T10:00:00+00:00", 5.0, 12.0, 60.0, 1.0, 100, 86, 14)


def run(*made: Turn, **changes: object) -> Run:
    """A run as it is kept."""
    plain = Run("2026-11-22T10:00:00+00:00", "plain", 7, 20.0, {"cores": "2"}, list(made), Total({}, 100, 86, 14))
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_every_fault_says_what_it_does_and_has_bounds() -> None:
    """The table is what an operator reads; a fault without a bound would pass for ever."""
    for fault in FAULTS.values():
        assert fault.told.endswith("."), fault.name
        assert 0 < fault.bound <= 300
        assert (fault.ground is Ground.CLUSTER) == fault.name.startswith("cluster-")


def test_a_seed_repeats_the_order_of_faults() -> None:
    """What was found in one run must be looked for in another."""
    faults = list(FAULTS.values())
    first, again, other = (list(turns(faults, random.Random(seed), 0)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(fault.name for fault in first) == sorted(FAULTS)


def test_minutes_that_are_over_end_the_rounds() -> None:
    """A run of so many minutes ends, whatever it finds."""
    assert list(turns(list(FAULTS.values()), random.Random(1), 1e-9)) == []


def test_what_only_grows_is_told_and_what_goes_up_and_down_is_not() -> None:
    """A leak of a few MiB a minute kills a service in a week, and shows in no single sample."""
    samples = [
        {
            "seconds": 10.0 * at,
            "memory payment": 80.0 + 2 * at,
            "memory point": 80.0 + at % 3,
            "outbox point": at % 5,
        }
        for at in range(30)
    ]
    judged = judge(samples)
    assert judged["memory payment"].startswith("GROWS")
    assert judged["memory point"].startswith("flat")
    assert judged["outbox point"].startswith("flat")


def test_a_run_survives_being_kept(tmp_path: Path) -> None:
    """The report is made from files alone, also much later."""
    kept = run(PASSED, samples=[{"seconds": 1.0}], judged={"memory payment": "flat: 80 -> 81"})
    file = tmp_path / "run.json"
    kept.write(file)
    assert read(file) == kept
    assert kept.passed


@pytest.mark.parametrize(
    "broken",
    [
        run(replace(PASSED, finds=["a seat is torn"])),
        run(PASSED, total=Total(finds=["a seat is torn"])),
        run(PASSED, judged={"memory payment": "GROWS: a seat is torn"}, samples=[{"seconds": 60.0}]),
    ],
    ids=["in a turn", "in the total", "in the soak"],
)
def test_what_was_found_fails_the_run_and_is_in_the_report(broken: Run) -> None:
    """A report that leaves out what went wrong is worse than none."""
    assert not broken.passed
    assert "a seat is torn" in compose([run(PASSED), broken])


def test_the_report_tells_the_slowest_recovery_and_what_was_not_made() -> None:
    """One lucky run must not hide an unlucky one, nor a fault that was never made."""
    late = replace(PASSED, recovered=55.0)
    document = compose([run(PASSED, late, skipped={"network-cut": f"it needs {Need.PACKETS.value}"})])
    (line,) = (line for line in document.splitlines() if line.startswith("| `broker-killed`"))
    assert "| 12 - 55 |" in line
    assert "- `network-cut`: it needs root" in document
    (line,) = (line for line in document.splitlines() if line.startswith("| `database-slow`"))
    assert "not yet" in line


def test_a_stale_report_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`make generated` fails when somebody changes the table or a result and not the report."""
    results, document = tmp_path / "run.json", tmp_path / "reliability.md"
    run(PASSED).write(results)
    assert main([str(results), "--output", str(document)]) == 0
    assert main([str(results), "--output", str(document), "--check"]) == 0
    run(replace(PASSED, recovered=13.0)).write(results)
    assert main([str(results), "--output", str(document), "--check"]) == 1
    assert "stale" in capsys.readouterr().err
