"""`saga pay`, `hold`, `top-up`, `enter`, `outcome` and `abort`: their options, and which code they leave with."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Annotated

import typer

from common import saga
from ops.acting.options import (
    SECONDS,
    TIME,
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
    User,
    Wait,
)
from ops.output import CannotLookError, Exit

_HOLD, _TOP_UP, _ENTER = (command.on for command in saga.COMMANDS)


def pay(
    *,
    user: User,
    reservation: Annotated[
        str, typer.Option(metavar="ID", help="The reservation to pay for.", show_default=False)
    ],
    token: Annotated[
        str, typer.Option(metavar="ID", help="The user's token of the waiting room.", show_default=False)
    ],
    amount: Annotated[int, typer.Option(help="Points; the price of the reservation.", show_default=False)],
    payment_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="The payment's id, its idempotency key; one is made otherwise."),
    ] = None,
    expires_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"When the payment has to be done. {TIME} Ten minutes otherwise."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """Send `payment.pay`: the command that starts a saga.

    Sent again with the same id and the same content it does nothing twice: it only asks for the outcome.

    With --wait, exit code 0 is completed; 1 refused, undone or not ended in time; 2 not sent.

    Example: saga pay --user u-1 --reservation r-1 --token t-1 --amount 300 --wait
    """
    from ops.acting.command import moment, new_id  # noqa: PLC0415 - these bring models and the broker's client

    fields: Fields = {
        "payment_id": payment_id if payment_id is not None else new_id("p"),
        "user_id": user,
        "reservation_id": reservation,
        "token": token,
        "amount": amount,
        "expires_at": moment(expires_at),
    }
    return _send(saga.FIRST.on, fields, timeout if wait else None, as_json=as_json)


def hold(
    *,
    user: User,
    seat: Annotated[str, typer.Option(metavar="ID", help="The seat to hold.", show_default=False)],
    price: Annotated[int, typer.Option(help="Points that the payment has to take.", show_default=False)],
    reservation_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The reservation's id; one is made otherwise.")
    ] = None,
    held_until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help=f"How long the seat is held. {TIME} Ten minutes otherwise."),
    ] = None,
    wait: Wait = False,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """Send `reservation.hold`: hold a seat for a user at a price.

    With --wait, exit code 0 is held; 1 rejected or not answered in time; 2 not sent.

    Example: saga hold --id r-1 --user u-1 --seat A-12 --price 300 --held-until 1h --wait
    """
    from ops.acting.command import moment, new_id  # noqa: PLC0415 - see pay

    fields: Fields = {
        "reservation_id": reservation_id if reservation_id is not None else new_id("r"),
        "user_id": user,
        "seat": seat,
        "price": price,
        "held_until": moment(held_until),
    }
    return _send(_HOLD, fields, timeout if wait else None, as_json=as_json)


def top_up(
    *,
    user: User,
    amount: Annotated[int, typer.Option(help="Points to give.", show_default=False)],
    top_up_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The command's own id; one is made otherwise.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """Send `point.top_up`: give a user points.

    The first one opens the wallet.

    With --wait, exit code 0 is done; 1 rejected or not answered in time; 2 not sent.

    Example: saga top-up --user u-1 --amount 1000 --wait
    """
    from ops.acting.command import new_id  # noqa: PLC0415 - see pay

    fields: Fields = {
        "top_up_id": top_up_id if top_up_id is not None else new_id("gift"),
        "user_id": user,
        "amount": amount,
    }
    return _send(_TOP_UP, fields, timeout if wait else None, as_json=as_json)


def enter(
    *,
    user: User,
    token: Annotated[
        str | None, typer.Option(metavar="ID", help="The token, which is its own id; one is made otherwise.")
    ] = None,
    wait: Wait = False,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """Send `queue.enter`: give a user a token.

    With it the user is through the waiting room.

    With --wait, exit code 0 is done; 1 rejected or not answered in time; 2 not sent.

    Example: saga enter --user u-1 --token t-1 --wait
    """
    from ops.acting.command import new_id  # noqa: PLC0415 - see pay

    fields: Fields = {"token": token if token is not None else new_id("t"), "user_id": user}
    return _send(_ENTER, fields, timeout if wait else None, as_json=as_json)


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
    """Ask what became of a payment.

    With the payment's fields, exactly as they were sent, the services are asked: the command is sent once more,
    and by the rule of repetition they say again what they said; what got lost on the way is healed by that. An id
    that was never used would be used by it. Without the fields the history is read, which nobody guarantees;
    where it tells nothing, the databases are asked, if they can be.

    Exit code: 0 completed; 1 refused, undone, under way or unknown; 2 could not look.

    Example: saga outcome p-1 --user u-1 --reservation r-1 --token t-1 --amount 300
    """
    from ops.acting import books, past, telling  # noqa: PLC0415 - see pay

    fields = _payment(payment_id, user, reservation, token, amount, expires_at)
    if fields is not None:
        return _send(saga.FIRST.on, fields, timeout, as_json=as_json)
    known = asyncio.run(past.past_of(payment_id, since=_since(since)))
    if known.standing() is None:
        with contextlib.suppress(CannotLookError):
            if found := asyncio.run(books.booked(payment_id)):
                return telling.tell_booked(found, as_json=as_json)
    return telling.tell_past(known, as_json=as_json)


def abort(
    payment_id: PaymentId,
    *,
    why: Annotated[str, typer.Option(help="Why; it is kept in the history.", show_default=False)],
    by: Annotated[str | None, typer.Option(help="Who does it; by default the login name.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do it; without this, only tell what would happen.")
    ] = False,
    service: Annotated[
        str | None, typer.Option("--service", "-s", help="Who holds the baton, where nobody can be asked.")
    ] = None,
    user: MaybeUser = None,
    reservation: MaybeReservation = None,
    token: MaybeToken = None,
    amount: MaybeAmount = None,
    expires_at: MaybeExpiry = None,
    as_user: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="The service's broker user, if it is not that of RABBITMQ_URL."),
    ] = None,
    since: Since = None,
    timeout: Timeout = SECONDS,
    as_json: Json = False,
) -> Exit:
    """End a payment before its pivot.

    Without --yes, only what would happen is told. The service that holds the baton is given a dead letter: it
    fails the saga, and all that was done before is undone. If it has done its part meanwhile, it does nothing. Who
    holds the baton, and which message it waits for, is read in the databases; without them in the history, and
    then the payment's fields have to be given.

    Exit code: 0 aborted, or --yes is missing; 1 not aborted, because it is past its pivot, over already, or
    nobody answered; 2 could not look.

    Example: saga abort p-1 --why "the point service cannot be mended today" --yes
    """
    from ops import where  # noqa: PLC0415 - see pay
    from ops.acting import abort as aborting  # noqa: PLC0415 - see pay
    from ops.acting import fate  # noqa: PLC0415 - see pay
    from ops.acting.command import SlipError  # noqa: PLC0415 - see pay

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
        in_the_name_of=as_user,
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
    from ops.acting.command import moment  # noqa: PLC0415 - see pay

    fields: Fields = {"user_id": user, "reservation_id": reservation, "token": token, "amount": amount}
    if all(value is None for value in (*fields.values(), expires_at)):
        return None
    if any(value is None for value in fields.values()):
        raise typer.BadParameter("--user, --reservation, --token and --amount are given together, or not at all")
    return {"payment_id": payment_id} | fields | {"expires_at": moment(expires_at)}


def _since(text: str | None) -> datetime | None:
    """A moment that is given as RFC 3339, or as how long ago."""
    from ops.acting.command import ago  # noqa: PLC0415 - see pay

    try:
        return None if text is None else ago(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _send(type_: str, fields: Fields, seconds: float | None, *, as_json: bool) -> Exit:
    from ops.acting import asking, command, telling  # noqa: PLC0415 - see pay

    try:
        written = command.write(type_, fields)
    except command.SlipError as error:
        raise typer.BadParameter(str(error)) from None
    return telling.tell(asyncio.run(asking.ask(type_, written, seconds=seconds)), as_json=as_json)
