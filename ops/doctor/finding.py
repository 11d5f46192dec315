"""What a check says: one line about one thing, how bad it is, and how it is mended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Bad(StrEnum):
    """How bad a finding is, from good to bad."""

    OK = "ok"
    NOTE = "note"
    """Nothing is broken, but somebody should know."""
    UNSEEN = "unseen"
    """It could not be looked at."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `mend` is a command or a sentence, empty where nothing is to do."""

    subject: str
    bad: Bad
    what: str
    mend: str = ""


def ok(subject: str, what: str) -> Finding:
    """Something is as it should be."""
    return Finding(subject, Bad.OK, what)


def note(subject: str, what: str, mend: str) -> Finding:
    """Something that somebody should know."""
    return Finding(subject, Bad.NOTE, what, mend)


def unseen(subject: str, what: str, mend: str) -> Finding:
    """Something that could not be looked at."""
    return Finding(subject, Bad.UNSEEN, what, mend)


def wrong(subject: str, what: str, mend: str) -> Finding:
    """Something that must be mended."""
    return Finding(subject, Bad.WRONG, what, mend)


def or_well(findings: Iterable[Finding], subject: str, what: str) -> list[Finding]:
    """The findings, or where there are none that all of this is well."""
    return list(findings) or [ok(subject, what)]


def some(names: Iterable[str], *, limit: int = 4) -> str:
    """A few names in a sentence, and how many more there are."""
    listed = list(names)
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")
