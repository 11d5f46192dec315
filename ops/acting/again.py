"""Asking for a payment's outcome again: the command is sent once more, and the services repeat what they said.

Whoever has only the id is not left with what somebody wrote down: the command is read in the databases, exactly
as it was sent, and sent again. A letter that waits for a person may tell a command, too, but is no way to look:
one that is parked at the first service never began, and to send it would begin it.
"""

from __future__ import annotations

from datetime import datetime

from common import saga
from ops.acting import asking, telling
from ops.acting.books import Booked, booked
from ops.acting.past import Past, past_of
from ops.output import CannotLookError, Exit, warn


async def outcome(payment_id: str, *, since: datetime | None, seconds: float, as_json: bool) -> Exit:
    """Ask the services if the command can be had, else tell what databases or history say; raises CannotLookError.

    `since` bounds how much of the history is read, where it is.
    """
    try:
        known = await booked(payment_id)
    except CannotLookError as error:
        warn(f"Nobody is asked again, and the history alone tells: the databases cannot be read ({error})")
        return telling.tell_past(await past_of(payment_id, since=since), as_json=as_json)
    if known is None:
        # Not in the databases yet, or no longer: the history may tell more.
        return telling.tell_past(await _past(payment_id, since), as_json=as_json)
    if known.command is None:
        return telling.tell_booked(known, as_json=as_json)
    return await _asked(known, seconds=seconds, as_json=as_json)


async def _asked(known: Booked, *, seconds: float, as_json: bool) -> Exit:
    assert known.command is not None
    try:
        asked = await asking.ask(saga.FIRST.on, known.command, seconds=seconds)
    except CannotLookError as error:
        warn(f"Nobody could be asked again: {error}")
        return telling.tell_booked(known, as_json=as_json)
    assert asked.outcome is not None
    if not asked.outcome.is_over and known.phase.ended:
        # It ended before; only those who would say so again do not answer.
        warn(f"The services do not answer within {seconds:.0f} s: do they run? `saga doctor` looks")
        return telling.tell_booked(known, as_json=as_json)
    return telling.tell(asked, as_json=as_json, content_from="databases")


async def _past(payment_id: str, since: datetime | None) -> Past:
    """What the history tells of what the databases do not know; nothing, where there is no history."""
    try:
        return await past_of(payment_id, since=since)
    except CannotLookError as error:
        warn(f"The databases know nothing of it, and the history cannot be read: {error}")
        return Past(payment_id)
