"""Where the services record each command that begins no saga: by its own id, whatever became of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.messages import Body, Enter, Hold, TopUp
from containers.system import System


@dataclass(frozen=True, slots=True)
class _Record:
    """`kind` names its id `field`; `query` gives those of $1 that are recorded by `service`."""

    kind: type[Body]
    field: str
    service: str
    query: str


_RECORDS = (
    _Record(
        Hold,
        "reservation_id",
        "reservation",
        "SELECT reservation_id AS id FROM reservation WHERE reservation_id = ANY($1)",
    ),
    _Record(TopUp, "top_up_id", "point", "SELECT saga_id AS id FROM ledger_entry WHERE saga_id = ANY($1)"),
    _Record(Enter, "token", "queue", "SELECT token AS id FROM token WHERE token = ANY($1)"),
)


async def unrecorded(system: System, commands: Iterable[Body]) -> list[str]:
    """The ids of those that no service has recorded; AssertionError while a database is away."""
    known = list(commands)
    gone: list[str] = []
    for record in _RECORDS:
        mine = {str(getattr(body, record.field)) for body in known if isinstance(body, record.kind)}
        rows = await system.query(record.service, record.query, list(mine)) if mine else []
        gone += sorted(mine - {row["id"] for row in rows})
    return gone
