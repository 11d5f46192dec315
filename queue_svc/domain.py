"""Rules of waiting-queue tokens: pure functions. A token lets one user pay once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class State(StrEnum):
    """A token's life."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as the rules see it."""

    user_id: str
    state: State


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: a stable code, and a sentence for the person."""

    reason: str
    detail: str


def expire(token: Token | None, user_id: str, *, expires_at: datetime, now: datetime) -> State | Refusal:
    """The token's state after its user has paid; None is a token nobody was given.

    >>> from datetime import UTC
    >>> expire(None, "ann", expires_at=datetime.max.replace(tzinfo=UTC), now=datetime.now(UTC)).reason
    'unknown_token'
    """
    if now > expires_at:
        return Refusal("deadline_passed", f"the payment had to be done by {expires_at.isoformat()}")
    if token is None:
        return Refusal("unknown_token", "nobody was given this token")
    if token.user_id != user_id:
        return Refusal("not_your_token", "the token belongs to another user")
    if token.state is not State.ACTIVE:
        return Refusal("token_not_active", "the token was used up by another payment")
    return State.EXPIRED
