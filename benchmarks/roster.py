"""Who takes part: the floor, this system in its variants, and the peers that are installed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from benchmarks.contender import Factory
from benchmarks.floor import Floor
from benchmarks.ours import Ours, OursOnSqlite
from benchmarks.peers import CONTENDERS
from benchmarks.peers.programs import VENV

OURS = "postgres"
FLOOR = "floor"

_OWN: Mapping[str, Factory] = {
    FLOOR: Floor,
    OURS: Ours,
    "sqlite": partial(OursOnSqlite, name="sqlite", title="this system, SQLite"),
    "single": partial(
        Ours,
        name="single",
        title="this system, PostgreSQL, one message per transaction",
        settings={"BATCH_SIZE": "1"},
        share=0.07,
    ),
}


def contenders() -> dict[str, Factory]:
    """All that can take part here, by name; peers only where they are installed."""
    return {**_OWN, **(CONTENDERS if VENV.exists() else {})}
