"""In whose name a letter goes back: a service believes only what its own broker user published.

A letter that the service put there itself is signed by that user, and the broker vouches for it. Where it is not,
nobody may guess: in a wrong name the copy would not be believed, and its type be lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from common import saga, topology
from ops.letters.letter import Letter
from ops.management import Management
from ops.output import CannotLookError


@dataclass(frozen=True, slots=True)
class Nobody:
    """It is not known in whose name; `why` says what is missing, and what to do."""

    why: str


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


def signatory(letter: Letter, users: Mapping[str, str], told: str | None) -> str | Nobody:
    """In whose name a letter is replayed; `told`: the user whom the operator named.

    What the broker gave up on is the original, signed by whoever published it, which tells nothing.
    """
    if told is not None:
        return told
    known = users.get(letter.service)
    signed = None if letter.killed else letter.properties.user
    who = f"name the broker user of {letter.service} with --as"
    if letter.killed:
        return known or Nobody(f"the broker moved it here, so {letter.service} has not signed it: {who}")
    if signed is None:
        return Nobody(f"nobody signed it: {letter.service} did not put it here; if you believe it, {who}")
    if known is not None and known != signed:
        return Nobody(
            f"{signed} signed it, but {letter.service} is {known} on this broker; if you believe it, {who}"
        )
    return signed
