"""One message of a dead or parked queue, read as far as it can be; nothing in it is believed yet.

Its sender may be anybody, so every text in it is hostile until `ops.output` has made it harmless.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, StrEnum, auto
from typing import Any

from common import messages, recovery, rights, saga, topology
from common.messages import Body, Malformed, UnknownType

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9._:-]{1,255}")
#: Bytes of a body in which its saga's id is looked for, although it cannot be read.
_SEARCHED = 1024 * 1024
#: What was wrong beside the body. Copies do not keep it, so a replay would smuggle the message past the check.
_BESIDE_THE_BODY = frozenset({"bad_headers", "unknown_origin", rights.NOT_ITS_OWNER})
#: How an id begins that was made out of the content.
_DIGEST = "sha256:"
#: A shorter beginning of an id could be anybody's.
_SHORTEST_PREFIX = 6


class Kind(StrEnum):
    """Which of a service's two queues for letters."""

    DEAD = "dead"
    PARKED = "parked"

    def queue(self, service: str) -> str:
        """The queue of a service."""
        return topology.dead_queue(service) if self is Kind.DEAD else topology.parked_queue(service)


class Role(Enum):
    """What a letter is to the service in whose queue it lies."""

    FORWARD = auto()
    """The baton: the message on which the service does its part."""
    COMPLETION = auto()
    """The pivot's event, by which the payment completes."""
    FAILURE = auto()
    """A saga failed: the service undoes its part, or remembers never to do it."""
    IMPOSSIBLE = auto()
    """A failure that the saga table rules out."""
    SETTLEMENT = auto()
    """Many sagas are complete: the service closes its rows of them."""
    COMMAND = auto()
    """A command beside the saga."""
    OWN = auto()
    """What the service itself was to say."""
    FOREIGN = auto()
    """A message that this service does not take."""
    UNKNOWN = auto()
    """A type that this version does not know."""


@dataclass(frozen=True, slots=True)
class Properties:
    """What AMQP tells of a delivery. `published_at`: its publisher's clock; `user`: the broker vouches for it."""

    message_id: str | None = None
    correlation_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    user: str | None = None
    published_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that somebody must look at. `key`: its saga's or command's id, empty if it names none.

    `content` is its body, None if it cannot be read, or is of an unknown type; `fault` says why no service would
    take it. `killed`: it is here because the broker gave up on it, so it is the original, and no copy made by the
    service.
    """

    kind: Kind
    service: str
    id: str
    type: str
    key: str
    body: bytes
    properties: Properties
    headers: Mapping[str, Any]
    reason: str
    detail: str
    attempt: int
    first_failed_at: datetime | None
    failed_in: str
    killed: bool
    content: Body | None
    fault: str
    tag: int = 0

    @property
    def queue(self) -> str:
        """Where it lies."""
        return self.kind.queue(self.service)

    @property
    def role(self) -> Role:
        """What it is to the service in whose queue it lies."""
        return role_of(self.service, self.type)

    @property
    def since(self) -> datetime | None:
        """When it first failed; else when it was put here; None if nobody says."""
        return self.first_failed_at or self.properties.published_at

    def answers_to(self, name: str) -> bool:
        """Whether a person who says `name` means this letter: its id, the beginning of it, or its saga's id."""
        if len(name.removeprefix(_DIGEST)) >= _SHORTEST_PREFIX and self.id.startswith(name):
            return True
        return name == self.id or (self.key != "" and name == self.key)


def role_of(service: str, type_: str) -> Role:
    """What a message of this type is to a service."""
    if saga.takes(service, type_):
        if type_ == saga.step_of(service).on:
            return Role.FORWARD
        if type_ == saga.PIVOT.emits:
            return Role.COMPLETION
        if type_.endswith(".failed"):
            return Role.FAILURE if saga.may_fail(type_) else Role.IMPOSSIBLE
        return Role.SETTLEMENT if type_ == saga.SETTLED else Role.COMMAND
    if type_ in saga.emitted_keys(service):
        return Role.OWN
    return Role.FOREIGN if type_ in messages.TYPES else Role.UNKNOWN


def read(
    kind: Kind, service: str, body: bytes, properties: Properties, headers: Mapping[str, Any], *, tag: int = 0
) -> Letter:
    """Read a delivery of a dead or parked queue.

    What the service wrote about it is taken at its word here: `ops.letters.acting` sees to it that the broker, and
    the service in the end, check who says so.
    """
    key = topology.dead_queue(service) if kind is Kind.DEAD else topology.return_key(service)
    origin = recovery.provenance(service, "", routing_key=key, user_id="", headers=headers)
    content, fault = _content(origin.type, body, properties)
    reason = recovery.CRASH_GUARD if origin.killed_by_broker else origin.history.reason
    if not fault and reason in _BESIDE_THE_BODY:
        fault = f"{reason}: {origin.history.detail}"
    return Letter(
        kind=kind,
        service=service,
        id=_name(properties.message_id, body),
        type=origin.type,
        key=content.key if content else _guessed_key(origin.type, body, properties),
        body=body,
        properties=properties,
        headers=headers,
        reason=reason,
        detail=origin.history.detail,
        attempt=origin.history.attempts,
        first_failed_at=origin.history.first_failed_at,
        failed_in=str(headers.get(recovery.FAILED_IN, ""))[:255],
        killed=origin.killed_by_broker,
        content=content,
        fault=fault,
        tag=tag,
    )


def at(timestamp: object) -> datetime | None:
    """A time as AMQP tells it; None for none, or for one outside the calendar."""
    try:
        match timestamp:
            case datetime():
                return timestamp.astimezone(UTC)
            case int():
                return datetime.fromtimestamp(timestamp, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None


def _content(type_: str, body: bytes, properties: Properties) -> tuple[Body | None, str]:
    try:
        content = messages.decode(
            type_, body, content_type=properties.content_type, content_encoding=properties.content_encoding
        )
    except Malformed as error:
        return None, f"{error.reason}: {error.detail}"
    except UnknownType:
        return None, ""
    return content, ""


def _name(message_id: str | None, body: bytes) -> str:
    """The id by which a person names a letter; what has none that can be typed is named by its content."""
    if message_id and _MESSAGE_ID.fullmatch(message_id):
        return message_id
    return f"{_DIGEST}{hashlib.sha256(body).hexdigest()[:16]}"


def _guessed_key(type_: str, body: bytes, properties: Properties) -> str:
    """The saga's id that a body seems to tell although it cannot be read; else the one of its properties."""
    field = messages.TYPES[type_].key_field if type_ in messages.TYPES else "payment_id"
    told: object = None
    if len(body) <= _SEARCHED:
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            told = document.get(field)
    for guess in (told, properties.correlation_id):
        if isinstance(guess, str) and _ID.fullmatch(guess):
            return guess
    return ""
