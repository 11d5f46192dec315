"""`saga outcome` and `saga abort`: what became of one payment, and its end by hand."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

import typer

from common import saga
from ops.acting.commands import send
from ops.acting.options import (
    SECONDS,
    Fields,
    Json,
    MaybeAmount,
    MaybeExpiry,
    MaybeReservation,
    MaybeToken,
    MaybeUser,
    PaymentId,
    Since,
    Timeout,
)
from ops.options import By
from ops.output import Exit


def outcome(
    payment_id: PaymentId,
    *,
    user: MaybeUser = None,
    reservation: MaybeReservation = None,
    token: MaybeToken = None,
    amount: MaybeAmount = None,
    expires_at: MaybeExpiry = None,
    since: Since = None,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """Ask again what became of a payment.

    The command is sent once more, and by the rule of repetition the services say again what they said; what got
    lost on the way is healed by that. Its content is read in the databases, or given as it was sent: then an id
    that was never used would be used by it. Where the databases do not tell the content, nothing is sent, and what
    they say, or else the history, which nobody guarantees, is told instead. The answer names who told it.

    Exit code: 0 completed; 1 refused, undone, under way or unknown; 2 could not look.

    Example: saga outcome p-1
    """
    from ops.acting import again  # noqa: PLC0415 - see ops.app

    fields = _payment(payment_id, user, reservation, token, amount, expires_at)
    if fields is not None:
        return send(saga.FIRST.on, fields, timeout, as_json=as_json)
    return asyncio.run(again.outcome(payment_id, since=_since(since), seconds=timeout, as_json=as_json))


def abort(
    payment_id: PaymentId,
    *,
    why: Annotated[str, typer.Option(help="Why; it is kept in the history.", show_default=False)],
    by: By = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it; without this, only tell what would happen.")
    ] = False,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Also where the history cannot keep who did it, and why.")
    ] = False,
    service: Annotated[
        str | None, typer.Option("--service", "-s", help="Who holds the baton, where nobody can be asked.")
    ] = None,
    user: MaybeUser = None,
    reservation: MaybeReservation = None,
    token: MaybeToken = None,
    amount: MaybeAmount = None,
    expires_at: MaybeExpiry = None,
    since: Since = None,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """End a payment before its pivot.

    Without --yes, only what would happen is told. The service that holds the baton is given a dead letter: it
    fails the saga, and all that was done before is undone. If it has done its part meanwhile, it does nothing. Who
    holds the baton, and which message it waits for, is read in the databases; without them in the history, and
    then the payment's fields have to be given. Who did it, and why, is put on record in the history first; what
    cannot be recorded is not done.

    Exit code: 0 aborted, or --yes is missing; 1 not aborted, because it is past its pivot, over already, or
    nobody answered; 2 could not look.

    Example: saga abort p-1 --why "the point service cannot be mended today" --yes
    """
    from ops import where  # noqa: PLC0415 - see ops.app
    from ops.acting import abort as aborting  # noqa: PLC0415 - see ops.app
    from ops.acting import fate  # noqa: PLC0415 - see ops.app
    from ops.acting.command import SlipError  # noqa: PLC0415 - see ops.app

    if not why.strip():
        raise typer.BadParameter("say why with --why")
    order = fate.Order(
        saga_id=payment_id,
        by=by or where.login_name(),
        why=why,
        service=service,
        fields=_payment(payment_id, user, reservation, token, amount, expires_at),
        really=yes,
        seconds=timeout,
        unrecorded=unrecorded,
        since=_since(since),
    )
    try:
        return fate.tell(asyncio.run(aborting.abort(order)), as_json=as_json)
    except SlipError as error:
        raise typer.BadParameter(str(error)) from None


def _payment(
    payment_id: str,
    user: str | None,
    reservation: str | None,
    token: str | None,
    amount: int | None,
    expires_at: str | None,
) -> Fields | None:
    """The fields of a payment; None if none was given."""
    from ops.acting.command import moment  # noqa: PLC0415 - see ops.app

    fields: Fields = {"user_id": user, "reservation_id": reservation, "token": token, "amount": amount}
    if all(value is None for value in (*fields.values(), expires_at)):
        return None
    if any(value is None for value in fields.values()):
        raise typer.BadParameter("--user, --reservation, --token and --amount are given together, or not at all")
    return {"payment_id": payment_id} | fields | {"expires_at": moment(expires_at)}


def _since(text: str | None) -> datetime | None:
    """A moment that is given as RFC 3339, or as how long ago."""
    from ops.acting.command import ago  # noqa: PLC0415 - see ops.app

    try:
        return None if text is None else ago(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
