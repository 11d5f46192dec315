"""The count of every command, and what the audit says: wholly done, or wholly undone, or a find."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos.load import Customer, Kind, Load
from common import saga
from containers.books import ALL_DONE, ENDINGS, FAILED_AT, as_done
from containers.system import System
from ops.audit.look import audit


@dataclass(slots=True)
class Count:
    """What became of some payments."""

    sagas: int = 0
    completed: int = 0
    undone: int = 0
    """Failed, and all that was done before is undone."""
    unsettled: list[str] = field(default_factory=list)
    """Payment ids with the state of their rows: confirmed, and neither done nor undone."""
    unheard: list[str] = field(default_factory=list)
    """Of these, the payment ids of which no service has a row: what was confirmed was lost before it was read."""
    otherwise: dict[str, int] = field(default_factory=dict)
    """Payments that ended wholly, but not as they would have without a fault: by step, how many."""


async def count(system: System, customers: Iterable[Customer]) -> Count:
    """Look up what became of these payments; AssertionError while a database is away."""
    wanted = {who.pay.payment_id: who for who in customers}
    states: dict[str, dict[str, str]] = defaultdict(dict)
    found = await asyncio.gather(*(_steps(system, service, list(wanted)) for service in saga.SERVICES))
    for service, rows in zip(saga.SERVICES, found, strict=True):
        for key, state in rows.items():
            states[key][service] = state
    pending = set(await _unfinished(system, list(wanted)))
    result = Count(sagas=len(wanted))
    otherwise: Counter[str] = Counter()
    for key, who in wanted.items():
        ended = tuple(as_done(states[key].get(service)) for service in saga.SERVICES)
        if ended not in ENDINGS or key in pending:
            result.unsettled.append(f"{key}: {', '.join(str(state) for state in ended)}")
            if not any(ended):
                result.unheard.append(key)
            continue
        if ended == ALL_DONE:
            result.completed += 1
        else:
            result.undone += 1
        where = next((service for service, ending in FAILED_AT.items() if ending == ended), Kind.GOOD)
        if where != who.kind:
            otherwise[f"{who.kind} ended at {where}"] += 1
    result.otherwise = dict(otherwise)
    return result


async def _steps(system: System, service: str, wanted: list[str]) -> dict[str, str]:
    rows = await system.query(service, "SELECT saga_id, state FROM saga_step WHERE saga_id = ANY($1)", wanted)
    return {row["saga_id"]: row["state"] for row in rows}


async def _unfinished(system: System, wanted: list[str]) -> list[str]:
    """Payments that are provisional, users that were not told, events that were not published."""
    found = await asyncio.gather(
        system.query(
            "payment",
            "SELECT payment_id AS id FROM payment WHERE state = 'PAID' AND payment_id = ANY($1)",
            wanted,
        ),
        system.query(
            "notify", "SELECT saga_id AS id FROM notice WHERE state <> 'SENT' AND saga_id = ANY($1)", wanted
        ),
        *(
            system.query(service, "SELECT key AS id FROM outbox WHERE key = ANY($1)", wanted)
            for service in saga.SERVICES
        ),
    )
    return [row["id"] for rows in found for row in rows]


async def violations(system: System) -> list[str]:
    """What the operators' own audit of all five databases finds broken."""
    report = await audit({service: system.database_url(service) for service in saga.SERVICES})
    return [str(violation) for violation in report.violations]


async def backlog(load: Load) -> int:
    """Payments that were confirmed and of which the user was told nothing yet; AssertionError if nobody knows."""
    mine = f"{load.mark}-%"
    told, moving = await asyncio.gather(
        load.system.query(
            "notify", "SELECT count(*) AS n FROM notice WHERE state = 'SENT' AND saga_id LIKE $1", mine
        ),
        load.system.query(
            "payment", "SELECT count(*) AS n FROM payment WHERE state = 'PAID' AND payment_id LIKE $1", mine
        ),
    )
    return int(load.sent() - told[0]["n"] + moving[0]["n"])
