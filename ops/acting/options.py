"""The options that several of these commands share."""

from __future__ import annotations

from typing import Annotated

import typer

#: How long a command waits when nobody says.
SECONDS = 30.0

User = Annotated[str, typer.Option("--user", metavar="ID", help="The user.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, help="How long to wait at most.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")]
Fields = dict[str, str | int | None]
TIME = "RFC 3339, like 2026-11-22T10:00:00Z, or from now: 90s, 10m, 2h, 1d."

PaymentId = Annotated[str, typer.Argument(metavar="ID", help="The payment's id, which is its saga's.")]
MaybeUser = Annotated[str | None, typer.Option("--user", metavar="ID", help="The user.")]
MaybeReservation = Annotated[str | None, typer.Option("--reservation", metavar="ID", help="The reservation.")]
MaybeToken = Annotated[str | None, typer.Option("--token", metavar="ID", help="The token.")]
MaybeAmount = Annotated[int | None, typer.Option("--amount", help="Points.")]
MaybeExpiry = Annotated[
    str | None, typer.Option("--expires-at", metavar="TIME", help="Exactly as it was sent, if it was.")
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="TIME", help="Read the history from there on: RFC 3339, or 30m, 2h, 1d ago. All otherwise."
    ),
]
