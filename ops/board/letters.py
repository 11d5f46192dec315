"""What waits for a person: parked messages and dead letters, as the management API counts them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from common import saga, topology
from ops.management import Management
from ops.output import CannotLookError

EVERY = 3.0
_SECONDS = 5.0
#: How many messages wait in each queue.
Depths = Mapping[str, int]


async def count(tell: Callable[[Depths | None], None], *, url: str | None = None, every: float = EVERY) -> None:
    """Tell how many messages wait in each queue, again and again; None whenever nobody could be asked."""
    while True:
        tell(await _ask(url))
        await asyncio.sleep(every)


async def _ask(url: str | None) -> Depths | None:
    try:
        async with Management(url, seconds=_SECONDS) as management:
            queues = await management.get("/api/queues/{vhost}", columns="name,messages")
    except CannotLookError:
        return None
    return _depths(queues)


def _depths(queues: object) -> Depths:
    """The API's answer, as far as it is one."""
    return {
        str(queue["name"]): queue["messages"]
        for queue in (queues if isinstance(queues, list) else [])
        if isinstance(queue, dict) and isinstance(queue.get("messages"), int) and "name" in queue
    }


def section(
    depths: Depths | None, parked: Mapping[str, int], pages: Callable[[str], str | None]
) -> dict[str, Any]:
    """The page's table. Without depths, `parked` stands in: how many the history told of, by service.

    `pages` gives the address of a queue's page in the management UI.
    """
    rows = []
    for service in saga.SERVICES:
        queues = {"parked": topology.parked_queue(service), "dead": topology.dead_queue(service)}
        waiting: dict[str, int | None] = {"parked": parked.get(service, 0), "dead": None}
        if depths is not None:
            waiting = {kind: depths.get(queue, 0) for kind, queue in queues.items()}
        addresses = {f"{kind}_url": pages(queue) for kind, queue in queues.items()}
        rows.append({"service": service, **waiting, **addresses})
    source = "in the queues now" if depths is not None else "told by the history; the queues cannot be asked"
    return {"source": source, "rows": rows}


def page_of(management: str | None, vhost: str) -> Callable[[str], str | None]:
    """Where the management UI shows a queue; `management` is its address without a login."""

    def page(queue: str) -> str | None:
        if management is None:
            return None
        return f"{management}/#/queues/{quote(vhost, safe='')}/{quote(queue, safe='')}"

    return page
