"""`saga doctor` and `saga topology`."""

from __future__ import annotations

import asyncio
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ops.drawing.canvas import Theme
from ops.output import CannotLookError, Exit

if TYPE_CHECKING:  # see ops.app: what is heavy is imported by the command that needs it
    from common.settings import Delay


class Only(StrEnum):
    """What alone to look at."""

    BROKER = "broker"
    DATABASES = "databases"


class What(StrEnum):
    """What is drawn."""

    FLOW = "flow"
    BROKER = "broker"


class Format(StrEnum):
    """How it is drawn."""

    TEXT = "text"
    MERMAID = "mermaid"
    SVG = "svg"
    PNG = "png"
    JSON = "json"


def doctor(
    *,
    only: Annotated[Only | None, typer.Option(help="Look at nothing else.")] = None,
    clock_limit: Annotated[
        float,
        typer.Option(
            min=2, metavar="SECONDS", help="How far clocks may differ; the broker tells its to a second."
        ),
    ] = 5,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Leave out what is well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> Exit:
    """Hold broker, databases and clocks against the saga table, with the mend for whatever is wrong.

    It only reads. RETRY_DELAYS must be said here if it is said to the services. Exit codes: 1 something is wrong,
    whatever else could not be looked at; 2 nothing is known to be wrong, but something could not be looked at;
    0 all is well.
    """
    from ops.doctor import report  # noqa: PLC0415 - see ops.app

    return asyncio.run(
        report.run(
            delays=_delays(),
            at_broker=only is not Only.DATABASES,
            at_databases=only is not Only.BROKER,
            clock_limit=clock_limit,
            quiet=quiet,
            as_json=as_json,
        )
    )


def topology(
    *,
    what: Annotated[What, typer.Option(help="The saga's steps, or the broker's objects.")] = What.FLOW,
    form: Annotated[Format, typer.Option("--format", "-f", help="How to draw it.")] = Format.TEXT,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="The file to write; by default standard output."),
    ] = None,
    theme: Annotated[
        Theme,
        typer.Option(help="Colours of an SVG or PNG; `auto` follows the reader's screen, in a PNG it is light."),
    ] = Theme.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Draw the saga table, or the broker's objects that follow from it. No broker is asked.

    The retry levels of --what broker are those of RETRY_DELAYS.
    """
    form = Format.JSON if as_json else form
    if form is Format.PNG and output is None and sys.stdout.isatty():
        raise typer.BadParameter("a terminal shows no picture: name a file", param_hint="--output")
    drawn = _drawn(what, form, theme)
    if output is None:
        sys.stdout.buffer.write(drawn)
        return
    try:
        output.write_bytes(drawn)
    except OSError as error:
        raise CannotLookError(f"{output} cannot be written: {error.strerror}") from None


def _drawn(what: What, form: Format, theme: Theme) -> bytes:
    """The picture, as the bytes of its file."""
    from ops.drawing import lanes, mermaid, objects, words  # noqa: PLC0415 - see ops.app

    flow = what is What.FLOW
    delays = () if flow else _delays()
    match form:
        case Format.TEXT:
            text = words.flow() if flow else words.objects(delays)
        case Format.MERMAID:
            text = mermaid.flow() if flow else mermaid.objects(delays)
        case Format.JSON:
            text = json.dumps(words.flow_as_data() if flow else words.objects_as_data(delays), indent=2)
        case Format.SVG | Format.PNG:
            canvas = lanes.draw() if flow else objects.draw(delays)
            if form is Format.PNG:
                from ops.drawing import png  # noqa: PLC0415 - as above

                return png.render(canvas, theme)
            text = canvas.svg(theme)
    return f"{text.rstrip()}\n".encode()


def _delays() -> tuple[Delay, ...]:
    """The retry levels as RETRY_DELAYS says them; CannotLookError for what is none."""
    from common.settings import Settings, load  # noqa: PLC0415 - see ops.app

    try:
        return load(Settings).retry_delays
    except SystemExit as wrong:
        raise CannotLookError(str(wrong)) from None
