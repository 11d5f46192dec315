"""How commands tell what they found: for people on a terminal, plain in a pipe, as JSON for programs.

Texts that come from messages are a stranger's: `printable` takes out what would steer a terminal, and nothing that
is told here is read as Rich's markup.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Rich takes a tenth of a second to import, which a pipe or `--json` need not wait for
    from rich.console import Console

# Control characters, what breaks or reverses lines, and halves of characters, which no output can encode.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


class Exit(IntEnum):
    """What a command's exit code means."""

    OK = 0
    NEGATIVE = 1
    """It looked, and the answer is no, or something did not end well."""
    COULD_NOT_LOOK = 2


class CannotLookError(Exception):
    """Something could not be asked. The text is for the person: what is missing and what to do, and no secret."""


def printable(text: object, *, limit: int = 2_000) -> str:
    """`text` on one line and without control characters, cut after `limit` characters."""
    told = str(text)
    cut = told if len(told) <= limit else told[:limit] + "…"
    return _UNPRINTABLE.sub("?", cut)


def counted(count: int, one: str, many: str = "") -> str:
    """So many of something, in words that fit.

    >>> counted(1, "seat"), counted(2_000, "seat"), counted(0, "entry", "entries")
    ('1 seat', '2,000 seats', '0 entries')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def on_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout.isatty()


def console() -> Console:
    """Standard output for Rich. Colours only on a terminal; in a pipe no line is broken or cut."""
    from rich.console import Console  # noqa: PLC0415 - see above

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=not on_terminal())


def say(text: str = "", *, style: str = "") -> None:
    """One line on standard output; `style` is Rich's, and shows on a terminal only."""
    if style and on_terminal():
        from rich.text import Text  # noqa: PLC0415 - see above

        console().print(Text(printable(text), style=style), soft_wrap=True)
    else:
        print(printable(text))


def warn(text: str) -> None:
    """One line on standard error: what the person should know beside the answer."""
    print(printable(text), file=sys.stderr)


def tell_json(value: object) -> None:
    """One JSON document on standard output; times are written as RFC 3339, named values by their value."""
    told = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    # What steers a terminal, and what cannot be written in UTF-8, can be escaped; line breaks are JSON's own.
    print(_UNPRINTABLE.sub(lambda it: it[0] if it[0] == "\n" else f"\\u{ord(it[0]):04x}", told))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "") -> None:
    """A table on a terminal; in a pipe a line of column names and one line for each row, separated by tabs."""
    if not on_terminal():
        for row in (columns, *rows):
            print("\t".join(printable(cell) for cell in row))
        return
    from rich.table import Table  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    drawn = Table(title=Text(printable(title)) if title else None, title_justify="left", header_style="bold")
    for column in columns:
        drawn.add_column(Text(printable(column)), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    console().print(drawn)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Show on standard error what a command waits for, changed by what is given; nothing where nobody looks."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.text import Text  # noqa: PLC0415 - see above

    with Console(stderr=True).status(Text(printable(what))) as status:
        yield lambda now: status.update(Text(printable(now)))


def _plain(value: object) -> object:
    """A value that JSON has no word for."""
    match value:
        case datetime() | date():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Enum():
            return value.value
        case Mapping():
            return dict(value)
        case set() | frozenset():
            return sorted(value)
        case bytes():
            return value.decode("utf-8", "replace")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)
