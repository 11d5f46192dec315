"""A DBOS workflow as a contender: `dbos_app.py`, a process for each core, and `dbos_client.py` to drive it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from benchmarks.contender import Ground, Guarantees, Order, ProgramFeed
from benchmarks.peers.programs import HERE, VENV, Programs, versions
from benchmarks.peers.tables import SERVICES, Databases

#: One database for the application, as in DBOS's own examples, beside the one in which DBOS keeps its books.
_APPLICATION, _SYSTEM = "peer_dbos", "peer_dbos_system"


class DbosPeer:
    """One workflow of five transactions: durable, each transaction once, compensations in its code."""

    name = "dbos"
    title = "DBOS workflow"
    guarantees = Guarantees(
        delivery="a workflow that began is finished",
        effect="once: a transaction notes that it is done",
        undo="written into the workflow, as durable as it",
        event="there is none: one application, one database, no broker",
    )
    share = 0.05

    def __init__(self, ground: Ground) -> None:
        self._programs = Programs(ground.folder)
        self._databases = Databases(ground, dict.fromkeys(SERVICES, _APPLICATION), more=[_SYSTEM])
        # SQLAlchemy knows PostgreSQL by this name only.
        self._url, self._system_url = (
            ground.database(name).replace("postgres://", "postgresql://", 1) for name in (_APPLICATION, _SYSTEM)
        )

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages that matter to the figure."""
        return versions("dbos", "SQLAlchemy", "psycopg")

    def create(self) -> None:
        """Make the databases; DBOS makes its own tables."""
        self._databases.create()

    def start(self) -> None:
        """Start a process for each core, the first alone, because it makes DBOS's tables."""
        for number in range(len(os.sched_getaffinity(0))):
            name = f"worker-{number}"
            self._programs.start(
                name,
                *("python", "dbos_app.py", name),
                settings={"DATABASE_URL": self._url, "SYSTEM_DATABASE_URL": self._system_url},
            )
            self._programs.wait(lambda: self._programs.all_said("taking work"))

    def pids(self) -> Mapping[str, int]:
        """The workers that run."""
        return self._programs.pids

    def prepare(self, orders: Sequence[Order]) -> None:
        """Fill the database."""
        self._databases.prepare(orders)

    def feed(self, orders: Sequence[Order]) -> ProgramFeed:  # noqa: ARG002 - they come in the program's file
        """DBOS takes work from its database, by its own client."""
        return ProgramFeed([str(VENV / "bin" / "python"), str(HERE / "dbos_client.py"), self._system_url])

    def settle(self, seconds: float) -> None:
        """Nothing is under way after the workflow's end."""

    def audit(self, orders: Sequence[Order]) -> list[str]:
        """Count what was done."""
        return self._databases.audit(orders)

    def stop(self) -> None:
        """Stop the workers."""
        self._programs.stop()

    def remove(self) -> None:
        """Remove the databases."""
        self.stop()
        self._databases.remove()
