"""Records of the history: anybody may write there, and whoever looks on does not stumble."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from common import history
from common.history import Record
from fuzz import samples
from ops import output
from ops.board import sections
from ops.board import telling as board
from ops.board.scene import Scene
from ops.story import documents, telling
from ops.story.fold import Stories, fold
from ops.story.judging import judge
from ops.story.timeline import Timeline

_GOOD = json.dumps(samples.record()).encode()
_NOW = datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC).timestamp()


def run(data: bytes) -> None:
    """One input: what lies in the stream."""
    try:
        records = history.decode(data)
    except ValueError:
        return
    if records:
        again = history.decode(history.encode(*records))
        assert [len(record.entries) for record in again] == [len(record.entries) for record in records]
    for record in records:
        _is_told(record)
        _is_on_the_board(record)


def _is_told(record: Record) -> None:
    """`saga show`, `list` and `watch`."""
    stories = Stories()
    for story in fold(stories, record):
        if not story.exists:
            continue
        standing = judge(story, _NOW)
        _json(documents.story_json(story, standing, _NOW))
        told = [telling.clock(story.last), telling.where(standing), telling.reason(story, standing)]
        told += [telling.duration(standing, _NOW), telling.title(story.id, standing, "")]
        told += [*telling.next_words(standing), *telling.advice(story.id, standing)]
        for text in told:
            output.printable(text).encode()
    for id_ in {entry.saga for entry in record.entries}:
        timeline = Timeline(id_)
        timeline.add(record)
        for row in telling.timeline_rows(timeline):
            for cell in row:
                output.printable(cell).encode()
        for moment in timeline:
            _json(documents.moment_json(moment))
        _json(board.tell(timeline, stories.sagas.get(id_), now=_NOW, traces=lambda _: None))


def _is_on_the_board(record: Record) -> None:
    scene = Scene()
    for told in (record, *history.decode(_GOOD)):
        scene.take(told, _NOW)
    scene.look(_NOW)
    _json(sections.Marks().lanes(scene, _NOW))
    _json(sections.chart(scene, _NOW))
    _json(sections.figures(scene, {"rows": []}))
    _json(sections.groups(scene, _NOW))
    _json(sections.failures(scene, _NOW))


def _json(told: object) -> None:
    """JSON that any program reads: no NaN, no infinity."""
    json.dumps(told, default=str, allow_nan=False)
