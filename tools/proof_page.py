"""docs/proof.md: what the proofs say and what they came to, from the figures in proof/results/.

`make prove` runs them and writes those figures; this only tells them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_RESULTS = ROOT / "proof" / "results"
_EXPLAINED = ROOT / "tools" / "mutants" / "explained.toml"

_INTRODUCTION = """
The promise: a payment's saga ends with every step done, or with every step undone that was done. It is not proved on a model beside the
code, but on the code: the handlers, the barrier, the outbox, the relay, the consumer, the dead-letter handlers. Four instruments look for a way to
break it, and a fifth looks for mistakes that the four would not notice. `make prove` takes all figures of this page anew.

| instrument | what runs | what is searched | command |
|---|---|---|---|
| explorer | handlers, barrier, disposition | every interleaving of one or two sagas, and of two replicas | `make explore` |
| simulator | the five whole services, on a simulated broker | thousands of sagas with faults at every boundary | `make simulate` |
| oracle | the same handlers | whether five databases end as one transaction would have left them | `make test ARGS=tests/proof` |
| audit | five databases of a real system | whether anything in them contradicts the promise | `./saga audit` |
| mutants | the tests | whether a test notices each small change of the deciding code | `make mutants` |

The simulated broker is held against RabbitMQ 3.10 and 4.0: more than fifty scripted scenarios run on all three and must see the same
deliveries, headers and dead letters (`tests/support/broker_scenarios`).
"""


def page(note: str) -> str:
    """The whole document; `note` says that nobody should edit it."""
    explorer, simulator, mutants = (_figures(name) for name in ("explorer", "simulator", "mutants"))
    parts = ["# Proof", note, _INTRODUCTION.strip()]
    parts += [_explorer(explorer), _simulator(simulator), _mutants(mutants), _weak(explorer)]
    return "\n\n".join(parts) + "\n"


def _figures(name: str) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((_RESULTS / f"{name}.json").read_text())
    return figures


def _explorer(figures: Mapping[str, Any]) -> str:
    searches = figures["searches"]
    rows = [
        [
            search["scenario"],
            str(search["replicas"]),
            f"{search['states']:,}",
            str(len(search["endings"])),
            "broken" if search["violation"] else "holds",
        ]
        for search in searches
    ]
    states = sum(search["states"] for search in searches)
    experiments = sum(search["experiments"] for search in searches)
    minutes = sum(search["seconds"] for search in searches) / 60
    return "\n\n".join(
        [
            "## Explorer",
            f"**{states:,} states** in {minutes:.0f} minutes, decided by {experiments:,} runs of the production handlers. In every state: no "
            "balance below zero, points neither made nor lost, a seat belongs to one payment, at most one kind of notice. In every quiet "
            "state: done everywhere or undone everywhere. With two replicas a transaction may stand still after any statement that reads, "
            "while the other one commits; row locks are honoured as PostgreSQL does. A violation would be told as the shortest way to it, in words.",
            "In the searches called *repaired* any two messages may get lost on the way, or what payment has still to settle; settlement and "
            "janitors are at work. There it must also hold that from every state a way leads, without another fault, to one in which the saga is "
            "settled everywhere: all of it or nothing.",
            _table(["scenario", "replicas of a service", "states", "endings", ""], rows),
        ]
    )


def _simulator(figures: Mapping[str, Any]) -> str:
    broker, faults = figures["broker"], figures["faults"]
    crashes = sorted(figures["crashes_by_boundary"].items(), key=lambda item: -item[1])
    others = {act: count for act, count in faults.items() if act not in {"is killed", "waits"}}
    endings = ", ".join(f"{count:,} {ending}" for ending, count in figures["endings"].items())
    return "\n\n".join(
        [
            "## Simulator",
            f"**{figures['sagas']:,} sagas** ({endings}) with **{figures['crashes']:,} crashes** and {sum(others.values()):,} other faults, in "
            f"{figures['virtual_seconds'] / 3600:.1f} virtual hours and {figures['wall_seconds']:.0f} real seconds: {broker['published']:,} "
            f"messages published, {broker['delivered']:,} deliveries, {broker['redelivered']:,} of them again, {figures['commits']:,} "
            f"transactions. Violations: {len(figures['violations'])}. `SEED={figures['seed']} SAGAS={figures['sagas']} make simulate` is this run, event for event.",
            _table(["crashed", "times"], [[where, f"{count:,}"] for where, count in crashes]),
            _table(["other fault", "times"], [[act, f"{count:,}"] for act, count in others.items()]),
        ]
    )


def _mutants(figures: Mapping[str, Any]) -> str:
    columns = ("mutants", "killed", "timeout", "explained", "survived")
    rows = [
        [f"`{file}`", *(f"{counts[column]:,}" for column in columns)] for file, counts in figures["files"].items()
    ]
    explained = tomllib.loads(_EXPLAINED.read_text())["explained"]
    return "\n\n".join(
        [
            "## Mutants",
            f"**{figures['killed'] + figures['timeout']:,} of {figures['mutants']:,}** small changes ({figures['library']}) of the deciding code were "
            f"noticed by a test, {figures['explained']:,} are explained, {figures['survived']:,} are neither; {figures['seconds'] / 60:.0f} minutes. "
            f"The {len(explained)} explanations, each with its reason, are in `tools/mutants/explained.toml`.",
            _table(["file", *columns], rows),
        ]
    )


def _weak(explorer: Mapping[str, Any]) -> str:
    never = ", ".join(f"`{cell}`" for cell in explorer["never_asked"]) or "none"
    return "\n".join(
        [
            "## What this does not show",
            "",
            f"- Cells of the barrier's table that no search ever asked: {never}. They guard databases that were set back.",
            "- A command that the broker lost before anybody took it is given again by its client or not at all, and a notice whose message was "
            "lost is missing until somebody gives the command again: the searches with losses allow both.",
            "- The mutants are of the code before settlement, janitor and retention, and before care was taken only after a lost race.",
            "- In the simulator replicas share one SQLite connection, so races between replicas are the explorer's part, and real PostgreSQL's in "
            "`tests/integration/test_races.py`.",
            "- Mutants change functions only: constants and tables of data are held by tests that name each entry.",
            "- Time-outs, blocked publishers and what real networks do are tested on real brokers (`tests/native`, `tests/e2e`), not searched.",
        ]
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
