"""How letters are shown: what they say is a stranger's and made harmless, what is about a person is masked."""

from __future__ import annotations

import base64
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from common import recovery
from common.personal import Masks
from ops.letters.letter import Letter
from ops.output import printable, say, table

#: Bytes of a body that are decoded, and lines of it that are shown.
_DECODED = 256 * 1024
_LINES = 200
#: Fewer letters than this take no time.
_WORTH_A_BAR = 50

_EXPLAINED = (
    (recovery.TYPE, "what it is"),
    (recovery.REASON, "why it is here"),
    (recovery.DETAIL, "in words"),
    (recovery.ATTEMPT, "attempts before it was given up"),
    (recovery.FIRST_FAILED_AT, "when it failed for the first time"),
    (recovery.FAILED_IN, "the queue, or the service, in which it failed"),
    (recovery.LEFT_OUT, "bytes of its body that were too many to be kept"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Letters of one service with one reason. `oldest` is the one that waits longest, as far as letters tell."""

    service: str
    reason: str
    count: int
    oldest: Letter


def groups(letters: Iterable[Letter]) -> list[Group]:
    """Letters by service and reason, the largest groups of each service first."""
    found: dict[tuple[str, str], list[Letter]] = {}
    for letter in letters:
        found.setdefault((letter.service, letter.reason), []).append(letter)
    made = [
        Group(service, reason, len(those), min(those, key=lambda it: it.since.timestamp() if it.since else 0))
        for (service, reason), those in found.items()
    ]
    places = {group.service: place for place, group in reversed(list(enumerate(made)))}
    return sorted(made, key=lambda group: (places[group.service], -group.count, group.reason))


def tell_groups(found: Sequence[Group], title: str) -> None:
    """Tell counts by service and reason."""
    table(
        ("service", "reason", "count", "oldest", "type", "letter"),
        [
            (
                group.service,
                reason(group.oldest),
                str(group.count),
                moment(group.oldest.since),
                group.oldest.type,
                group.oldest.id,
            )
            for group in found
        ],
        title=title,
    )


def tell_each(letters: Iterable[Letter], title: str) -> None:
    """Tell one line a letter."""
    table(
        ("letter", "service", "reason", "type", "saga", "since"),
        [(it.id, it.service, reason(it), it.type, it.key, moment(it.since)) for it in letters],
        title=title,
    )


def veiled(letter: Letter, masks: Masks | None) -> Letter:
    """A letter on whose outside nothing tells of a person: its key, the texts written on it. The body stays."""
    if masks is None:
        return letter
    content = _json(letter.body)
    headers = {
        name: masks.text(value, content) if isinstance(value, str) else value
        for name, value in letter.headers.items()
    }
    return replace(
        letter,
        key=masks.key(letter.type, letter.key),
        detail=masks.text(letter.detail, content),
        fault=masks.text(letter.fault, content),
        headers=headers,
    )


def text(told: str, letter: Letter, masks: Masks) -> str:
    """What is said of a letter, without the personal values that are in it."""
    return masks.text(told, _json(letter.body))


def tell_whole(letter: Letter, masks: Masks | None) -> None:
    """Tell all of a letter: where it is, what was written on it, what is in it; None masks nothing."""
    letter = veiled(letter, masks)
    say(f"Letter {letter.id} in {letter.queue}", style="bold")
    rows = [
        ("saga", letter.key or "-", "the saga, or the command beside it, that it is about"),
        ("since", moment(letter.since), "when it first failed, or was put here"),
        ("user", letter.properties.user or "-", "who put it here, as the broker knows"),
    ]
    if letter.killed:
        rows.append(("killed", "yes", "the broker gave up on it: nobody answered for it, too often or in time"))
    told = _told(letter)
    rows += [(name, printable(told[name], limit=512), means) for name, means in _EXPLAINED if name in told]
    table(("what", "is", "which means"), rows)
    if letter.fault:
        say(f"It cannot be handled: {letter.fault}", style="red")
    say(f"Body, {len(letter.body)} bytes{'; what is about a person is masked (--reveal)' if masks else ''}:")
    lines = body_lines(letter, masks)
    for line in lines[:_LINES]:
        say(f"  {line}")
    if len(lines) > _LINES:
        say(f"  ... and {len(lines) - _LINES} lines more")


def document(letter: Letter, masks: Masks | None, *, whole: bool = False) -> dict[str, Any]:
    """A letter for programs; None masks nothing; `whole`: with its headers and its body."""
    letter = veiled(letter, masks)
    told: dict[str, Any] = {
        "id": letter.id,
        "queue": letter.queue,
        "service": letter.service,
        "type": letter.type,
        "saga": letter.key,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempt": letter.attempt,
        "since": letter.since,
        "failed_in": letter.failed_in,
        "user": letter.properties.user,
        "killed": letter.killed,
        "fault": letter.fault,
    }
    if whole:
        told["headers"] = _told(letter)
        told["bytes"] = len(letter.body)
        told["body"] = body_value(letter, masks)
    return told


def body_value(letter: Letter, masks: Masks | None) -> object:
    """A body as it may be shown: masked JSON; what is no JSON only without masks, as a text or as base64."""
    content = _json(letter.body)
    if content is not None:
        return masks.content(content, letter.type) if masks else content
    if masks is not None:
        return None
    shown = letter.body[:_DECODED]
    try:
        return shown.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(shown).decode()}


def body_lines(letter: Letter, masks: Masks | None) -> list[str]:
    """A body as lines for people."""
    value = body_value(letter, masks)
    if value is None:
        return ["(no JSON; --reveal shows it)" if letter.body else "(empty)"]
    if isinstance(value, str):
        return value.splitlines() or ["(empty)"]
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def _json(body: bytes) -> object:
    """The object or list that a body holds; None if there is none."""
    if len(body) > _DECODED:
        return None
    try:
        content = json.loads(body)
        json.dumps(content)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict | list) else None


def _told(letter: Letter) -> Mapping[str, str | int]:
    return {
        name: value
        for name, _ in _EXPLAINED
        if isinstance(value := letter.headers.get(name), str | int) and not isinstance(value, bool)
    }


def reason(letter: Letter) -> str:
    """Why a letter is where it is, or a word for that nobody says."""
    return letter.reason or "(no reason)"


def moment(time: datetime | None) -> str:
    """A time for people."""
    return f"{time:%Y-%m-%d %H:%M:%S}Z" if time else "-"


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, moved on by each call of what is given; nothing for few, or where nobody looks."""
    if total < _WORTH_A_BAR or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console  # noqa: PLC0415 - it takes its time, which only a terminal needs
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
