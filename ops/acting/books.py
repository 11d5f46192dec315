"""What the five databases say of one payment: how it stands, and, where it is still known, its command."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from common import saga
from common.messages import Failed, Pay, decode_stored
from ops import where
from ops.audit.reading import Books, open_books
from ops.audit.sources import COMMANDS, DIGESTS, Row
from ops.story.standing import Phase


@dataclass(frozen=True, slots=True)
class Booked:
    """How a payment stands in the databases: where and why it failed; if it still moves, whose word is missing.

    `command` is the one that began it; None where the databases no longer tell it, or never did.
    """

    id: str
    phase: Phase
    failed_in: str = ""
    reason: str = ""
    detail: str = ""
    waits_for: tuple[str, ...] = ()
    command: Pay | None = None


async def booked(payment_id: str) -> Booked | None:
    """Ask the databases; None if they know nothing of it. Raises CannotLookError where one cannot be read."""
    async with open_books(where.databases_of_the_broker()) as books:
        (known,) = await books.pick([payment_id]) or (None,)
        if known is None or not known.exists:
            return None
        command = as_it_was_sent(
            payment_id, await books.one(COMMANDS, payment_id), await books.one(DIGESTS, payment_id)
        )
        states = {service: known.state(service) for service in saga.SERVICES}
        if known.failed_at:
            return await _failed(books, payment_id, states, known.failed_at[0], command)
        if known.payment is not None and known.payment.state == "COMPLETED":
            return Booked(payment_id, Phase.COMPLETED, command=command)
        if known.payment is not None and known.payment.state == "CANCELLED":
            # Its rows have been forgotten, and with them where it failed; the payment is kept.
            return Booked(payment_id, Phase.UNDONE, command=command)
        silent = tuple(service for service in saga.SERVICES if states[service] is None)
        # Past the last step, only the completion is missing.
        waits_for = silent[:1] or (saga.FIRST.service,)
        return Booked(payment_id, Phase.MOVING, waits_for=waits_for, command=command)


async def _failed(
    books: Books, payment_id: str, states: dict[str, str | None], service: str, command: Pay | None
) -> Booked:
    said = await books.answer(service, payment_id)
    body = decode_stored(*said) if said else None
    reason, detail = (body.reason, body.detail) if isinstance(body, Failed) else ("", "")
    before = saga.SERVICES[: saga.SERVICES.index(service)]
    undoing = tuple(name for name in before if states[name] != "undone")
    phase = Phase.MOVING if undoing else Phase.UNDONE if before else Phase.FAILED
    return Booked(payment_id, phase, service, reason, detail, undoing, command)


def as_it_was_sent(payment_id: str, payment: Row | None, digest: Row | None) -> Pay | None:
    """The command whose content has this digest; None if the payment's row does not tell it.

    A payment has a deadline even if its command named none, and other content under the same id would be parked.
    So the digest decides which of the two was sent, and without one nobody guesses.
    """
    if payment is None or digest is None:
        return None
    user, reservation, token, amount, deadline = payment
    at = datetime.fromisoformat(deadline) if isinstance(deadline, str) else deadline
    # MariaDB keeps no offset; what is written there is UTC.
    for expires_at in (None, at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)):
        command = Pay.model_construct(
            payment_id=payment_id,
            user_id=user,
            reservation_id=reservation,
            token=token,
            amount=amount,
            expires_at=expires_at,
        )
        if command.fingerprint() == digest[0]:
            return command
    return None
