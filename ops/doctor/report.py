"""Tells what the doctor found: a table for people, lines for a pipe, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from common.settings import Delay
from ops.doctor import looking
from ops.doctor.checks import examine
from ops.doctor.facts import Facts
from ops.doctor.finding import Bad, Finding
from ops.output import Exit, console, on_terminal, printable, say, table, tell_json, waiting

_STYLES = {Bad.OK: "bold green", Bad.NOTE: "bold yellow", Bad.UNSEEN: "bold yellow", Bad.WRONG: "bold red"}
_WORDS = {
    Bad.OK: "All is well.",
    Bad.NOTE: "Nothing is wrong.",
    Bad.UNSEEN: "Not everything could be looked at.",
    Bad.WRONG: "Something is wrong.",
}


async def run(
    *,
    delays: Sequence[Delay],
    at_broker: bool,
    at_databases: bool,
    clock_limit: float,
    quiet: bool,
    as_json: bool,
) -> Exit:
    """Look, examine and tell."""
    with waiting("Looking at broker, databases and clocks ..."):
        facts = await looking.look(
            delays, at_broker=at_broker, at_databases=at_databases, clock_limit=timedelta(seconds=clock_limit)
        )
    findings = examine(facts)
    shown = [finding for finding in findings if not quiet or finding.bad is not Bad.OK]
    if as_json:
        _tell_program(facts, findings, shown)
    else:
        _tell_person(shown)
        if on_terminal():
            say(_summary(findings), style=_STYLES[worst(findings)])
    return exit_code(findings)


def worst(findings: Sequence[Finding]) -> Bad:
    """The worst of all findings."""
    return max((finding.bad for finding in findings), key=list(Bad).index, default=Bad.UNSEEN)


def exit_code(findings: Sequence[Finding]) -> Exit:
    """What is wrong comes first, then what could not be looked at; a note is no reason to worry a program."""
    match worst(findings):
        case Bad.WRONG:
            return Exit.NEGATIVE
        case Bad.UNSEEN:
            return Exit.COULD_NOT_LOOK
        case Bad.NOTE | Bad.OK:
            return Exit.OK


def _summary(findings: Sequence[Finding]) -> str:
    counts = Counter(finding.bad for finding in findings)
    told = ", ".join(f"{counts[bad]} {bad}" for bad in reversed(Bad) if counts[bad])
    return f"{_WORDS[worst(findings)]} {told}"


def _tell_person(findings: Sequence[Finding]) -> None:
    if not on_terminal():
        table(
            ("how", "subject", "found", "mend"),
            ((finding.bad, finding.subject, finding.what, finding.mend) for finding in findings),
        )
        return
    from rich.table import Table  # noqa: PLC0415 - a pipe need not wait for it
    from rich.text import Text  # noqa: PLC0415 - as above

    drawn = Table.grid(padding=(0, 2))
    # What is wrong is what the eye should end on, above the summary.
    for finding in sorted(findings, key=lambda finding: list(Bad).index(finding.bad)):
        found = Text(printable(finding.what))
        if finding.mend:
            found.append(f"\n→ {printable(finding.mend)}", style="cyan")
        drawn.add_row(Text(finding.bad, style=_STYLES[finding.bad]), Text(finding.subject, style="bold"), found)
    console().print(drawn)


def _tell_program(facts: Facts, findings: Sequence[Finding], shown: Sequence[Finding]) -> None:
    tell_json(
        {
            "well": exit_code(findings) is Exit.OK,
            "looked_at": facts.looked_at,
            "counts": {bad: sum(finding.bad is bad for finding in findings) for bad in Bad},
            "findings": [asdict(finding) for finding in shown],
        }
    )
