"""Whether a letter that goes back will be believed: a service takes the word of its own broker user.

A letter that the service put there is signed by that user, and the broker vouches for it. One that the broker put
there is the original, of which the service judges as it did before. Any other it would only park again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from common import saga, topology
from ops.letters.letter import Letter
from ops.management import Management
from ops.output import CannotLookError


async def without_a_way_back(management_url: str | None) -> frozenset[str]:
    """Queues that lose what is rejected, as an older version declared them.

    Raises CannotLookError where the API does not tell: a letter that is replayed from one of them would be gone.
    """
    try:
        async with Management(management_url) as management:
            queues = await management.get("/api/queues/{vhost}", columns="name,arguments")
    except CannotLookError as error:
        raise CannotLookError(
            f"Nothing is replayed while nobody knows whether its queue gives back what is rejected: {error}"
        ) from error
    told = {queue["name"]: queue.get("arguments", {}) for queue in queues}
    kept = {
        queue: topology.replay_key(service)
        for service in saga.SERVICES
        for queue in (topology.dead_queue(service), topology.parked_queue(service))
    }
    return frozenset(
        queue for queue, key in kept.items() if told.get(queue, {}).get("x-dead-letter-routing-key") != key
    )


async def of_services(management_url: str | None) -> dict[str, str]:
    """The broker user of each service that consumes now, as the management API tells; none if it does not."""
    if management_url is None:
        return {}
    try:
        async with Management(management_url) as management:
            consumers = await management.get("/api/consumers/{vhost}")
    except CannotLookError:
        return {}
    users: dict[str, str] = {}
    for service in saga.SERVICES:
        for consumer in consumers if isinstance(consumers, list) else ():
            match consumer:
                case {"queue": {"name": str(queue)}, "channel_details": {"user": str(user)}}:
                    if queue == topology.events_queue(service):
                        users[service] = user
    return users


def why_not_back(letter: Letter, users: Mapping[str, str], lossy: Collection[str]) -> str:
    """Why a letter would not come back to its service, or not be believed; empty if it would."""
    if letter.queue in lossy:
        return f"{letter.queue} was declared by an older version: what is rejected there is lost, not given back"
    known, signed = users.get(letter.service), letter.properties.user
    if letter.killed:
        return ""
    if signed is None:
        return f"nobody signed it, so {letter.service} did not put it here, and would park it again"
    if known is not None and known != signed:
        return f"{signed} signed it, but {letter.service} is {known} on this broker, and would park it again"
    return ""
