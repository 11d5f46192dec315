"""`saga acts`: what operators did, as the history keeps it: when, who, what, about which saga, and why."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime

from common.history import OPERATOR
from common.personal import Masks
from ops import output
from ops.output import Exit
from ops.story.looking import progress
from ops.story.reading import records
from ops.story.telling import clock


@dataclass(frozen=True, slots=True, order=True)
class Act:
    """One act. `about`: the id of its saga, or command; `found`: why the letter was there, what an audit found."""

    at: datetime
    by: str
    act: str
    about: str
    found: str
    detail: str
    why: str


async def acts(*, since: datetime | None, by: str | None, about: str | None, as_json: bool) -> Exit:
    """Tell what operators did since a moment. Raises CannotLookError."""
    found: set[Act] = set()
    masks = Masks()
    with progress() as told:
        async with contextlib.aclosing(records(since=since, progress=told)) as history:
            async for record in history:
                for entry in record.entries if record.service == OPERATOR else ():
                    if by in {None, entry.by} and about in {None, entry.saga}:
                        # A letter's record begins with its type.
                        key = masks.key(entry.detail.partition(" ")[0], entry.saga)
                        found.add(Act(record.at, entry.by, entry.type, key, entry.reason, entry.detail, entry.why))
    if as_json:
        output.tell_json({"acts": sorted(found), "since": since})
    else:
        output.table(
            ("time", "who", "act", "about", "found", "why", "what"),
            [(clock(it.at), it.by or "?", it.act, it.about, it.found, it.why, it.detail) for it in sorted(found)],
        )
    return Exit.OK
