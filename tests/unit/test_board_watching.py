"""The board at work: it comes back after every loss, tells nothing twice, and answers for any saga."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from ops.board.watching import Places
from tests.support.board_stage import AWAY, Stage, staged
from tests.support.board_traffic import completed, refused, steps
from tests.support.eventually import eventually


def _section(stage: Stage, name: str) -> Any:  # noqa: ANN401 - JSON
    """What the feed tells now."""
    assert name in stage.feed._sections, f"{name} has not been told yet"
    return json.loads(stage.feed._sections[name][1].split(b"data: ", 1)[1])


def _now() -> datetime:
    return datetime.now(UTC)


async def test_a_lost_broker_is_told_and_found_again_and_nothing_counts_twice() -> None:
    """What was told shortly before the loss is read again: it must not count again."""
    async with staged() as stage:
        stage.source.tell(completed("p-1", begin=_now()))
        await eventually(lambda: _section(stage, "figures")["median"] is not None)
        stage.source.cut()
        await eventually(lambda: _section(stage, "status")["state"] == "away")
        assert _section(stage, "status")["why"] == AWAY
        stage.source.mend()
        stage.source.records += completed("p-2", begin=_now())
        await eventually(lambda: _section(stage, "status")["state"] == "live")
        await eventually(lambda: _section(stage, "groups")["completed"]["count"] == 2)
        done = stage.watch.scene.lanes["point"].rate.last(60, now=time.time() + 1)
        assert sum(done) == 2


async def test_a_quiet_history_is_live_too() -> None:
    """No news is no loss: at night nothing comes, and the page must not cry wolf."""
    async with staged() as stage:
        await eventually(lambda: _section(stage, "status")["state"] == "live")


async def test_while_old_history_is_read_nothing_is_called_stuck() -> None:
    """Seen from now, a saga whose end has not been read yet looks as if nobody had worked on it for minutes."""
    async with staged() as stage:
        begin = _now() - timedelta(minutes=10)
        for record in steps("p-1", "point", begin=begin):
            stage.watch.take(record)
        moment = stage.watch._moment()
        assert moment < time.time() - 500
        stage.watch.scene.look(moment)
        seen = stage.watch.scene.known("p-1")
        assert seen
        assert seen.standing.phase.value == "moving"


async def test_an_old_saga_is_read_from_the_history_and_followed_from_there() -> None:
    """It began before the board did, so the board holds none, or the lesser half, of its story."""
    async with staged() as stage:
        begin = _now() - timedelta(hours=1)
        way = refused("p-1", "queue", "unknown_token", begin=begin)
        stage.source.records += way[:4]
        story = await stage.watch.story("p-1")
        assert story
        before = len(story["events"])
        for record in way[4:]:
            stage.watch.take(record)
        again = await stage.watch.story("p-1")
        assert again
        assert (before, len(again["events"])) == (4, len(way))
        assert again["state"] == "undone"


async def test_what_the_history_does_not_know_is_not_found() -> None:
    """And is not kept: anybody may ask for anything."""
    async with staged() as stage, aiohttp.ClientSession() as browser:
        async with browser.get(f"{stage.address}story", params={"saga": "nobody"}) as answer:
            assert answer.status == 404
        assert not stage.watch._timelines._followed


async def test_a_trace_is_linked_where_somebody_said_where_traces_are() -> None:
    """The board's timeline tells what, a trace tells how long each part of it took."""
    places = Places("127.0.0.1:5672", traces=lambda trace: f"http://127.0.0.1:16686/trace/{trace}")
    async with staged(places=places) as stage:
        for record in completed("p-1", begin=_now()):
            stage.watch.take(record)
        story = await stage.watch.story("p-1")
    assert story
    assert story["links"][0][1].startswith("http://127.0.0.1:16686/trace/0af7")


@pytest.mark.parametrize("rate", [1_000])
async def test_a_flood_is_told_in_a_few_small_sections(rate: int) -> None:
    """A thousand sagas a second are thousands of records; a page is told a few times a second all the same."""
    async with staged() as stage:
        began = _now()
        for number in range(rate):
            for record in completed(f"p-{number}", begin=began):
                stage.watch.take(record)
        await eventually(lambda: _section(stage, "groups")["completed"]["count"] == rate)
        told = stage.feed._told
        assert sum(len(chunk) for _, chunk in stage.feed._sections.values()) < 100_000
        assert told < 40
