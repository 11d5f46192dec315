"""What the five databases say of one payment: the truth, where they can be asked and the history is silent."""

from __future__ import annotations

from dataclasses import dataclass

from common import saga
from common.messages import Failed, decode_stored
from ops import where
from ops.audit.reading import Books, open_books
from ops.story.standing import Phase


@dataclass(frozen=True, slots=True)
class Booked:
    """How a payment stands in the databases: where and why it failed; if it still moves, whose word is missing."""

    id: str
    phase: Phase
    failed_in: str = ""
    reason: str = ""
    detail: str = ""
    waits_for: tuple[str, ...] = ()


async def booked(payment_id: str) -> Booked | None:
    """Ask the databases; None if they know nothing of it. Raises CannotLookError where one cannot be read."""
    async with open_books(where.database_urls()) as books:
        (known,) = await books.pick([payment_id]) or (None,)
        if known is None or not known.exists:
            return None
        states = {service: known.state(service) for service in saga.SERVICES}
        if known.failed_at:
            return await _failed(books, payment_id, states, known.failed_at[0])
        if known.payment is not None and known.payment.state == "COMPLETED":
            return Booked(payment_id, Phase.COMPLETED)
        silent = tuple(service for service in saga.SERVICES if states[service] is None)
        # Past the last step, only the completion is missing.
        return Booked(payment_id, Phase.MOVING, waits_for=silent[:1] or (saga.FIRST.service,))


async def _failed(books: Books, payment_id: str, states: dict[str, str | None], service: str) -> Booked:
    said = await books.answer(service, payment_id)
    body = decode_stored(*said) if said else None
    reason, detail = (body.reason, body.detail) if isinstance(body, Failed) else ("", "")
    before = saga.SERVICES[: saga.SERVICES.index(service)]
    undoing = tuple(name for name in before if states[name] != "undone")
    phase = Phase.MOVING if undoing else Phase.UNDONE if before else Phase.FAILED
    return Booked(payment_id, phase, service, reason, detail, undoing)
