"""Clocks: this machine's against the broker's and the databases', and the services' against one another.

Deadlines travel in messages and are compared with the clock of whoever holds the baton, so the clocks must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from ops.doctor.facts import Facts, Told
from ops.doctor.finding import Finding, or_well, wrong

_MEND = "let every machine take its time from NTP: `timedatectl set-ntp true`"


def broker(facts: Facts) -> Iterable[Finding]:
    """The broker's clock agrees with ours."""
    ahead = facts.broker.ahead if facts.broker else None
    return (
        []
        if ahead is None
        else or_well(_compare(facts, "the broker's machine", ahead), "clocks", "the broker's agrees")
    )


def of_databases(facts: Facts) -> Iterable[Finding]:
    """The databases' clocks agree with ours."""
    clocks = [(name, it.ahead) for name, it in (facts.databases or {}).items() if it.ahead is not None]
    found = (it for name, ahead in clocks for it in _compare(facts, f"{name}'s database", ahead))
    return or_well(found, "clocks", "the databases' agree") if clocks else []


def of_services(facts: Facts) -> Iterable[Finding]:
    """No service acts on an event before it was said, by their own clocks, and none is ahead of us."""
    if not facts.told:
        return []
    return or_well(_services(facts), "clocks", "the services' agree, as the history tells")


def _services(facts: Facts) -> Iterator[Finding]:
    latest: dict[tuple[str, str], datetime] = {}
    for told in facts.told:
        key = told.service, told.replica
        latest[key] = max(told.at, latest.get(key, told.at))
    for (service, replica), at in sorted(latest.items()):
        yield from _compare(facts, f"{service} ({replica})", at - facts.looked_at, behind=False)
    for (before, after), late in sorted(_inversions(facts.told).items()):
        if late > facts.clock_limit:
            what = (
                f"{after} handled events {_seconds(late)} before {before} said them: one of their clocks is wrong"
            )
            yield wrong("clocks", what, _MEND)


def _inversions(told: Sequence[Told]) -> dict[tuple[str, str], timedelta]:
    """For each pair of replicas that one follows the other in: by how much it seemed to come first, at most."""
    said = {(it.saga, event): it for it in told for event in it.said}
    found: dict[tuple[str, str], timedelta] = {}
    for it in told:
        source = said.get((it.saga, it.type))
        if source and source.replica != it.replica:
            pair = f"{source.service} ({source.replica})", f"{it.service} ({it.replica})"
            found[pair] = max(found.get(pair, timedelta()), source.at - it.at)
    return found


def _compare(facts: Facts, whose: str, ahead: timedelta, *, behind: bool = True) -> Iterator[Finding]:
    if ahead > facts.clock_limit:
        yield wrong("clocks", f"{whose} is {_seconds(ahead)} ahead of this one", _MEND)
    elif behind and -ahead > facts.clock_limit:
        yield wrong("clocks", f"{whose} is {_seconds(-ahead)} behind this one", _MEND)


def _seconds(length: timedelta) -> str:
    return f"{length.total_seconds():.1f} s"
