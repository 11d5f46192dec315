"""The `saga` command: plain functions of the rooms, registered here under their names, and nothing else.

A command is a function that returns its exit code (`ops.output.Exit`; None is OK), and raises CannotLookError
where it could not look. Rooms import what is heavy inside their commands, so that `saga --help` answers at once.
"""

from __future__ import annotations

import inspect
import io
import logging
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ops import VERSION
from ops.acting import commands as acting
from ops.acting import payments
from ops.audit import commands as auditing
from ops.board import commands as board
from ops.doctor import commands as doctor
from ops.letters import commands as letters
from ops.output import CannotLookError, Exit, say, warn
from ops.story import commands as story


class _Group(TyperGroup):
    """A group whose commands return their exit codes, and whose failures to look are one line."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - Typer's own Click is not public
        try:
            code = super().invoke(ctx)
        except CannotLookError as error:
            warn(f"saga: could not look: {error}")
            raise typer.Exit(Exit.COULD_NOT_LOOK) from None
        if isinstance(code, int) and code:
            raise typer.Exit(code)
        return code


app = typer.Typer(
    name="saga",
    cls=_Group,
    no_args_is_help=True,
    # A traceback with local variables would show passwords.
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Where broker and databases are: `RABBITMQ_URL`, `RABBITMQ_MANAGEMENT_URL`, `DATABASE_URL_<SERVICE>`, "
    "or the file that the same name with `_FILE` names; without them, what `make up` started. Exit codes: 0 well; "
    "1 looked, and the answer is no, or it did not end well; 2 could not look.",
)


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"saga {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", help="Tell the version and leave.", callback=_tell_version, is_eager=True),
    ] = False,
) -> None:
    """See every saga, and act on one: a choreography has no conductor to ask."""


def _help(function: Callable[..., Any]) -> str:
    """A command's help text: its docstring, the examples on lines of their own, so that they can be copied."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(
        f"\b\n{paragraph}" if paragraph.startswith("Example") else paragraph for paragraph in paragraphs
    )


_LOOK: dict[str, Callable[..., Any]] = {
    "watch": story.watch,
    "show": story.show,
    "list": story.list_,
    "board": board.board,
    "doctor": doctor.doctor,
    "topology": doctor.topology,
    "audit": auditing.audit,
    "acts": story.acts,
}
_ACT: dict[str, Callable[..., Any]] = {
    "pay": acting.pay,
    "hold": acting.hold,
    "top-up": acting.top_up,
    "enter": acting.enter,
    "outcome": payments.outcome,
    "abort": payments.abort,
}
for _name, _function in _LOOK.items():
    app.command(_name, help=_help(_function), rich_help_panel="Look")(_function)
for _name, _function in _ACT.items():
    app.command(_name, help=_help(_function), rich_help_panel="Act")(_function)
app.add_typer(letters.dead, name="dead", rich_help_panel="Messages that wait for a person")
app.add_typer(letters.parked, name="parked", rich_help_panel="Messages that wait for a person")


def run(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name, those of the process by default; leave with its exit code."""
    # What went wrong is told in one line by whoever was asked; libraries' own warnings would stand in between.
    logging.basicConfig(handlers=[logging.NullHandler()])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter shows its number; no command ends over it.
            stream.reconfigure(errors="backslashreplace")
    app(arguments, prog_name="saga")
