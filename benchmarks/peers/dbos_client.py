"""Put orders into the queue of `dbos_app.py` and see them done: the driver's part, by DBOS's own client.

    python dbos_client.py SYSTEM_DATABASE_URL FILE

`benchmarks.contender.ProgramFeed` says what FILE holds and what is printed. Workflows are enqueued many in a
transaction, and one cheap query tells which have ended, so that the client takes little of the machine.
"""
# The peers' packages are in an interpreter of their own, unseen by the type checker of this one.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOSClient, EnqueueOptions

_SECONDS_BETWEEN_LOOKS = 0.05
_ENDED = sqlalchemy.text(
    """SELECT workflow_uuid FROM dbos.workflow_status
    WHERE workflow_uuid = ANY(:ids) AND status NOT IN ('ENQUEUED', 'PENDING')"""
)


class Client:
    """A client of DBOS, and a connection to the same database to look and to write many at once."""

    def __init__(self, url: str) -> None:
        self._client = DBOSClient(system_database_url=url, application_name="peer-dbos")
        self._engine = sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))

    def enqueue(self, orders: Iterable[dict[str, Any]]) -> None:
        """Enqueue a workflow for each order, all or none."""
        expires_at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        with self._engine.begin() as connection:
            for order in orders:
                options: EnqueueOptions = {
                    "queue_name": "payments",
                    "workflow_name": "saga",
                    "workflow_id": order["payment_id"],
                }
                fields = ("payment_id", "user_id", "reservation_id", "token", "amount")
                command = {name: order[name] for name in fields} | {"expires_at": expires_at}
                self._client.enqueue_in_transaction(connection, options, command)

    def ended(self, ids: Iterable[str]) -> list[str]:
        """Which of these have come to an end, whatever it was: the audit tells how."""
        with self._engine.connect() as connection:
            return list(connection.execute(_ENDED, {"ids": list(ids)}).scalars())


def main(url: str, file: str) -> None:
    """Keep as many workflows under way as FILE allows until all have ended."""
    given = json.loads(Path(file).read_text())
    client = Client(url)
    waiting = given["orders"][::-1]
    in_flight = given["in_flight"] or len(waiting)
    under_way: set[str] = set()
    done_at: list[float] = []
    began = time.monotonic()
    while (waiting or under_way) and time.monotonic() < began + given["seconds"]:
        room = min(in_flight - len(under_way), len(waiting))
        if room:
            orders = [waiting.pop() for _ in range(room)]
            client.enqueue(orders)
            under_way |= {order["payment_id"] for order in orders}
        ended = client.ended(under_way)
        done_at += [time.monotonic()] * len(ended)
        under_way.difference_update(ended)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    ended_at = max(done_at, default=began)
    json.dump({"began": began, "ended": ended_at, "done": len(done_at), "done_at": done_at}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
