"""`saga board`: the options, and the parts put together."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Annotated

import typer

from ops.output import CannotLookError, Exit

PORT = 8585


def board(
    *,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")] = PORT,
    minutes: Annotated[float, typer.Option(min=0, help="How far back the history is read at first.")] = 15,
    traces: Annotated[
        str | None,
        typer.Option(
            envvar="SAGA_TRACES",
            show_envvar=True,
            help="Where a trace can be seen, like http://127.0.0.1:16686/trace/{trace_id}",
        ),
    ] = None,
    management: Annotated[
        str | None,
        typer.Option(
            envvar="SAGA_MANAGEMENT_UI",
            help="Where the management UI is for who looks, if not where it is from here.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Tell the page's address as JSON.")] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> Exit:
    """Show every saga on a live web page: where it stands, what is stuck, what failed and why.

    The page only looks, and needs no internet. Ctrl-C ends it; no saga notices.

    SAGA_BOARD_TOKEN_FILE names a file that holds a token of 16 characters or more, or SAGA_BOARD_TOKEN is one:
    then a browser is let in by a link that is good for one time, and a program by `Authorization: Bearer TOKEN`.
    """
    from common.setting_files import FileError, content_of  # noqa: PLC0415 - as below
    from ops.board import running  # noqa: PLC0415 - a web server is much to import for `saga --help`

    try:
        token = content_of("saga_board_token") or os.environ.get("SAGA_BOARD_TOKEN")
    except FileError as error:
        raise CannotLookError(str(error)) from None

    options = running.Options(
        host=host,
        port=port,
        token=token,
        since=timedelta(minutes=minutes),
        traces=traces,
        management=management,
        as_json=json_,
        in_browser=open_,
    )
    if problem := running.problem_of(options):
        raise CannotLookError(problem)
    running.serve(options)
    return Exit.OK
