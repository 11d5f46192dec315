"""`saga audit`: the audit's options, and its report for people and for programs."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from common import saga
from ops import where
from ops.options import By
from ops.output import Exit, counted, say, tell_json, warn

if TYPE_CHECKING:
    from ops.audit.report import Report

_LINES = 20
_STUCK_AFTER = 120.0
#: As `RETENTION_HOURS` of the services; their settings are not imported here, since `--help` would wait for them.
_RETENTION = 720.0


def _databases(given: list[str]) -> list[str]:
    for text in given:
        service, _, url = text.partition("=")
        if service not in saga.SERVICES or not url:
            raise typer.BadParameter(f"{text!r} is not SERVICE=URL, with one of {', '.join(saga.SERVICES)}")
    return given


def audit(
    *,
    database: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERVICE=URL",
            callback=lambda given: _databases(given or []),
            help="A database that is not that of `DATABASE_URL_<SERVICE>` or of `make up`; may be repeated. "
            "Others on this machine see what is in a command: name one with a password in the environment.",
        ),
    ] = None,
    management: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="http://host:15672 of RabbitMQ: sagas whose messages wait in queues are not stuck. It is entered "
            "as the broker is, so that no password stands in the command.",
        ),
    ] = None,
    stuck_after: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long a saga may stand still.")
    ] = _STUCK_AFTER,
    retention_hours: Annotated[
        float,
        typer.Option(
            metavar="HOURS", min=0, envvar="RETENTION_HOURS", help="How long the services keep what is over."
        ),
    ] = _RETENTION,
    why: Annotated[str, typer.Option("--why", help="Why; it is kept in the history.")] = "",
    by: By = None,
    as_json: Annotated[bool, typer.Option("--json", help="The whole report, for programs.")] = False,
) -> Exit:
    """Check that the five databases agree on every saga. Reads only; may run beside the services.

    The history keeps that it was done, by whom and what it found; where it cannot, the audit counts all the same.

    Exit code: 0 clean, 1 a rule is broken, 2 could not look.
    """
    from ops.audit import look, noted  # noqa: PLC0415 - they bring the clients of databases and broker
    from ops.recording import Signature  # noqa: PLC0415 - as above

    given = dict(text.split("=", 1) for text in database or [])
    signature = Signature(by or where.login_name(), why)

    async def look_and_note() -> tuple[Report, str]:
        report = await look.audit(
            where.database_urls() | given,
            rabbitmq_management=where.management_url(told=management) if management else None,
            stuck_after=timedelta(seconds=stuck_after),
            retention=timedelta(hours=retention_hours),
        )
        return report, await noted.note(report, signature, databases_named=noted.databases_are_named(given))

    report, why_not = asyncio.run(look_and_note())
    if as_json:
        tell_json(report.to_document() | {"recorded": not why_not})
    else:
        _tell(report)
    if why_not:
        warn(f"The history does not know of this audit: {why_not}")
    return Exit.OK if report.clean else Exit.NEGATIVE


def _tell(report: Report) -> None:
    """The report for a person: in colours on a terminal, one plain line per finding in a pipe."""
    counts = report.counts
    endings = {
        "completed": counts.completed,
        "undone": counts.undone,
        "refused at the first step": counts.failed,
        "under way": counts.under_way,
        "in violation": counts.violated,
    }
    told = ", ".join(f"{count:,} {name}" for name, count in endings.items() if count)
    say(counted(counts.sagas, "saga") + (f": {told}" if told else ""))
    say(
        f"{counted(counts.points, 'point')} in {counted(counts.wallets, 'wallet')}; "
        f"{counted(counts.seats_sold, 'seat')} sold, {counted(counts.tokens_used, 'token')} used up"
    )
    leftovers = (
        (counts.unpublished, "event", "to publish"),
        (counts.notices_pending, "notice", "to send"),
        (counts.notices_parked, "notice", "parked for a person"),
        (counts.messages_waiting, "message", "in queues"),
        (counts.messages_parked, "message", "parked for a person"),
    )
    for count, what, where_to in leftovers:
        if count:
            say(f"{counted(count, what)} {where_to}", style="yellow")
    shown = report.under_way[:_LINES]
    for it in shown:
        since = f" since {it.since.isoformat(timespec='seconds')}" if it.since else ""
        waits = ", ".join(it.waits_for) or "its events to be published"
        say(f"under way: {it.saga_id} waits for {waits}{since}", style="yellow")
    if len(report.under_way) > len(shown):
        say(f"... and {len(report.under_way) - len(shown):,} more under way (--json lists them)")
    for violation in report.violations:
        say(f"violation: {violation}", style="red")
    if report.clean:
        say("clean: the five databases agree", style="bold green")
    else:
        say(counted(len(report.violations), "violation"), style="bold red")
