"""What is put together, and which tests decide about it."""

from __future__ import annotations

from dataclasses import dataclass

#: Whole sagas and every refusal, on a broker and databases in containers; then the faults that end connections.
_IN_CONTAINERS = ("tests/e2e/test_saga_in_containers.py", "tests/e2e/test_faults_in_containers.py")
#: All of the sagas; of the faults those that cut off a broker or a database, or kill under load.
_WHERE_VERSIONS_MATTER = (
    "saga_in_containers or goes_away or stays_away or cut_off or killed_under_load or while_broker"
)
#: Every rule and cell on real databases, SQLite and the PostgreSQL of this machine, and whole sagas on its broker.
_ON_THE_MACHINE = ("tests/unit", "tests/integration", "tests/native/test_native_saga.py")
#: About what is written for people, and about tools of this repository: no version of anything else changes that.
_NOT_ABOUT_VERSIONS = "not contracts and not mutants and not documents and not alerts and not board"


@dataclass(frozen=True, slots=True)
class Combination:
    """One line of the table. `release`: the Debian whose packages are in the containers; else a Python of ours."""

    name: str
    tests: tuple[str, ...]
    release: str = ""
    python: str = ""
    chosen: str = ""


COMBINATIONS: tuple[Combination, ...] = (
    *(
        Combination(name=release, tests=_IN_CONTAINERS, release=release, chosen=_WHERE_VERSIONS_MATTER)
        # Debian 12, 13, and what is to become the next one: the newest that can be had.
        for release in ("bookworm", "trixie", "sid")
    ),
    *(
        Combination(name=f"python{version}", tests=_ON_THE_MACHINE, python=version, chosen=_NOT_ABOUT_VERSIONS)
        for version in ("3.11", "3.12", "3.13")
    ),
)
