"""`saga doctor` as people and programs meet it: what is printed, where, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ops.app import app
from ops.doctor import looking, report
from ops.doctor.facts import Facts
from tests.support.doctor import HEALTHY, with_new_queue, with_queue, without_queue

Say = Callable[..., Result]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch) -> Say:
    """Run the command on facts that a test makes up, without looking anywhere."""
    monkeypatch.delenv("RETRY_DELAYS", raising=False)

    def run(facts: Facts, *arguments: str) -> Result:
        async def look(*_: object, **asked: Any) -> Facts:  # noqa: ANN401 - as looking.look
            return replace(
                facts,
                asked_broker=asked["at_broker"],
                broker=facts.broker if asked["at_broker"] else None,
                databases=facts.databases if asked["at_databases"] else None,
                clock_limit=asked["clock_limit"],
            )

        monkeypatch.setattr(looking, "look", look)
        return CliRunner().invoke(app, ["doctor", *arguments])

    return run


def test_in_a_pipe_every_finding_is_one_line_of_four_fields(say: Say) -> None:
    """For grep, cut and awk."""
    result = say(without_queue("point.parked"))
    head, *lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert head == ["how", "subject", "found", "mend"]
    assert {len(line) for line in lines} == {4}
    (wrong,) = [line for line in lines if line[0] == "wrong"]
    assert wrong[1:3] == ["queues", "point.parked is missing"]
    assert result.exit_code == 1


def test_quiet_leaves_out_what_is_well(say: Say) -> None:
    """A healthy system is silent, so that cron sends no mail."""
    assert len(say(HEALTHY, "--quiet").stdout.splitlines()) == 1
    assert len(say(HEALTHY).stdout.splitlines()) > 10
    assert json.loads(say(HEALTHY, "-q", "--json").stdout)["findings"] == []


def test_a_program_gets_counts_findings_and_the_verdict(say: Say) -> None:
    """Stable names: whoever watches this reads them."""
    told = json.loads(say(with_queue("point.parked", messages=1), "--json").stdout)
    assert told["well"] is True
    assert told["counts"]["note"] == 1
    assert told["counts"]["wrong"] == 0
    (note,) = [finding for finding in told["findings"] if finding["bad"] == "note"]
    assert set(note) == {"subject", "bad", "what", "mend"}
    assert told["looked_at"] == "2026-11-22T16:00:00+00:00"


def test_on_a_terminal_the_worst_stands_last_above_the_summary(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is where the eye is, when the command has ended."""
    monkeypatch.setattr(report, "on_terminal", lambda: True)
    lines = say(without_queue("point.parked")).stdout.splitlines()
    assert lines[-1].startswith("Something is wrong. 1 wrong, ")
    starts = [line.partition(" ")[0] for line in lines]
    assert max(at for at, start in enumerate(starts) if start == "ok") < starts.index("wrong")
    assert lines[starts.index("wrong") + 1].strip().startswith("→ restart any service")
    assert say(HEALTHY).stdout.splitlines()[-1].startswith("All is well.")


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_names_neither_steer_the_terminal_nor_are_read_as_markup(
    say: Say, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """Whoever may declare a queue chooses its name."""
    monkeypatch.setattr(report, "on_terminal", lambda: terminal)
    told = say(with_new_queue("point.retry.\x1b[2J[red]\n\t9s")).stdout
    assert "\x1b[2J" not in told
    assert "[red]" in told


def test_only_what_is_asked_for_is_looked_at(say: Say) -> None:
    """Where the databases cannot be reached from here, they are not missing."""
    subjects = [line.split("\t")[1] for line in say(HEALTHY, "--only", "broker").stdout.splitlines()[1:]]
    assert "queues" in subjects
    assert "databases" not in subjects
    subjects = [line.split("\t")[1] for line in say(HEALTHY, "--only", "databases").stdout.splitlines()[1:]]
    assert "databases" in subjects
    assert "queues" not in subjects


def test_a_look_that_fails_in_part_does_not_pass_for_well(say: Say) -> None:
    """Exit code 2: neither yes nor no."""
    result = say(replace(HEALTHY, broker=None, management_refusal="No management API answers"))
    assert result.exit_code == 2
    assert "unseen\tmanagement\tNo management API answers" in result.stdout


def test_a_wrong_setting_of_the_doctor_s_own_is_told_before_it_looks(
    say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other levels than meant, it would find thirty queues missing."""
    monkeypatch.setenv("RETRY_DELAYS", "5s,1s")
    result = say(HEALTHY)
    assert result.exit_code == 2
    assert "RETRY_DELAYS" in result.stderr
    assert result.stdout == ""
