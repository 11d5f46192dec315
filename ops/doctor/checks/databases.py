"""The five databases: reachable, migrated, writable, and their outboxes empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta

from ops.doctor.facts import Database, Facts
from ops.doctor.finding import Finding, note, or_well, some, wrong

#: An event is published within a second, and what a crash left within about 15 s.
_OLD_EVENT = timedelta(minutes=1)
_NEARLY_ALL = 0.9
_OLDEST = {"PostgreSQL": (13, "13"), "MariaDB": (10, "10.6"), "SQLite": (3, "3.35")}


def reachable(facts: Facts) -> Iterable[Finding]:
    """Every database can be read."""
    if facts.databases is None:
        return []
    return or_well(_reachable(facts.databases.items()), "databases", "all five answer")


def _reachable(databases: Iterable[tuple[str, Database]]) -> Iterator[Finding]:
    for service, database in databases:
        if database.refusal:
            what = f"{service}'s, {database.place}: {database.refusal}"
            mend = (
                f"start it, or mend what is said; DATABASE_URL_{service.upper()} names another, "
                "and `--only broker` looks at none"
            )
            yield wrong("databases", what, mend)


def migrations(facts: Facts) -> Iterable[Finding]:
    """Every migration of this checkout is applied, and no other."""
    read = _read(facts)
    return (
        or_well((it for service, found in read for it in _migrations(service, found)), "migrations", "all applied")
        if read
        else []
    )


def _migrations(service: str, database: Database) -> Iterator[Finding]:
    if missing := [name for name in database.wanted if name not in database.applied]:
        what = f"{service}'s database lacks {some(missing)}"
        yield wrong("migrations", what, f"restart {service} in this version: it migrates when it starts")
    if newer := [name for name in database.applied if name not in database.wanted]:
        what = f"{service}'s database has {some(newer)}, which this checkout does not know"
        yield note("migrations", what, "look with the version that the services run")


def servers(facts: Facts) -> Iterable[Finding]:
    """The servers are of a version we know, writable, and have connections to spare."""
    read = _read(facts)
    kinds = sorted({f"{found.vendor} {found.version}" for _, found in read})
    return (
        or_well((it for service, found in read for it in _server(service, found)), "servers", some(kinds))
        if read
        else []
    )


def _server(service: str, database: Database) -> Iterator[Finding]:
    if database.read_only:
        what = f"{service}'s database takes no changes: it is a standby, or set read-only"
        yield wrong("servers", what, f"name the primary in DATABASE_URL of {service}")
    limit = database.connections_limit
    if limit and database.connections >= _NEARLY_ALL * limit:
        what = f"{service}'s server has {database.connections} of at most {limit} connections"
        yield note("servers", what, "raise max_connections, or start fewer replicas: each keeps up to 5")
    if (known := _OLDEST.get(database.vendor)) and _too_old(database.version, known[1]):
        what = f"{service}'s database is {database.vendor} {database.version}, older than any that was tried"
        yield note("servers", what, f"use {database.vendor} {known[1]} or later")


def _too_old(version: str, oldest: str) -> bool:
    try:
        return _numbers(version) < _numbers(oldest)
    except ValueError:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(maxsplit=1)[0].split(".")[:2])


def outboxes(facts: Facts) -> Iterable[Finding]:
    """No event waits long to be published."""
    read = _read(facts)
    return (
        or_well(
            (it for service, found in read for it in _outbox(facts, service, found)), "outboxes", _depths(read)
        )
        if read
        else []
    )


def _outbox(facts: Facts, service: str, database: Database) -> Iterator[Finding]:
    if database.oldest is None:
        return
    # By the database's own clock: the service that staged it may be on another machine than we are.
    age = facts.looked_at + (database.ahead or timedelta()) - database.oldest
    if age > _OLD_EVENT:
        what = f"{database.unpublished} events wait in {service}'s outbox, the oldest for {_words(age)}"
        mend = (
            f"see that {service} runs and is connected; a missing binding keeps them too: {service}'s log names it"
        )
        yield wrong("outboxes", what, mend)


def _depths(read: Iterable[tuple[str, Database]]) -> str:
    waiting = [f"{service} {database.unpublished}" for service, database in read if database.unpublished]
    return f"just staged: {', '.join(waiting)}" if waiting else "empty"


def _words(age: timedelta) -> str:
    minutes = int(age.total_seconds() // 60)
    hours, days = minutes // 60, minutes // 60 // 24
    return f"{days} days" if days > 1 else f"{hours} hours" if hours > 1 else f"{minutes} min"


def _read(facts: Facts) -> list[tuple[str, Database]]:
    return [(service, found) for service, found in (facts.databases or {}).items() if not found.refusal]
