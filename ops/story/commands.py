"""`saga watch`, `show`, `list` and `acts`: what the history tells. They only read, and disturb no saga."""

from __future__ import annotations

import asyncio
import contextlib
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from ops.output import Exit, warn

_STUCK_AFTER = 120.0
#: A full stream takes minutes to read, and what is asked for is mostly young.
_LATELY = timedelta(days=1)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Json = Annotated[bool, typer.Option("--json", help="For programs.")]
StuckAfter = Annotated[
    float,
    typer.Option("--stuck-after", min=1, metavar="SECONDS", help="How long nothing may be heard of a saga."),
]


def _when(text: str) -> datetime:
    """A moment, told as how long ago (90s, 15m, 1h, 2d) or as a time with an offset."""
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter("say how long ago, like 90s, 15m, 1h or 2d, or a time like 2026-11-22T10:00:00Z")
    return moment


Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        parser=_when,
        metavar="AGO|TIME",
        help="Only what was told since: 90s, 15m, 1h, 2d ago, or a time like 2026-11-22T10:00:00Z.",
    ),
]


def watch(
    *,
    saga: Annotated[str, typer.Option("--saga", metavar="PREFIX", help="Only sagas whose id begins so.")] = "",
    failed: Annotated[bool, typer.Option("--failed", help="Only sagas that failed.")] = False,
    stuck: Annotated[bool, typer.Option("--stuck", help="Only sagas that are stuck.")] = False,
    since: Since = None,
    stuck_after: StuckAfter = _STUCK_AFTER,
    json: Json = False,
) -> Exit:
    """Watch sagas live: one line a saga, its five steps, counts and rates.

    In a pipe, one line for each change, separated by tabs: when, which saga, its phase, its steps, where, why, how
    long. With --json, one JSON object a line. It begins two minutes ago unless --since says otherwise, and goes on
    until Ctrl+C. What happened before it began is not known to it; `saga show` reads all of the history.
    """
    from ops.story import live  # noqa: PLC0415 - see ops.app
    from ops.story.watching import Filter, Watch  # noqa: PLC0415 - as above

    watching = Watch(Filter(saga, failed=failed, stuck=stuck), stuck_after)
    begin = since or datetime.now(UTC) - timedelta(minutes=2)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(live.follow(watching, begin, as_json=json))
    return Exit.OK


def show(
    id_: Annotated[str, typer.Argument(metavar="ID", help="A saga's id: its payment_id.")],
    *,
    since: Since = None,
    whole: Annotated[bool, typer.Option("--all", help="Read all of the history, whatever was found.")] = False,
    stuck_after: StuckAfter = _STUCK_AFTER,
    json: Json = False,
) -> Exit:
    """Tell all that happened to one saga: every message, retry, dead letter and compensation, and what comes next.

    The history is read from its end backwards until the saga's beginning has come up; an id that is not there
    takes all of it. --since says where to stop at the latest.

    Exit codes: 0 it completed or is under way, 1 it failed, is stuck or is not known, 2 could not look.
    """
    from ops.story import looking  # noqa: PLC0415 - see ops.app

    return asyncio.run(looking.show(id_, since=since, whole=whole, stuck_after=stuck_after, as_json=json))


def list_(
    *,
    failed: Annotated[bool, typer.Option("--failed", help="Only sagas that failed.")] = False,
    stuck: Annotated[bool, typer.Option("--stuck", help="Only sagas that are stuck.")] = False,
    saga: Annotated[str, typer.Option("--saga", metavar="PREFIX", help="Only sagas whose id begins so.")] = "",
    since: Since = None,
    whole: Annotated[
        bool, typer.Option("--all", help="All that the history holds, not only the last day.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000, help="List no more than so many.")] = 50,
    stuck_after: StuckAfter = _STUCK_AFTER,
    json: Json = False,
) -> Exit:
    """List sagas: those first that need a person, then those that move, then the latest.

    With --failed and --stuck, those that are one or the other, in all of the history; without them, those of the
    last 24 hours, unless --since or --all says otherwise. Exit codes: 0 none of the sagas asked for failed or is
    stuck, 1 some did or are, 2 could not look.
    """
    from ops.story import looking  # noqa: PLC0415 - see ops.app
    from ops.story.watching import Filter  # noqa: PLC0415 - as above

    wanted = Filter(saga, failed=failed, stuck=stuck)
    # What needs a person may have stood still for days, and is never left out.
    if since is None and not (whole or failed or stuck):
        since = _lately()
    return asyncio.run(looking.list_(wanted, since=since, limit=limit, stuck_after=stuck_after, as_json=json))


def acts(
    *,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Only what this person did.")] = None,
    saga: Annotated[
        str | None, typer.Option("--saga", metavar="ID", help="Only what was done to this saga.")
    ] = None,
    since: Since = None,
    whole: Annotated[
        bool, typer.Option("--all", help="All that the history holds, not only the last day.")
    ] = False,
    json: Json = False,
) -> Exit:
    """List what operators did, who and why: replays, discards, aborts, audits, looks at what is about persons.

    What the `saga` command does is put on record before it is done. A discarded letter is kept there, whole.
    """
    from ops.story import acts as acting  # noqa: PLC0415 - see ops.app

    begin = since or (None if whole else _lately())
    return asyncio.run(acting.acts(since=begin, by=by, about=saga, as_json=json))


def _lately() -> datetime:
    """The moment from which is told what nobody asked for otherwise, and that it is so."""
    begin = datetime.now(UTC) - _LATELY
    warn(f"Since {begin:%Y-%m-%d %H:%M}Z; --since or --all looks further back.")
    return begin
