"""What the history tells of each saga, folded record by record into one small story a saga.

Several services tell the history, unconfirmed: records come late, twice, in any order, or never. So a story only
ever learns: it keeps which words were heard and the earliest time of each, and counts nothing. In whatever order
they come, the same records make the same story; `ops.story.standing` draws the conclusions. Of messages nothing is
kept but ids and reasons: a million sagas fit into memory.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from common import history, saga
from common.history import NOTICE, Became, Entry, Record
from common.recovery import Deed
from ops.story.story import LAST, PLACES, Act, Cause, Part, Story, Trouble, Word

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_REASON = re.compile(r"[a-z0-9_]{1,64}")
# Bounds for numbers that anybody may have written.
_LONGEST_DELAY_MS = 24 * 60 * 60 * 1000
_MOST_ATTEMPTS = 1_000_000


@dataclass(slots=True)
class Stories:
    """All sagas by their ids, and how much was folded into them."""

    sagas: dict[str, Story] = field(default_factory=dict)
    records: int = 0
    entries: int = 0
    nameless: int = 0
    """Parked messages that name no saga: they could not be read."""


def fold(stories: Stories, record: Record) -> list[Story]:
    """Learn from a record; gives the story of each of its entries that belong to a saga."""
    at = record.at.timestamp()
    service = record.service
    told: list[Story] = []
    stories.records += 1
    stories.entries += len(record.entries)
    for entry in record.entries:
        if service == history.OPERATOR:
            story = _story(stories, entry.saga)
            if story is not None:
                act = Act(at, _short(entry.type), _short(entry.by))
                story.act = act if story.act is None else max(story.act, act)
                told.append(story)
            continue
        part = _PARTS.get((service, entry.type))
        if part is None:
            stories.nameless += entry.became == Became.PARKED and not entry.saga
            continue
        story = stories.sagas.get(entry.saga) or _story(stories, entry.saga)
        if story is None:
            stories.nameless += entry.became == Became.PARKED
            continue
        if story.first is None or at < story.first:
            story.first = at
        story.last = max(story.last, at)
        _learn(story, part, entry, at)
        told.append(story)
    return told


def _story(stories: Stories, id_: str) -> Story | None:
    story = stories.sagas.get(id_)
    if story is None and _ID.fullmatch(id_):
        story = stories.sagas[id_] = Story(id_)
    return story


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message at a service: what it asks there, and whose word it is, if it is one of the saga's own."""

    place: int
    part: Part
    service: str
    type: str
    speaker: int | None = None


def _learn(story: Story, asked: _Asked, entry: Entry, at: float) -> None:
    place, part = asked.place, asked.part
    if entry.became != Became.PARKED and asked.speaker is not None:
        story.hear(asked.speaker, Word.SAID_FAILED if part is Part.FAILURE else Word.SAID)
    match entry.became:
        case Became.DONE:
            _learn_deed(story, asked, entry, at)
            return
        case Became.RETRY:
            story.due = max(story.due, at + min(entry.delay_ms, _LONGEST_DELAY_MS) / 1000)
        case Became.DEAD if part is Part.FORWARD:
            story.hear(place, Word.REFUSED)
        case Became.PARKED:
            story.hear(place, _PARKED[part])
    reason = _reason(entry.reason)
    trouble = Trouble(at, asked.service, asked.type, str(entry.became), reason, min(entry.attempt, _MOST_ATTEMPTS))
    story.trouble = trouble if story.trouble is None else max(story.trouble, trouble)


def _learn_deed(story: Story, asked: _Asked, entry: Entry, at: float) -> None:
    word = _TOLD.get((entry.deed, asked.part))
    if word is not None:
        story.hear(asked.place, word, at)
    elif entry.deed == Deed.REPEATED:
        _learn_repetition(story, asked, entry)
    if word is Word.FAILED:
        _blame(story, Cause(0, at, asked.service, _reason(entry.reason)))
    elif asked.part is Part.FAILURE and entry.reason and asked.speaker is not None:
        _blame(story, Cause(1, at, saga.SERVICES[asked.speaker], _reason(entry.reason)))


def _learn_repetition(story: Story, asked: _Asked, entry: Entry) -> None:
    """What was said again tells how the service stands, but not since when."""
    if asked.part is Part.FINISH:
        story.hear(asked.place, Word.FINISHED)
    elif asked.part is Part.FORWARD:
        step = saga.SAGA[asked.place]
        for type_, _ in entry.said:
            if type_ == step.emits:
                story.hear(asked.place, Word.SAID)
            elif type_ == step.failed:
                story.hear(asked.place, Word.SAID_FAILED)


def _blame(story: Story, cause: Cause) -> None:
    story.cause = cause if story.cause is None else min(story.cause, cause)


def _reason(text: str) -> str:
    """A reason code, kept once for all stories; anything else is no reason."""
    return sys.intern(text) if _REASON.fullmatch(text) else "?"


def _short(text: str) -> str:
    return sys.intern(text[:64])


_TOLD: Mapping[tuple[str, Part], Word] = {
    (Deed.DID, Part.FORWARD): Word.DID,
    (Deed.DID, Part.FINISH): Word.FINISHED,
    (Deed.SENT, Part.FINISH): Word.FINISHED,
    (Deed.FAILED, Part.FORWARD): Word.FAILED,
    (Deed.UNDID, Part.FAILURE): Word.UNDID,
    (Deed.CLOSED, Part.FAILURE): Word.CLOSED,
}
_PARKED = {Part.FORWARD: Word.PARKED, Part.FAILURE: Word.UNDO_PARKED, Part.FINISH: Word.FINISH_PARKED}


def _parts() -> dict[tuple[str, str], _Asked]:
    """What every message of the saga asks of each service, from the saga table."""
    asked: list[_Asked] = []
    for place, step in enumerate(saga.SAGA):
        asked.append(_Asked(place, Part.FORWARD, step.service, step.on, place - 1 if place else None))
        asked += [
            _Asked(place, Part.FAILURE, step.service, saga.failed(service), speaker)
            for speaker, service in enumerate(saga.SERVICES)
        ]
    pivot = PLACES[saga.PIVOT.service]
    asked.append(_Asked(0, Part.FINISH, saga.FIRST.service, saga.PIVOT.emits, pivot))
    asked.append(_Asked(LAST, Part.FINISH, saga.SERVICES[LAST], NOTICE))
    return {(it.service, it.type): it for it in asked}


_PARTS = _parts()
