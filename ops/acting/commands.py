"""`saga pay`, `hold`, `top-up` and `enter`: a command each, sent and, if wished, waited for."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from common import saga
from ops.acting.options import SECONDS, TIME, Fields, Json, Timeout, User, Wait
from ops.output import Exit

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
    return send(saga.FIRST.on, fields, timeout if wait else None, as_json=as_json)


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
    return send(_HOLD, fields, timeout if wait else None, as_json=as_json)


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
    return send(_TOP_UP, fields, timeout if wait else None, as_json=as_json)


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
    return send(_ENTER, fields, timeout if wait else None, as_json=as_json)


def send(type_: str, fields: Fields, seconds: float | None, *, as_json: bool) -> Exit:
    """Send a command with these fields, and wait for its outcome for so long; None: not at all."""
    from ops.acting import asking, command, telling  # noqa: PLC0415 - see pay

    try:
        written = command.write(type_, fields)
    except command.SlipError as error:
        raise typer.BadParameter(str(error)) from None
    return telling.tell(asyncio.run(asking.ask(type_, written, seconds=seconds)), as_json=as_json)
