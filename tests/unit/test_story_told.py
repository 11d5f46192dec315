"""How stories are told: for a person, for a pipe and for a program, and never what a stranger wants it to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from common import saga
from common.history import NOTICE, Became, Record
from common.recovery import Deed
from ops.app import app
from ops.output import CannotLookError
from ops.story import live, looking, telling, timeline
from ops.story.judging import STUCK_AFTER
from ops.story.searching import Found
from ops.story.standing import Phase
from ops.story.timeline import Timeline, What
from ops.story.watching import KEPT_FOR, Filter, Watch
from tests.support.history_script import BEGAN, TRACE, Script, completed, refused


@dataclass(slots=True)
class History:
    """What stands in for the stream: it tells these scripts, and notes how it was asked."""

    asked: dict[str, Any] = field(default_factory=dict)
    _scripts: tuple[Script, ...] = ()
    _error: Exception | None = None

    def __call__(self, *scripts: Script, error: Exception | None = None) -> None:
        """Say what it holds, or why it cannot be read."""
        self._scripts, self._error = scripts, error

    async def records(self, _: str | None = None, **asked: Any) -> AsyncGenerator[Record, None]:  # noqa: ANN401
        """As `ops.story.reading.records`."""
        self.asked = asked
        if self._error is not None:
            raise self._error
        for script in self._scripts:
            for record in script.records:
                yield record

    async def search(self, id_: str, **asked: Any) -> Found:  # noqa: ANN401
        """As `ops.story.searching.search`."""
        found = Found(id_)
        async for record in self.records(**asked):
            entries = [entry for entry in record.entries if entry.saga == id_]
            found.records += [replace(record, entries=entries)] if entries else []
        return found


@pytest.fixture
def history(monkeypatch: pytest.MonkeyPatch) -> History:
    """The history as a test wants it, without a broker."""
    told = History()
    monkeypatch.setattr(looking, "records", told.records)
    monkeypatch.setattr(looking, "search", told.search)
    monkeypatch.setattr(live, "records", told.records)
    return told


def run(*words: str) -> tuple[int, str, str]:
    """Run `saga` in a pipe: exit code, standard output, standard error."""
    done = CliRunner().invoke(app, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def lately(seconds: float) -> datetime:
    """So many seconds ago."""
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_show_tells_a_whole_saga_and_that_it_ended_well(history: History) -> None:
    """One look: its end, its steps, its trace, and each of its moments as a line of tabs."""
    history(completed())
    code, out, _ = run("show", "p-1")
    assert code == 0
    first, *_ = lines = out.splitlines()
    assert first == "p-1: completed: all of it happened"
    assert "payment=done reservation=done point=done queue=done notify=done" in lines
    assert f"trace: {TRACE}" in lines
    rows = [line.split("\t") for line in lines if "\t" in line]
    assert rows[0] == list(telling.TIMELINE)
    assert [row[2] for row in rows[1:]] == [
        *saga.SERVICES,
        "payment",
        "notify",
    ]
    assert [row[3] for row in rows[1:]] == ["command", *["event"] * 5, "notice"]
    assert rows[2][1] == "+10 ms"


def test_show_tells_why_a_saga_failed_and_what_to_do(history: History) -> None:
    """The reason stands where it was given, in the words that the user was told, and the exit code says no."""
    script = Script().does("payment", "reservation").refuses("point", "balance_too_low", "7 points are missing")
    for service in ("payment", "reservation"):
        script.hears(service, "point", "balance_too_low", undoes=True)
    history(script)
    code, out, _ = run("show", "p-1")
    assert code == 1
    assert out.startswith("p-1: undone: point failed it, balance_too_low")
    assert "(7 points are missing)" in out.splitlines()[0]
    assert "under a new id" in out


def test_show_names_the_holder_of_the_baton_and_what_comes_next(history: History) -> None:
    """A saga under way is no failure; who has it, since when, and what is waited for is told."""
    history(Script(at=lately(1)).does("payment"))
    code, out, _ = run("show", "p-1")
    assert code == 0
    assert "next: reservation holds the baton" in out
    assert "reservation is to say reservation.confirmed or reservation.failed, asked by payment.paid" in out


def test_show_of_a_stuck_saga_says_no_and_what_to_do(history: History) -> None:
    """It has not ended badly, but it will not end by itself."""
    history(Script(at=lately(STUCK_AFTER + 60)).does("payment"))
    code, out, _ = run("show", "p-1")
    assert code == 1
    assert out.startswith("p-1: stuck")
    for advice in ("saga doctor", "saga audit", "saga abort p-1"):
        assert advice in out


def test_show_of_what_nobody_told_says_so(history: History) -> None:
    """Not known is an answer: exit code 1, and whom else to ask."""
    history(completed("p-2"))
    code, out, _ = run("show", "p-1")
    assert code == 1
    assert "the history tells nothing of it" in out
    assert "saga audit" in out
    code, out, _ = run("show", "p-1", "--json")
    assert (code, json.loads(out)["known"]) == (1, False)


def test_show_tells_of_commands_beside_the_saga_too(history: History) -> None:
    """Somebody who shows a hold's id wants to know whether it was held."""
    held = Script("h-1").tells("reservation", "reservation.hold", deed=Deed.ANSWERED, said=("reservation.held",))
    refused_ = Script("h-2").tells(
        "reservation", "reservation.hold", deed=Deed.ANSWERED, said=("reservation.rejected",)
    )
    history(held, refused_)
    code, out, _ = run("show", "h-1")
    assert (code, out.splitlines()[0]) == (0, "h-1: a command beside the sagas, answered")
    code, out, _ = run("show", "h-2")
    assert (code, out.splitlines()[0]) == (
        1,
        "h-2: a command beside the sagas, not done: reservation.rejected",
    )


def test_show_tells_operators_acts_and_holes(history: History) -> None:
    """Who intervened, and why; and what the history itself does not know."""
    script = Script(at=lately(5)).does("payment", "reservation").acts("abort", by="kim", why="double booking")
    script.records = [record for record in script.records if record.service != "payment"]
    history(script)
    _, out, _ = run("show", "p-1")
    assert "\toperator\toperator\tabort\t\t\tby kim: double booking" in out
    assert "hole in the history: payment: its own word is missing" in out


def test_show_for_programs_holds_everything_in_one_document(history: History) -> None:
    """A program needs no words: times are RFC 3339, what is not known is null."""
    history(refused("point", "no_wallet"))
    code, out, _ = run("show", "p-1", "--json")
    told = json.loads(out)
    assert code == 1
    assert (told["phase"], told["failed_at"], told["reason"], told["detail"]) == (
        "undone",
        "point",
        "no_wallet",
        "no",
    )
    assert datetime.fromisoformat(told["began"]) == BEGAN + timedelta(milliseconds=10)
    assert told["took_s"] == pytest.approx(0.05)
    whats = [moment["what"] for moment in told["timeline"]]
    assert whats[2:6] == ["dead letter", "failed", "compensation", "compensation"]
    assert told["timeline"][3]["attempt"] is None


def test_what_strangers_wrote_is_shown_as_text(history: History) -> None:
    """A terminal obeys control characters and Rich obeys brackets: neither may come from a message."""
    script = Script(at=lately(1)).retries("payment", attempt=1)
    script.records[0].entries[0].detail = "\x1b]0;pwned\x07[red]\u202e\r\nnext"
    script.acts("abort", by="\x1b[31mkim", why="[bold]")
    script.records[1].replica = "[link=x]"
    history(script)
    for words in (("show", "p-1"), ("show", "[red]\x1b[2J"), ("list",)):
        _, out, err = run(*words)
        assert not set(out + err) & {"\x1b", "\x07", "\u202e", "\r"}
    assert "[red]" in run("show", "p-1")[1]


def test_list_shows_first_what_needs_a_person(history: History) -> None:
    """Stuck before moving before ended, the latest first; and the numbers of all."""
    history(
        completed("a", lately(300)),
        completed("b", lately(200)),
        Script("c", lately(1)).does("payment"),
        Script("d", lately(500)).does("payment", "reservation"),
        refused("point", "no_wallet", "e", lately(100)),
    )
    code, out, err = run("list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 1
    assert [row[0] for row in rows] == ["saga", "d", "c", "e", "b", "a"]
    assert [row[1] for row in rows[1:]] == ["stuck", "moving", "undone", "completed", "completed"]
    assert rows[1][3] == "point"
    assert "2 completed" in err
    code, out, err = run("list", "--limit", "1")
    assert [line.split("\t")[0] for line in out.splitlines()] == ["saga", "d"]
    assert "4 more" in err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--failed"], ["p-bad"]),
        (["--stuck"], ["p-stuck"]),
        (["--failed", "--stuck"], ["p-stuck", "p-bad"]),
        (["--saga", "q-"], ["q-good"]),
        (["--failed", "--saga", "q-"], []),
    ],
)
def test_list_filters_and_says_by_its_exit_code_whether_something_is_wrong(
    history: History, options: list[str], wanted: list[str]
) -> None:
    """A cron job needs no more than the exit code."""
    history(
        completed("q-good", lately(50)),
        refused("queue", "unknown_token", "p-bad", lately(40)),
        Script("p-stuck", lately(500)).does("payment"),
    )
    code, out, _ = run("list", "--json", *options)
    told = json.loads(out)
    assert [it["id"] for it in told["sagas"]] == wanted
    assert code == (1 if any(id_.startswith("p-") for id_ in wanted) else 0)


def test_since_is_how_long_ago_or_a_time(history: History) -> None:
    """And what is neither is refused before anything is read."""
    history()
    run("list", "--since", "90m")
    asked = history.asked["since"]
    assert abs(asked - lately(90 * 60)) < timedelta(seconds=5)
    run("show", "p-1", "--since", "2026-11-22T10:00:00+09:00")
    assert history.asked["since"] == datetime(2026, 11, 22, 1, tzinfo=UTC)
    for wrong in ("yesterday", "2026-11-22T10:00:00", "999999999d", "1w", ""):
        code, _, err = run("list", "--since", wrong)
        assert code == 2, wrong
        assert "2026-11-22T10:00:00Z" in " ".join(err.replace("│", " ").split()), err


@pytest.mark.parametrize("words", [("show", "p-1"), ("list",), ("watch",), ("list", "--json")])
def test_where_the_history_cannot_be_read_the_exit_code_is_two(history: History, words: tuple[str, ...]) -> None:
    """No answer is not the answer no."""
    history(error=CannotLookError("no stream"))
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "no stream" in err


def test_a_timeline_is_bounded() -> None:
    """Somebody may send one command a million times; it is told that not all of it is shown."""
    told = Timeline("p-1")
    script = Script().does("payment")
    record = script.records[0]
    for number in range(timeline.MOST + 5):
        record.at = BEGAN + timedelta(microseconds=number)
        told.add(record)
    record.at = BEGAN
    told.add(record)
    assert (len(told), told.left_out) == (timeline.MOST, 5)


def test_every_deed_has_a_word_in_the_timeline() -> None:
    """A deed that is added and has no word would be shown as unknown."""
    script = Script()
    for deed in Deed:
        script.tells("payment", "payment.pay", deed=deed)
    for became in (Became.RETRY, Became.DEAD, Became.PARKED):
        script.tells("payment", "payment.pay", became)
    told = Timeline("p-1")
    for record in script.records:
        told.add(record)
    assert What.UNKNOWN not in {moment.what for moment in told}
    script.tells("payment", "payment.pay", deed="news")
    told.add(script.records[-1])
    assert [moment.what for moment in told][-1] is What.UNKNOWN


def _watch(watch: Watch, script: Script, now: float | None = None) -> list[tuple[str, str]]:
    """Hand a script to a watch; what it tells."""
    return [
        (it.story.id, str(it.standing.phase))
        for record in script.records
        for it in watch.take(record, now or record.at.timestamp())
    ]


def test_the_watch_tells_each_change_once() -> None:
    """A line for each step, none for what changes nothing."""
    watch = Watch()
    told = _watch(watch, completed())
    assert told == [("p-1", "moving")] * 4 + [("p-1", "completed")] * 2
    again = Script(at=completed().at).tells("payment", "payment.pay", deed=Deed.REPEATED, said=("payment.paid",))
    assert _watch(watch, again) == []
    assert watch.counts()[Phase.COMPLETED] == 1


def test_the_watch_tells_what_time_alone_changes() -> None:
    """A saga that falls silent changes by nobody's word: it becomes overdue, then stuck."""
    watch = Watch()
    script = Script().does("payment")
    _watch(watch, script)
    assert watch.look(script.now + 5) == []
    (late,) = watch.look(script.now + 15)
    assert late.standing.overdue
    (stuck,) = watch.look(script.now + STUCK_AFTER + 5)
    assert stuck.standing.phase is Phase.STUCK
    assert watch.look(script.now + STUCK_AFTER + 6) == []
    assert watch.counts()[Phase.STUCK] == 1


def test_the_watch_shows_only_what_it_is_asked_for() -> None:
    """Filters take effect on what is told and on what is shown alike."""
    scripts = [
        completed("a-good"),
        refused("point", "no_wallet", "a-bad"),
        Script("a-stuck", BEGAN - timedelta(hours=1)).does("payment"),
    ]
    now = BEGAN.timestamp() + 1
    for wanted, ids in (
        (Filter(), ["a-stuck", "a-bad", "a-good"]),
        (Filter(failed=True), ["a-bad"]),
        (Filter(stuck=True), ["a-stuck"]),
        (Filter("b"), []),
    ):
        watch = Watch(wanted)
        told = {id_ for script in scripts for id_, _ in _watch(watch, script, now)}
        assert told == set(ids)
        assert [it.story.id for it in watch.shown(now, 10)] == ids
        assert len(watch.shown(now, 1)) == min(1, len(ids))


def test_the_watch_forgets_what_has_ended_and_still_counts_it() -> None:
    """It runs for weeks: only what moves is kept, and a late word makes no ghost of what is forgotten."""
    watch = Watch()
    script = completed()
    _watch(watch, script)
    watch.look(script.now + KEPT_FOR + 1)
    assert watch.stories.sagas == {}
    assert watch.counts() == {Phase.COMPLETED: 1}
    late = Script(at=script.at + timedelta(seconds=40)).tells("queue", "point.failed", deed=Deed.IGNORED)
    assert _watch(watch, late) == []
    assert watch.counts() == {Phase.COMPLETED: 1}


def test_the_watch_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand sagas that never end must not eat the operator's machine: the longest silent go first."""
    monkeypatch.setattr("ops.story.watching.MOST", 10)
    watch = Watch()
    for number in range(30):
        _watch(watch, Script(f"p-{number}", BEGAN + timedelta(seconds=number)).does("payment"))
    watch.look(BEGAN.timestamp() + 31)
    assert sorted(watch.stories.sagas) == sorted(f"p-{number}" for number in range(20, 30))


def test_rates_are_told_over_the_last_seconds() -> None:
    """Whether the hall sells, and how fast, at a glance."""
    watch = Watch()
    for number in range(20):
        _watch(watch, completed(f"p-{number}", BEGAN + timedelta(seconds=number / 4)))
    now = BEGAN.timestamp() + 6
    ended, messages = watch.rates(now)
    assert ended == pytest.approx(2.0)
    assert messages == pytest.approx(14.0)
    watch.look(now + 100)
    assert watch.rates(now + 100) == (0.0, 0.0)


def test_in_a_pipe_each_change_is_a_line_of_tabs(history: History) -> None:
    """So that `grep` and `cut` can work on it; --json gives an object a line."""
    history(refused("point", "no_wallet", at=lately(1)))
    code, out, _ = run("watch")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert {len(row) for row in rows} == {7}
    assert [row[2] for row in rows][-2:] == ["undone", "undone"]
    assert rows[-1][3] == "payment=undone reservation=undone point=refused queue=closed notify=done"
    assert rows[-1][5] == "no_wallet"
    history(completed(at=lately(1)))
    _, out, _ = run("watch", "--json")
    assert [json.loads(line)["phase"] for line in out.splitlines()][-1] == "completed"
    assert history.asked["follow"]


def test_the_screen_shows_counts_and_a_line_a_saga() -> None:
    """On a terminal: what needs a person above, and never more lines than there are."""
    watch = Watch()
    now = BEGAN.timestamp() + 5
    _watch(watch, Script("stuck-one", BEGAN - timedelta(hours=1)).does("payment"), now)
    _watch(watch, refused("point", "no_wallet", "bad-one"), now)
    for number in range(40):
        _watch(watch, completed(f"good-{number}"), now)
    console = Console(width=150, height=20, record=True, file=None, force_terminal=False, quiet=True)
    lines = console.render_lines(live.screen(watch, now, console), pad=False)
    text = "\n".join("".join(segment.text for segment in line) for line in lines)
    assert len(lines) <= 20
    assert "40 completed" in text
    assert text.index("stuck-one") < text.index("good-")
    assert "✔ done" in text
    assert "! overdue" in text


def test_a_watch_that_stumbles_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is closed ends the watch, wherever it is noticed."""

    async def never(_: str | None = None, **_asked: Any) -> AsyncGenerator[Record, None]:  # noqa: ANN401
        await asyncio.Event().wait()
        yield completed().records[0]

    def closed(_seen: object, _now: float) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(live, "records", never)
    monkeypatch.setattr(live, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(live, "tell_plainly", closed)
    with pytest.raises(BrokenPipeError):
        asyncio.run(live.follow(Watch(), None, as_json=False))


def test_the_notice_is_a_word_of_the_services_alone() -> None:
    """It is told under a name that no message has, so no message can be taken for it."""
    assert NOTICE not in saga.vocabulary()


async def test_what_is_past_is_told_as_it_stood_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A payment that was done an hour ago was never stuck, whatever the clock says while it is read."""

    async def told(*_: object, **__: object) -> AsyncIterator[Record]:
        for record in completed().records:
            yield record

    monkeypatch.setattr(live, "records", told)
    await live.follow(Watch(), None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2] for line in lines][-1] == Phase.COMPLETED
    assert Phase.STUCK not in {line.split("\t")[2] for line in lines}
