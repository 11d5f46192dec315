"""The history over a real broker: five real services tell it, and `saga show`, `list` and `watch` tell it on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

import aio_pika
import pytest
from typer.testing import CliRunner

from common import history, saga, topology
from common.history import Record
from common.messages import Pay
from ops.app import app
from ops.output import CannotLookError
from ops.story import searching, stream
from ops.story.reading import records
from tests.support.eventually import eventually
from tests.support.history_script import Script, completed
from tests.support.saga import LEVELS, Theatre, Visit
from tools.stack import ROOT

pytestmark = pytest.mark.broker


async def run(url: str, *words: str) -> tuple[int, str, str]:
    """Run `saga` as an operator does, in this program: exit code, standard output, standard error."""
    done = await asyncio.to_thread(lambda: CliRunner().invoke(app, words, env={"RABBITMQ_URL": url}))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


async def shown(house: Theatre, pay: Pay, *, until: str) -> dict[str, Any]:
    """What `saga show --json` tells of a payment once its history has come so far that the user is told."""

    async def look() -> dict[str, Any]:
        _, out, _ = await run(house.url, "show", pay.payment_id, "--json")
        told: dict[str, Any] = json.loads(out)
        assert (told["phase"], told.get("expected")) == (until, []), told
        return told

    return await eventually(look)


async def test_show_tells_all_of_a_payment_that_happened(here: Visit, house: Theatre) -> None:
    """Nobody conducts a saga, and still one command tells who did what, when, and that it is whole."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    told = await shown(house, pay, until="completed")
    assert set(told["steps"].values()) == {"done"}
    assert (told["baton"], told["holes"]) == (None, [])
    assert told["took_s"] > 0
    deeds = {(moment["service"], moment["type"]) for moment in told["timeline"] if moment["deed"] == "did"}
    assert deeds == {(step.service, step.on) for step in saga.SAGA} | {("payment", "queue.expired")}
    said = {word for moment in told["timeline"] for word in moment["said"]}
    assert {"payment.paid", "queue.expired", "payment.completed", "notification.sent"} <= said
    assert len(told["traces"]) == 1
    code, out, _ = await run(house.url, "show", pay.payment_id)
    assert code == 0
    assert f"{pay.payment_id}: completed" in out
    assert "payment.completed" in out


async def test_a_refused_payment_is_shown_with_its_reason_and_listed_as_failed(
    here: Visit, house: Theatre
) -> None:
    """The operator's walk: which sagas failed, why did this one, and is all of it taken back."""
    good, bad = here.pay(), here.pay()
    await here.prepare(good)
    await here.prepare(bad, token=False)
    await here.send(good, bad)
    await here.completed(good)
    await here.undone(bad, at="queue", reason="unknown_token")
    told = await shown(house, bad, until="undone")
    assert (told["failed_at"], told["reason"]) == ("queue", "unknown_token")
    assert told["detail"]
    undone = dict.fromkeys(("payment", "reservation", "point"), "undone")
    assert told["steps"] == undone | {"queue": "refused", "notify": "done"}
    kinds = {moment["what"] for moment in told["timeline"]}
    assert {"command", "event", "dead letter", "failed", "compensation", "closed", "notice"} <= kinds
    code, out, _ = await run(house.url, "show", bad.payment_id)
    assert code == 1
    assert "queue failed it, unknown_token" in out
    await shown(house, good, until="completed")
    code, out, err = await run(house.url, "list", "--failed", "--since", "1h", "--saga", here.mark)
    assert code == 1
    head, *lines = out.splitlines()
    assert head.split("\t")[0] == "saga"
    assert [line.split("\t")[:2] for line in lines] == [[bad.payment_id, "undone"]]
    assert "1 undone" in err
    code, out, _ = await run(house.url, "list", "--saga", good.payment_id, "--json")
    assert code == 0
    assert json.loads(out)["counts"]["completed"] == 1


async def test_retries_and_the_death_that_ends_them_stand_in_the_timeline(here: Visit, house: Theatre) -> None:
    """Why it took so long, and why it failed in the end: each attempt with its number, reason and delay."""
    (pay,) = await here.paying()
    house.faults("point").make(raises=[f"reservation.confirmed:{pay.payment_id}"])
    try:
        await here.send(pay)
        await here.undone(pay, at="point", reason=saga.RETRIES_SPENT)
    finally:
        house.faults("point").mend()
    told = await shown(house, pay, until="undone")
    retries = [moment for moment in told["timeline"] if moment["what"] == "retry"]
    assert [moment["attempt"] for moment in retries] == list(range(1, LEVELS + 1))
    assert all("sabotaged" in moment["detail"] and moment["next_attempt_within_s"] for moment in retries)
    assert told["reason"] == saga.RETRIES_SPENT


async def test_a_saga_that_waits_for_a_service_shows_who_holds_the_baton(here: Visit, house: Theatre) -> None:
    """A service that is away is found by its sagas: they say whose word is missing, and in the end are stuck."""
    (pay,) = await here.paying()
    assert not house.stack.stop("point")
    try:
        await here.send(pay)
        await here.hears(pay.payment_id, "reservation.confirmed")

        async def held() -> None:
            code, out, _ = await run(house.url, "show", pay.payment_id, "--json")
            told = json.loads(out)
            assert (code, told["phase"], told.get("baton")) == (0, "moving", "point")
            assert told["expected"][0]["says"] == ["point.deducted", "point.failed"]

        await eventually(held)

        async def stuck() -> None:
            code, out, _ = await run(
                house.url, "list", "--stuck", "--saga", pay.payment_id, "--stuck-after", "1", "--json"
            )
            assert code == 1
            assert [it["id"] for it in json.loads(out)["sagas"]] == [pay.payment_id]

        await eventually(stuck)
    finally:
        house.start("point", sabotaged=True, ready=False)
    await here.completed(pay)


async def test_watch_tells_each_change_as_a_line_and_leaves_on_an_interrupt(here: Visit, house: Theatre) -> None:
    """In a pipe it feeds other programs: one JSON object a change, at once, and no traceback at the end."""
    pay, *_ = await here.paying()
    watching = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ops", "watch", "--json", "--saga", pay.payment_id),
        cwd=ROOT,
        env=os.environ | {"RABBITMQ_URL": house.url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await here.send(pay)
        assert watching.stdout
        phases: list[str] = []
        async with asyncio.timeout(30):
            while not phases or phases[-1] != "completed":
                told = json.loads(await watching.stdout.readline())
                assert told["id"] == pay.payment_id
                phases.append(told["phase"])
        watching.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(watching.communicate(), 10)
    finally:
        with contextlib.suppress(ProcessLookupError):
            watching.kill()
    assert (watching.returncode, err) == (0, b"")


@contextlib.asynccontextmanager
async def told(url: str, *bodies: bytes | Record) -> AsyncIterator[Any]:
    """A stream of the history that holds these, and a way to tell more; nobody else writes to it."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        arguments: dict[str, Any] = {"x-queue-type": "stream"}
        await channel.declare_queue(topology.HISTORY, durable=True, arguments=arguments)

        async def tell(*bodies: bytes | Record) -> None:
            for body in bodies:
                content = history.encode(body) if isinstance(body, Record) else body
                await channel.default_exchange.publish(aio_pika.Message(content), topology.HISTORY)

        await tell(*bodies)
        yield tell


async def _read(url: str, **how: Any) -> list[Record]:  # noqa: ANN401 - what `records` takes
    return [record async for record in records(url, **how)]


async def test_all_that_is_there_is_read_and_what_is_no_record_is_told_once(
    empty: Theatre, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reading ends at what was there when it began, though nothing marks the end, and rubbish hurts nobody."""
    with pytest.raises(CannotLookError, match="HISTORY=false"):
        await _read(empty.url)
    script = completed()
    async with told(empty.url) as tell:
        assert await _read(empty.url) == []
        await tell(b"rubbish", *script.records, b'{"v": 2}', b"[" * 100_000, b"\xff")
        read: list[int] = []
        found = await _read(empty.url, progress=read.append)
        assert [record.at for record in found] == [record.at for record in script.records]
        assert read[-1] == len(script.records) + 4
        assert capsys.readouterr().err.count("no record") == 1
        assert len(await _read(empty.url, about="p-1")) == len(script.records)
        assert await _read(empty.url, about="p-2") == []


async def test_reading_while_services_go_on_telling_ends_all_the_same(
    empty: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load a stream is never silent: the end is where it was when reading began, and no clock tells it."""
    monkeypatch.setattr(stream, "_QUIET", 60.0)
    script = completed()
    async with told(empty.url, *script.records) as tell:

        async def go_on() -> None:
            while True:
                await tell(script.records[0])

        going = asyncio.create_task(go_on())
        try:
            async with asyncio.timeout(20):
                assert len(await _read(empty.url)) >= len(script.records)
        finally:
            going.cancel()


async def test_a_young_saga_is_found_without_reading_the_whole_history(
    empty: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full stream takes minutes to read, and what is asked for is mostly young; what was not read is told."""
    monkeypatch.setattr(stream, "SKEW", timedelta(0))
    monkeypatch.setattr(searching, "SKEW", timedelta(0))
    monkeypatch.setattr(searching, "STRETCHES", (timedelta(seconds=1), timedelta(seconds=2)))
    old = Script("p-old", at=datetime.now(UTC)).does(*saga.SERVICES).records
    async with told(empty.url, *old, *(old[0],) * 500) as tell:

        async def the_clock_went_on() -> None:
            assert datetime.now(UTC) - old[0].at > timedelta(seconds=3)

        await eventually(the_clock_went_on)
        new = Script("p-new", at=datetime.now(UTC)).does(*saga.SERVICES).records
        await tell(*new)
        read: list[int] = []
        found = await searching.search("p-new", progress=read.append, url=empty.url)
        assert {record.service for record in found.records} == set(saga.SERVICES)
        assert max(read) < 100
        assert found.unread_before
        assert old[0].at < found.unread_before < new[0].at
        for whole in (False, True):
            older = await searching.search("p-old", progress=read.append, whole=whole, url=empty.url)
            assert {record.service for record in older.records} == set(saga.SERVICES)
            assert older.unread_before is None
        late = await searching.search("p-new", since=new[2].at, url=empty.url)
        assert [record.at for record in late.records] == [record.at for record in new[2:]]
        nobody = await searching.search("p-nobody", progress=read.append, url=empty.url)
        assert (nobody.records, nobody.unread_before) == ([], None)
        assert max(read) >= 500


async def test_a_broker_whose_clock_is_behind_hides_no_saga(
    empty: Theatre, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream finds moments by the broker's clock; by that of the services nothing has been told lately."""
    monkeypatch.setattr(stream, "SKEW", timedelta(0))
    monkeypatch.setattr(stream, "_QUIET", 0.5)
    now = datetime.now(UTC)
    ahead = Script(at=now + timedelta(hours=2)).does(*saga.SERVICES).records
    async with told(empty.url, *ahead):
        monkeypatch.setattr(searching, "datetime", mock.Mock(now=lambda _: now + timedelta(hours=2, minutes=1)))
        found = await searching.search("p-1", url=empty.url)
        assert {record.service for record in found.records} == set(saga.SERVICES)


async def test_what_was_tried_before_is_looked_for_too(empty: Theatre, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saga does not begin with the attempt that went well; the ones before it lie further back."""
    monkeypatch.setattr(stream, "SKEW", timedelta(0))
    monkeypatch.setattr(searching, "SKEW", timedelta(0))
    monkeypatch.setattr(searching, "STRETCHES", (timedelta(seconds=1),))
    first = Script("p-1", at=datetime.now(UTC)).retries("payment", attempt=1).records
    async with told(empty.url, *first) as tell:

        async def the_clock_went_on() -> None:
            assert datetime.now(UTC) - first[0].at > timedelta(seconds=2)

        await eventually(the_clock_went_on)
        then = Script("p-1", at=datetime.now(UTC)).tells(
            "payment", saga.FIRST.on, deed="did", said=("payment.paid",), attempt=2
        )
        await tell(*then.records)
        found = await searching.search("p-1", url=empty.url)
        assert [record.entries[0].attempt for record in found.records][:1] == [1]
        assert found.unread_before is None


async def test_a_reader_begins_where_it_is_told_to(empty: Theatre) -> None:
    """A week of history is long: whoever asks for an hour gets the hour."""
    now = datetime.now(UTC)
    old = Script(at=now - timedelta(hours=3)).does("payment")
    new = Script(at=now - timedelta(minutes=1)).does("payment", "reservation")
    async with told(empty.url, *old.records, *new.records):
        found = await _read(empty.url, since=now - timedelta(hours=1))
        assert [record.service for record in found] == ["payment", "reservation"]
        assert len(await _read(empty.url, since=datetime(1970, 1, 1, tzinfo=UTC))) == 3
        assert await _read(empty.url, since=now + timedelta(days=1)) == []


async def test_a_follower_gets_what_comes_and_hears_of_the_end_of_the_stream(empty: Theatre) -> None:
    """The watch must not sit before a dead screen: a stream that is gone is an error, not silence."""
    script = Script().does("payment", "reservation")
    async with told(empty.url, script.records[0]) as tell:
        following = records(empty.url, follow=True)
        async with asyncio.timeout(20):
            assert (await anext(following)).service == "payment"
            await tell(b"rubbish", script.records[1])
            assert (await anext(following)).service == "reservation"
            empty.api("DELETE", f"/api/queues/{{v}}/{topology.HISTORY}")
            with pytest.raises(CannotLookError):
                await anext(following)


async def test_a_hostile_record_steers_no_terminal(empty: Theatre) -> None:
    """Texts in the history were written by anybody: shown, they are text and nothing else."""
    script = Script().tells(
        "payment", "payment.pay", history.Became.RETRY, reason="[red]x[/]", detail="\x1b[2J\u202eboom\n[bold]"
    )
    async with told(empty.url, *script.records):
        code, out, _ = await run(empty.url, "show", "p-1")
    assert code == 1
    assert "[red]x[/]" in out
    assert not set(out) & {"\x1b", "\u202e"}
