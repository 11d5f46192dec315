"""A message, and what dying does to it: the death record that dead-lettering writes into its headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Headers = Mapping[str, Any]


class Reason(StrEnum):
    """Why a queue gave a message up, in the words of RabbitMQ."""

    EXPIRED = "expired"
    REJECTED = "rejected"
    DELIVERY_LIMIT = "delivery_limit"
    MAX_LENGTH = "maxlen"


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What was published: never changed, and shared by all queues that it reached.

    `properties` are the publisher's and of no interest here, but for `headers` and `expiration` (milliseconds),
    which stand beside them. `keys` are the routing key and, after it, those of the CC and BCC headers; the last
    `hidden` of them are BCC. `has_died`: the record of deaths in the headers is the broker's own. `failures` are
    those that a dead letter brings along.
    """

    body: bytes
    exchange: str
    keys: tuple[str, ...]
    headers: Headers | None
    expiration: int | None
    properties: Any
    hidden: int = 0
    has_died: bool = False
    failures: int = 0

    @property
    def shown(self) -> tuple[str, ...]:
        """The keys that others may see."""
        return self.keys[: len(self.keys) - self.hidden]


class Held:
    """One message in one queue: when it expires there, and how often it was delivered and came back.

    RabbitMQ 4 counts twice: all returns, for its delivery limit and to show; and failures (a lost channel, a
    rejection), which it takes along with a dead letter and shows there until the first return.
    """

    __slots__ = ("expires_at", "failures", "message", "returned")

    def __init__(self, message: Message, expires_at: float | None) -> None:
        self.message = message
        self.expires_at = expires_at
        self.returned = 0
        self.failures = message.failures

    @property
    def count(self) -> int:
        """What its consumer is told as the number of deliveries before."""
        return self.returned or self.message.failures


class Leaving:
    """A dead letter that has not reached every queue it is routed to, and those that it has."""

    __slots__ = ("held", "reached", "reason")

    def __init__(self, held: Held, reason: Reason) -> None:
        self.held = held
        self.reason = reason
        self.reached: set[str] = set()


def dead(held: Held, reason: Reason, queue: str, exchange: str, key: str | None, *, old: bool) -> Message:
    """The message as it leaves a queue for the dead-letter exchange; `old`: as RabbitMQ 3 does it."""
    message = held.message
    headers = dict(message.headers or {})
    _record(headers, reason, queue, message, old=old)
    keys, hidden = message.keys, message.hidden
    if key is not None:
        keys, hidden = (key,), 0
        if old:
            headers.pop("CC", None)
    return Message(
        message.body,
        exchange,
        keys,
        headers,
        None,
        message.properties,
        hidden,
        has_died=True,
        failures=0 if old else held.failures,
    )


def _record(headers: dict[str, Any], reason: Reason, queue: str, message: Message, *, old: bool) -> None:
    # RabbitMQ 4 does not believe what a client tells of deaths.
    told = headers.get("x-death") if old or message.has_died else None
    deaths: Sequence[dict[str, Any]] = told or []
    again = [death for death in deaths if death.get("queue") == queue and death.get("reason") == reason]
    if again:
        death = again[0] | {"count": again[0]["count"] + 1}
    else:
        death = {
            "count": 1,
            "reason": str(reason),
            "queue": queue,
            "time": datetime.now(UTC).replace(microsecond=0),
            "exchange": message.exchange,
            "routing-keys": list(message.shown),
        }
        if message.expiration is not None:
            death["original-expiration"] = str(message.expiration)
    headers["x-death"] = [death, *(other for other in deaths if other not in again)]
    if not deaths:
        headers["x-first-death-reason"] = str(reason)
        headers["x-first-death-queue"] = queue
        headers["x-first-death-exchange"] = message.exchange
    if not old:
        headers["x-last-death-reason"] = str(reason)
        headers["x-last-death-queue"] = queue
        headers["x-last-death-exchange"] = message.exchange


def goes_in_circles(message: Message, queue: str) -> bool:
    """Whether a dead letter comes back to a queue it died in, and nobody rejected it on the way."""
    reasons = []
    for death in (message.headers or {}).get("x-death") or []:
        reasons.append(death.get("reason"))
        if death.get("queue") == queue:
            return Reason.REJECTED not in reasons
    return False
