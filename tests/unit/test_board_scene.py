"""What the board concludes from the history: where each saga stands, what ended and why, in any flood."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest

from common import saga
from common.history import Record
from ops.board import letters, scene, sections
from ops.board.rates import Rate
from ops.board.scene import Scene
from ops.board.telling import tell
from ops.board.timelines import Followed
from ops.story.timeline import Timeline
from tests.support.board_traffic import BEGIN, TRACE, after, completed, did, parked, refused, retried, steps, told

NOW = BEGIN.timestamp() + 1
_PLACES = list(enumerate(saga.SERVICES))


def _seen(records: Iterable[Record], *, now: float = NOW) -> Scene:
    """A scene that has taken these records and was looked at."""
    seen = Scene()
    for record in records:
        seen.take(record, now)
    seen.look(now)
    return seen


def _dots(seen: Scene, *, now: float = NOW) -> dict[str, tuple[int, str]]:
    dots = sections.Marks().lanes(seen, now)["dots"]
    return {id_: (place, kind) for id_, place, kind, _ in dots}


def _row(seen: Scene, group: str, *, now: float = NOW) -> dict[str, Any]:
    (row,) = sections.groups(seen, now)[group]["rows"]
    found: dict[str, Any] = row
    return found


def test_the_lanes_are_the_saga_tables() -> None:
    """A lane that is written twice would one day be another."""
    lanes = sections.table()["steps"]
    assert [(lane["service"], lane["on"], lane["emits"]) for lane in lanes] == [
        (step.service, step.on, step.emits) for step in saga.SAGA
    ]
    assert [lane["service"] for lane in lanes if lane["pivot"]] == [saga.PIVOT.service]
    assert [lane["after_pivot"] for lane in lanes] == [False, False, False, False, True]


@pytest.mark.parametrize(("place", "service"), _PLACES[:-1])
def test_a_saga_stands_where_its_next_word_is_awaited(place: int, service: str) -> None:
    """Who has done its part has handed the saga on; past the pivot it is the notice that is left."""
    seen = _seen(steps("p-1", service))
    assert _dots(seen) == {"p-1": (place + 1, "forward")}
    assert sections.figures(seen, letters.section(None, {}, lambda _: None))["under_way"] == 1


def test_past_the_pivot_a_saga_stands_in_the_last_lane_until_it_completes() -> None:
    """The first service completes it, whose lane would look as if it had begun anew."""
    whole = completed("p-1")
    without = [record for record in whole if saga.COMPLETED not in dict(record.entries[0].said)]
    assert len(without) == len(whole) - 1
    assert _dots(_seen(without)) == {"p-1": (4, "forward")}


def test_a_saga_that_went_well_leaves_the_lanes_and_is_counted_once() -> None:
    """Words that are told again, as after a lost connection, must not pay twice on the board either."""
    seen = _seen(chain(completed("p-1"), completed("p-1")))
    assert (_dots(seen), seen.count_completed, seen.count_failed) == ({}, 1, 0)
    assert [it.story.id for it in seen.just_ended] == ["p-1"]
    row = _row(seen, "completed")
    assert (row["tag"], row["tone"], row["took"]) == ("completed", "good", pytest.approx(250, abs=1))
    for record in completed("p-1"):
        seen.take(record, NOW)
    seen.look(NOW)
    assert (seen.count_completed, seen.just_ended) == (1, [])


def test_a_refused_saga_goes_back_lane_by_lane() -> None:
    """The way back is what a choreography hides best, and operators need most."""
    way = refused("p-1", "queue", "unknown_token")
    failed = next(at for at, record in enumerate(way) if record.entries[0].deed == "failed")
    places = [_dots(_seen(way[:end]))["p-1"] for end in range(failed + 1, failed + 4)]
    assert places == [(2, "back"), (1, "back"), (0, "back")]
    assert _row(_seen(way[: failed + 1]), "under_way")["tag"] == "undoing"
    over = _seen(way)
    assert (_dots(over), over.count_undone) == ({}, 1)
    row = _row(over, "failed")
    assert (row["tag"], row["at"], row["what"]) == ("undone", "queue", "queue: unknown token")


def test_a_refusal_at_the_first_step_has_nothing_to_undo() -> None:
    """It counts as failed, and not as undone."""
    seen = _seen(refused("p-1", "payment", "over_limit"))
    assert (seen.count_failed, seen.count_undone) == (1, 0)
    assert _row(seen, "failed")["tag"] == "refused"


def test_a_saga_that_waits_for_its_next_attempt_says_so() -> None:
    """Waiting for a retry is neither moving nor stuck."""
    way = [*steps("p-1", "reservation"), retried("p-1", "point", at=after(0.5), delay_ms=5_000, attempt=2)]
    seen = _seen(way)
    assert _dots(seen) == {"p-1": (2, "retry")}
    row = _row(seen, "under_way")
    assert row["tag"] == "retry"
    assert "attempt 2" in row["what"]


def test_time_alone_makes_a_saga_overdue_and_then_stuck() -> None:
    """Nothing is told of a saga that nobody works on: the board must notice by itself."""
    seen = _seen(steps("p-1", "reservation"))
    seen.look(NOW + 30)
    assert _row(seen, "under_way", now=NOW + 30)["tag"] == "overdue"
    seen.look(NOW + 300)
    assert _dots(seen, now=NOW + 300) == {"p-1": (2, "stuck")}
    assert _row(seen, "stuck", now=NOW + 300)["tag"] == "stuck"
    assert sections.groups(seen, NOW + 300)["under_way"]["count"] == 0


def test_failures_are_counted_by_service_and_reason() -> None:
    """The first question after a bad night."""
    ways = [refused(f"a-{n}", "point", "balance_too_low") for n in range(3)]
    ways += [refused("b-1", "queue", "unknown_token")]
    told_ = sections.failures(_seen(chain(*ways)), BEGIN.timestamp())
    assert told_["reasons"] == [
        {"service": "point", "reason": "balance too low", "count": 3},
        {"service": "queue", "reason": "unknown token", "count": 1},
    ]
    assert told_["more"] == 0


def test_reasons_that_are_not_shown_are_counted_together() -> None:
    """A list that is cut must say so."""
    ways = [refused(f"p-{n}", "point", f"reason_{n}") for n in range(sections.REASONS + 3)]
    assert sections.failures(_seen(chain(*ways)), 0)["more"] == 3


def test_a_flood_is_shown_by_some_marks_and_counted_whole() -> None:
    """A thousand marks a lane would freeze the page and tell less than a number."""
    seen = _seen(record for n in range(3_000) for record in steps(f"p-{n}", "reservation"))
    lanes = sections.Marks().lanes(seen, NOW)
    assert lanes["lanes"][2]["here"] == 3_000
    assert len(lanes["dots"]) == sections.MARKS
    assert all(len(group["rows"]) <= sections.ROWS for group in sections.groups(seen, NOW).values())


def test_of_many_that_end_at_once_those_with_marks_are_told_first() -> None:
    """A mark whose end is not told would hang in its lane."""
    marks = sections.Marks()
    seen = _seen(record for n in range(500) for record in steps(f"p-{n}", "queue"))
    shown = {id_ for id_, *_ in marks.lanes(seen, NOW)["dots"]}
    for n in reversed(range(500)):
        for record in completed(f"p-{n}")[-2:]:
            seen.take(record, NOW)
    seen.look(NOW)
    assert {id_ for id_, *_ in marks.lanes(seen, NOW)["ended"]} == shown


def test_memory_is_bounded_however_many_sagas_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board runs for weeks beside a system that makes millions of sagas."""
    for name, most in (("MOST_OPEN", 50), ("MOST_GONE", 200)):
        monkeypatch.setattr(scene, name, most)
    seen = Scene()
    kept = seen.completed.maxlen or 0
    for n in range(kept + 400):
        for record in completed(f"c-{n}"):
            seen.take(record, NOW)
        for record in steps(f"o-{n}", "point"):
            seen.take(record, NOW)
        if not n % 50:
            seen.look(NOW)
    seen.look(NOW)
    assert (len(seen.open), seen.count_completed) == (50, kept + 400)
    assert seen.forgotten == kept + 400 - 50
    held = len(seen.open) + len(seen.completed)
    assert len(seen.stories.sagas) == len(seen._heard) == held
    assert (len(seen._gone), len(seen._ended)) == (200, kept)


def test_a_late_word_does_not_bring_back_a_saga_that_was_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand there as one that has just begun, and be stuck two minutes later."""
    monkeypatch.setattr(scene, "MOST_ENDED", 1)
    seen = Scene()
    for id_ in ("p-1", "p-2"):
        for record in completed(id_):
            seen.take(record, NOW)
        seen.look(NOW)
    seen.take(told("point", after(2), did("p-1", "point")), NOW + 2)
    seen.look(NOW + 2)
    assert (seen.open, seen.count_completed) == ({}, 2)
    assert seen.known("p-1") is None


def test_a_saga_that_is_tried_for_ever_keeps_its_beginning_and_its_end() -> None:
    """Its timeline begins with the command, and what happened last is what matters."""
    way = steps("p-1", "reservation")
    way += [retried("p-1", "point", at=after(10 + n), delay_ms=1_000, attempt=n) for n in range(1, 500)]
    heard = _seen(way, now=NOW + 600).heard("p-1")
    assert len(heard) == scene.MOST_HEARD
    assert heard[0].entries[0].type == saga.FIRST.on
    assert heard[-1].entries[0].attempt == 499


def test_a_saga_whose_beginning_was_not_heard_is_read_anew() -> None:
    """Half a timeline looks like a whole one."""
    assert _seen(steps("p-1", "queue")[2:]).heard("p-1") == []


def test_old_ends_are_no_news() -> None:
    """Reading the last quarter of an hour must not send its sagas over the lanes as if it happened now."""
    assert _seen(completed("p-1"), now=NOW + 600).just_ended == []


def test_rates_count_by_the_second_and_forget() -> None:
    """The chart's last minutes, from clocks that are late or ahead."""
    rate = Rate(10)
    for at, count in ((100.0, 2), (100.9, 1), (103.5, 5), (109.0, 7), (50.0, 9)):
        rate.add(at, count, now=104.2)
    # What is ahead of our clock happened now, and this second is not over.
    assert rate.last(5, now=104.2) == [0, 3, 0, 0, 5]
    assert rate.last(2, now=105.0) == [5, 7]
    assert rate.mean(5, now=105.0) == pytest.approx(3.0)
    assert rate.last(9, now=200.0) == [0] * 9


def test_letters_are_what_the_queues_hold_or_else_what_the_history_told() -> None:
    """Without the management API the board still says that something waits for a person."""
    seen = _seen([parked("p-1", "point", at=after(0)), parked("", "point", at=after(1))])
    by_history = letters.section(None, {name: lane.parked for name, lane in seen.lanes.items()}, lambda _: None)
    assert {row["service"]: (row["parked"], row["dead"]) for row in by_history["rows"]}["point"] == (2, None)
    pages = letters.page_of("http://127.0.0.1:15672", "a/b")
    by_queues = letters.section({"point.parked": 4, "point.dead": 1}, {}, pages)
    row = next(row for row in by_queues["rows"] if row["service"] == "point")
    assert (row["parked"], row["dead"]) == (4, 1)
    assert row["parked_url"] == "http://127.0.0.1:15672/#/queues/a%2Fb/point.parked"


@pytest.mark.parametrize(
    "answer", [None, {}, [None], [{"name": 1}], [{"messages": 2}], [{"name": "q", "messages": "x"}]]
)
def test_an_answer_that_is_no_list_of_queues_is_none(answer: object) -> None:
    """Whatever answers on that port."""
    assert letters._depths(answer) == {}


def _told(records: Iterable[Record], id_: str = "p-1", *, now: float = NOW) -> dict[str, Any]:
    followed = Followed(Timeline(id_))
    for record in records:
        followed.hear(record)
    story = tell(followed.timeline, followed.story, now=now, traces=lambda trace: f"http://traces/{trace}")
    assert story is not None
    return story


def test_the_timeline_tells_a_failure_and_its_compensations() -> None:
    """What was refused, why, and who took back what."""
    story = _told(refused("p-1", "queue", "unknown_token", "no such token"))
    assert (story["label"], story["state"], story["ended"]) == ("Failed, all undone", "undone", True)
    assert "no such token" in story["said"]
    marks = [(event["service"], event["mark"]) for event in story["events"]]
    assert ("queue", "bad") in marks
    assert [service for service, mark in marks if mark == "back"] == ["point", "reservation", "payment"]
    assert story["links"] == [[f"Trace {TRACE[:8]}", f"http://traces/{TRACE}"]]
    assert story["next"][0].startswith("Nothing was charged")


def test_the_timeline_tells_what_should_come_next_and_who_holds_the_baton() -> None:
    """Of a saga that is not over, this is the question."""
    story = _told(steps("p-1", "reservation"))
    assert "Point holds the baton." in story["next"]
    assert any("point.deducted" in line for line in story["next"])
    assert not story["ended"]


def test_a_command_beside_the_sagas_has_a_timeline_too() -> None:
    """Somebody looks for the id of a hold, and must not be told that it is stuck."""
    story = _told([told("reservation", BEGIN, *_hold("h-1"))], "h-1")
    assert (story["label"], story["steps"], len(story["events"])) == ("Beside the sagas", [], 1)


def _hold(id_: str) -> list[Any]:
    entry = did(id_, "reservation")
    entry.type, entry.deed, entry.said = "reservation.hold", "answered", [("reservation.held", "")]
    return [entry]


def test_a_strangers_text_is_cut_and_made_harmless() -> None:
    """A detail of a megabyte, or one that reverses the line, is a stranger's as well."""
    story = _told(refused("p-1", "queue", "unknown_token", "\x1b[31m\u202e" + "x" * 1_000_000))
    shown = max((line for event in story["events"] for line in event["more"]), key=len)
    assert len(shown) < 500
    assert "\x1b" not in shown
    assert "\u202e" not in str(story)


def test_of_a_very_long_timeline_the_middle_is_left_out_and_counted() -> None:
    """A page with ten thousand rows shows nothing."""
    way = [retried("p-1", "point", at=after(n), delay_ms=1_000, attempt=n) for n in range(1, 1_001)]
    story = _told(way, now=NOW + 2_000)
    assert len(story["events"]) == 300
    assert story["hidden"] == 700
