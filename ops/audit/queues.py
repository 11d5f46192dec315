"""How many messages wait for the services: asked of the broker's management API."""

from __future__ import annotations

from common import saga
from ops.management import Management


async def messages(url: str) -> dict[str, int]:
    """How many messages there are in each of the services' queues; raises CannotLookError."""
    async with Management(url) as management:
        queues = await management.get("/api/queues/{vhost}", columns="name,messages")
    ours = tuple(f"{service}." for service in saga.SERVICES)
    return {queue["name"]: queue.get("messages", 0) for queue in queues if queue["name"].startswith(ours)}
