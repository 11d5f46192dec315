"""How letters are shown: what they say is a stranger's and made harmless, what is about a person is masked."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from common import recovery
from ops.letters.letter import Letter
from ops.output import printable, say, table

MASK = "***"
#: Fields that say nothing about a person. All others are masked, those of a version yet to come included.
_IMPERSONAL = frozenset(
    {
        *(
            "payment_id",
            "reservation_id",
            "top_up_id",
            "id",
            "amount",
            "price",
            "balance",
            "seat",
            "state",
            "kind",
        ),
        *("service", "reason", "attempts", "expires_at", "held_until", "paid_at", "confirmed_at", "deducted_at"),
        *("expired_at", "completed_at", "cancelled_at", "reverted_at", "restored_at", "sent_at"),
    }
)
#: What such fields hold: ids, codes and times. Anything longer or freer may be about somebody.
_PLAIN = re.compile(r"[A-Za-z0-9._:+-]{0,64}")
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


def tell_whole(letter: Letter, *, reveal: bool) -> None:
    """Tell all of a letter: where it is, what was written on it, what is in it."""
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
    say(f"Body, {len(letter.body)} bytes{'' if reveal else '; what is about a person is masked (--reveal)'}:")
    lines = body_lines(letter.body, reveal=reveal)
    for line in lines[:_LINES]:
        say(f"  {line}")
    if len(lines) > _LINES:
        say(f"  ... and {len(lines) - _LINES} lines more")


def document(letter: Letter, *, reveal: bool | None = None) -> dict[str, Any]:
    """A letter for programs; `reveal`: with its body, as it is or masked; None: without."""
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
    if reveal is not None:
        told["headers"] = _told(letter)
        told["bytes"] = len(letter.body)
        told["body"] = body_value(letter.body, reveal=reveal)
    return told


def body_value(body: bytes, *, reveal: bool) -> object:
    """A body as it may be shown: masked JSON; what is no JSON only if revealed, as a text or as base64."""
    content = _json(body)
    if content is not None:
        return content if reveal else masked(content)
    if not reveal:
        return None
    shown = body[:_DECODED]
    try:
        return shown.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(shown).decode()}


def body_lines(body: bytes, *, reveal: bool) -> list[str]:
    """A body as lines for people."""
    value = body_value(body, reveal=reveal)
    if value is None:
        return ["(no JSON; --reveal shows it)" if body else "(empty)"]
    if isinstance(value, str):
        return value.splitlines() or ["(empty)"]
    return json.dumps(value, indent=2, ensure_ascii=False).splitlines()


def masked(content: object) -> object:
    """JSON in which only the fields known to say nothing about a person keep their values."""
    match content:
        case dict():
            return {name: value if _is_plain(name, value) else _hidden(value) for name, value in content.items()}
        case list():
            return [_hidden(value) for value in content]
    return MASK


def _is_plain(name: str, value: object) -> bool:
    # A field that holds something else than it ought to is not what its name says.
    return name in _IMPERSONAL and bool(_PLAIN.fullmatch(value) if isinstance(value, str) else not _nests(value))


def _hidden(value: object) -> object:
    return masked(value) if _nests(value) else MASK


def _nests(value: object) -> bool:
    return isinstance(value, dict | list)


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
