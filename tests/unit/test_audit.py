"""The audit finds each thing that can be wrong, and nothing where nothing is.

The books it reads are written by the services' own handlers: one payment that is complete, four that failed at one
step each, and one that waits for its points. Then each test spoils one thing.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web

from common import saga
from ops import where
from ops.app import run
from ops.audit import commands, look, reading, snapshots
from ops.audit.look import RETENTION, Report, audit
from ops.audit.rules import Saga
from ops.output import CannotLookError
from tests.support.written import OPEN, PRICE, WHOLE, write


@dataclass(frozen=True, slots=True)
class Books:
    """Five database files, and the way to spoil them."""

    home: Path

    @property
    def urls(self) -> dict[str, str]:
        """Where the audit finds them."""
        return {service: f"sqlite://{self.file(service)}" for service in saga.SERVICES}

    def file(self, service: str) -> Path:
        """The file of one service."""
        return self.home / f"{service}.sqlite3"

    def spoil(self, service: str, *statements: str) -> None:
        """Change a service's database behind its back."""
        with closing(sqlite3.connect(self.file(service))) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    async def audit(self, *, after: timedelta = timedelta(hours=1), management: str | None = None) -> Report:
        """Look at the books as if so much time had passed since they were written."""
        return await audit(
            self.urls,
            now=datetime.now(UTC) + after,
            pause=timedelta(0),
            rabbitmq_management=management,
        )

    async def rules(self) -> list[tuple[str, str]]:
        """Which rule is broken by whom, apart from the payment that is left open on purpose."""
        report = await self.audit()
        return [(found.saga_id, found.rule) for found in report.violations if found.saga_id != OPEN]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The books as the services wrote them."""
    home = tmp_path_factory.mktemp("books")
    asyncio.run(write(Books(home).urls))
    return home


@pytest.fixture
def books(original: Path, tmp_path: Path) -> Books:
    """A copy of the books, to be spoilt."""
    shutil.copytree(original, tmp_path / "books")
    return Books(tmp_path / "books")


@pytest.fixture
def settled(books: Books) -> Books:
    """The books without the payment that is still open."""
    for service in ("payment", "reservation"):
        books.spoil(service, f"DELETE FROM saga_step WHERE saga_id = '{OPEN}'")
    books.spoil("payment", f"DELETE FROM payment WHERE payment_id = '{OPEN}'")
    books.spoil(
        "reservation", f"UPDATE reservation SET state = 'HELD', payment_id = NULL WHERE payment_id = '{OPEN}'"
    )
    return books


async def test_books_that_are_right_are_clean(settled: Books) -> None:
    """An audit that cries wolf is soon ignored: all five endings are right, a day later too."""
    report = await settled.audit(after=timedelta(days=1))
    assert report.clean, report.violations
    assert report.under_way == []
    counts = report.counts
    assert (counts.completed, counts.undone, counts.failed) == (1, 3, 1)
    assert counts.points == 5 * 1000 + PRICE - 1 - PRICE
    assert (counts.wallets, counts.seats_sold, counts.tokens_used) == (6, 1, 1)


async def test_a_saga_that_moved_lately_is_under_way(books: Books) -> None:
    """A running system is never at rest; a saga in the middle is not a broken one."""
    report = await books.audit(after=timedelta(0))
    assert report.clean, report.violations
    assert [(it.saga_id, it.waits_for) for it in report.under_way] == [(OPEN, ("point",))]
    assert report.counts.under_way == 1


async def test_a_saga_that_stands_still_is_stuck(books: Books) -> None:
    """Half a payment that nobody works on any more is what the audit is for."""
    report = await books.audit()
    assert [(found.saga_id, found.rule) for found in report.violations] == [(OPEN, "stuck")]
    assert "waits for point" in report.violations[0].evidence
    assert report.under_way == []


async def test_a_refusal_that_is_still_being_undone_is_under_way_and_then_stuck(settled: Books) -> None:
    """The way back takes time as the way forward does, and may get lost as well."""
    settled.spoil(
        "payment",
        "UPDATE saga_step SET state = 'done' WHERE saga_id = 'p-reservation'",
        "UPDATE payment SET state = 'PAID' WHERE payment_id = 'p-reservation'",
    )
    report = await settled.audit(after=timedelta(0))
    assert report.clean, report.violations
    assert [(it.saga_id, it.waits_for) for it in report.under_way] == [("p-reservation", ("payment",))]
    assert await settled.rules() == [("p-reservation", "stuck")]


async def test_whoever_comes_after_a_failure_need_not_hear_of_it(settled: Books) -> None:
    """It has nothing to undo; and what only it did not hear, nobody says again."""
    settled.spoil("point", "DELETE FROM saga_step WHERE saga_id = 'p-reservation'")
    assert await settled.rules() == []


async def test_a_saga_that_is_settled_is_right_and_stays_right_when_it_is_forgotten(settled: Books) -> None:
    """Only the business rows are kept for ever, and the first service's own."""
    for service in ("payment", "reservation", "point", "queue"):
        settled.spoil(service, f"UPDATE saga_step SET state = 'settled' WHERE saga_id = '{WHOLE}'")
    report = await settled.audit()
    assert report.clean, report.violations
    for service in saga.SERVICES[1:]:
        settled.spoil(service, "DELETE FROM saga_step")
    settled.spoil("notify", "DELETE FROM notice")
    assert await settled.rules(), "nothing is forgotten so soon"
    report = await settled.audit(after=timedelta(days=31))
    assert report.clean, report.violations
    assert (report.counts.completed, report.counts.undone + report.counts.failed) == (1, 4)


@pytest.mark.parametrize(
    ("service", "statement", "payment_id"),
    [
        ("point", f"DELETE FROM ledger_entry WHERE saga_id = '{WHOLE}'", WHOLE),
        ("queue", "UPDATE token SET payment_id = 'p-queue' WHERE token = 't-queue'", "p-queue"),
        ("point", "UPDATE ledger_entry SET amount = 0 WHERE kind = 'restoration'", "p-queue"),
    ],
)
async def test_what_is_wrong_with_a_forgotten_saga_is_still_found(
    settled: Books, service: str, statement: str, payment_id: str
) -> None:
    """All of it or nothing holds for the books of years ago, too."""
    settled.spoil("payment", f"UPDATE saga_step SET state = 'settled' WHERE saga_id = '{WHOLE}'")
    for other in saga.SERVICES[1:]:
        settled.spoil(other, "DELETE FROM saga_step")
    settled.spoil(service, statement)
    report = await settled.audit(after=timedelta(days=31))
    found = {(violation.saga_id, violation.rule) for violation in report.violations}
    assert (payment_id, "forgotten") in found


async def test_what_is_settled_and_not_complete_is_a_violation(settled: Books) -> None:
    """A settled saga cannot be undone any more."""
    settled.spoil("point", "UPDATE saga_step SET state = 'settled' WHERE saga_id = 'p-queue'")
    assert ("p-queue", "settled") in await settled.rules()


async def _serve(
    answer: Callable[[web.Request], web.StreamResponse], then: Callable[[str], Awaitable[None]]
) -> None:
    """Stand in for the management API while `then` runs with its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    application = web.Application()
    application.router.add_get("/api/queues/{vhost}", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        _, port = runner.addresses[0]
        await then(f"http://watcher:s%40fe@127.0.0.1:{port}?vhost=a/b")
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("queue", "stuck"),
    [("point.retry.5m", False), ("point.events", False), ("point.parked", True), ("notify.events", True)],
)
async def test_a_saga_whose_message_may_wait_in_a_queue_is_not_stuck(
    books: Books, queue: str, stuck: bool
) -> None:
    """Five minutes on a retry level are no standstill; a parked message, or somebody else's, is."""
    seen: list[tuple[str, str | None]] = []

    def answer(request: web.Request) -> web.StreamResponse:
        seen.append((request.match_info["vhost"], request.headers.get("Authorization")))
        return web.json_response([{"name": queue, "messages": 2}, {"name": "somebody.else", "messages": 7}])

    async def look(address: str) -> None:
        report = await books.audit(management=address)
        assert report.clean is not stuck
        counts = report.counts
        assert (counts.messages_waiting, counts.messages_parked) == ((0, 2) if "parked" in queue else (2, 0))

    await _serve(answer, look)
    assert seen[0] == ("a/b", "Basic d2F0Y2hlcjpzQGZl")


async def test_a_management_api_that_refuses_is_told_without_its_password(books: Books) -> None:
    """What cannot be looked at must not pass as clean, and no secret belongs into a message."""

    async def look(address: str) -> None:
        with pytest.raises(CannotLookError, match="does not let user watcher") as told:
            await books.audit(management=address)
        assert "s@fe" not in str(told.value)
        assert "s%40fe" not in str(told.value)

    await _serve(lambda _: web.Response(status=401), look)


@pytest.mark.parametrize(
    ("service", "statements", "expected"),
    [
        pytest.param(
            "point", ["UPDATE wallet SET balance = balance + 1 WHERE user_id = 'whole'"], [("whole", "wallet")],
            id="a wallet holds more than its ledger says",
        ),
        pytest.param(
            "point", ["DELETE FROM wallet WHERE user_id = 'whole'"], [("whole", "wallet")],
            id="a ledger without a wallet",
        ),
        pytest.param(
            "point",
            [
                "UPDATE wallet SET balance = -1 WHERE user_id = 'open'",
                "UPDATE ledger_entry SET amount = -1 WHERE saga_id = 'u-open'",
            ],
            [("open", "negative")],
            id="a wallet below zero",
        ),
        pytest.param(
            "point",
            [
                "DELETE FROM ledger_entry WHERE saga_id = 'p-whole'",
                "UPDATE wallet SET balance = balance + 30 WHERE user_id = 'whole'",
            ],
            [(WHOLE, "points")],
            id="a completed payment took no points",
        ),
        pytest.param(
            "point",
            [
                ("INSERT INTO ledger_entry (saga_id, kind, user_id, amount, created_at)"
                " VALUES ('p-whole', 'restoration', 'whole', 30, '2026-01-01 00:00:00+00:00')"),
                "UPDATE wallet SET balance = balance + 30 WHERE user_id = 'whole'",
            ],
            [(WHOLE, "points")],
            id="a completed payment was given back",
        ),
        pytest.param(
            "point",
            [
                "DELETE FROM ledger_entry WHERE saga_id = 'p-queue' AND kind = 'restoration'",
                "UPDATE wallet SET balance = balance - 30 WHERE user_id = 'queue'",
            ],
            [("p-queue", "points")],
            id="a failed payment kept the points",
        ),
        pytest.param(
            "point",
            [
                "ALTER TABLE ledger_entry RENAME TO old",
                ("CREATE TABLE ledger_entry AS SELECT * FROM old UNION ALL"
                " SELECT 999, saga_id, kind, user_id, amount, created_at FROM old WHERE saga_id = 'p-whole'"),
                "UPDATE wallet SET balance = balance - 30 WHERE user_id = 'whole'",
            ],
            [(WHOLE, "points")],
            id="points were taken twice",
        ),
        pytest.param(
            "point",
            [
                "UPDATE ledger_entry SET amount = -29 WHERE saga_id = 'p-whole'",
                "UPDATE wallet SET balance = balance + 1 WHERE user_id = 'whole'",
            ],
            [(WHOLE, "amount")],
            id="the wrong number of points was taken",
        ),
        pytest.param(
            "point",
            [
                "UPDATE ledger_entry SET amount = 31 WHERE saga_id = 'p-queue' AND kind = 'restoration'",
                "UPDATE wallet SET balance = balance + 1 WHERE user_id = 'queue'",
            ],
            [("p-queue", "amount")],
            id="more was given back than taken",
        ),
        pytest.param(
            "point",
            [
                "UPDATE ledger_entry SET user_id = 'open' WHERE saga_id = 'p-whole'",
                "UPDATE wallet SET balance = balance + 30 WHERE user_id = 'whole'",
                "UPDATE wallet SET balance = balance - 30 WHERE user_id = 'open'",
            ],
            [(WHOLE, "owner")],
            id="somebody else paid",
        ),
        pytest.param(
            "payment", ["UPDATE payment SET state = 'CANCELLED' WHERE payment_id = 'p-whole'"],
            [(WHOLE, "payment")],
            id="a payment is cancelled although all else happened",
        ),
        pytest.param(
            "payment", ["UPDATE payment SET state = 'PAID' WHERE payment_id = 'p-whole'"], [(WHOLE, "stuck")],
            id="a payment never learned that it is complete",
        ),
        pytest.param(
            "payment", ["UPDATE payment SET state = 'PAID' WHERE payment_id = 'p-queue'"],
            [("p-queue", "payment")],
            id="an undone payment is still paid",
        ),
        pytest.param(
            "payment", ["DELETE FROM payment WHERE payment_id = 'p-whole'"], [(WHOLE, "payment")],
            id="a payment is gone",
        ),
        pytest.param(
            "payment",
            [
                "UPDATE saga_step SET state = 'done' WHERE saga_id = 'p-queue'",
                "UPDATE payment SET state = 'COMPLETED' WHERE payment_id = 'p-queue'",
            ],
            [("p-queue", "torn")],
            id="a payment is complete although its saga failed",
        ),
        pytest.param(
            "reservation",
            ["UPDATE reservation SET state = 'HELD', payment_id = NULL WHERE reservation_id = 'r-whole'"],
            [(WHOLE, "reservation")],
            id="a completed payment has no seat",
        ),
        pytest.param(
            "reservation",
            ["UPDATE reservation SET state = 'CONFIRMED', payment_id = 'p-queue' WHERE user_id = 'queue'"],
            [("p-queue", "reservation")],
            id="a failed payment has a seat",
        ),
        pytest.param(
            "reservation",
            ["UPDATE reservation SET state = 'CONFIRMED' WHERE reservation_id = 'r-queue'"],
            [("r-queue", "reservation")],
            id="a seat is sold to no payment",
        ),
        pytest.param(
            "reservation",
            ["UPDATE reservation SET price = 31 WHERE reservation_id = 'r-whole'"],
            [(WHOLE, "amount")],
            id="the price is another",
        ),
        pytest.param(
            "reservation",
            [
                "UPDATE reservation SET state = 'HELD', payment_id = NULL WHERE reservation_id = 'r-whole'",
                ("UPDATE reservation SET state = 'CONFIRMED', payment_id = 'p-whole', user_id = 'whole'"
                " WHERE reservation_id = 'r-queue'"),
            ],
            [(WHOLE, "owner")],
            id="the payment has another seat",
        ),
        pytest.param(
            "reservation", ["UPDATE seat SET reservation_id = NULL WHERE seat = 's-whole'"], [("s-whole", "seat")],
            id="a sold seat is free",
        ),
        pytest.param(
            "reservation",
            ["UPDATE reservation SET seat = 's-whole' WHERE reservation_id = 'r-point'",
             "DELETE FROM seat WHERE seat = 's-point'"],
            [("s-whole", "seat")],
            id="two hold one seat",
        ),
        pytest.param(
            "reservation", ["UPDATE reservation SET state = 'RELEASED' WHERE reservation_id = 'r-queue'"],
            [("s-queue", "seat")],
            id="a seat names a reservation that is released",
        ),
        pytest.param(
            "queue",
            ["UPDATE token SET state = 'ACTIVE', payment_id = NULL WHERE token = 't-whole'"],
            [(WHOLE, "token")],
            id="a completed payment left its token",
        ),
        pytest.param(
            "queue",
            ["UPDATE token SET state = 'EXPIRED', payment_id = 'p-point' WHERE token = 't-point'"],
            [("p-point", "token")],
            id="a failed payment used its token",
        ),
        pytest.param(
            "queue", ["UPDATE token SET state = 'EXPIRED' WHERE token = 't-point'"], [("t-point", "token")],
            id="a token is used up by no payment",
        ),
        pytest.param(
            "queue", ["UPDATE token SET user_id = 'open' WHERE token = 't-whole'"], [(WHOLE, "owner")],
            id="somebody else's token was used",
        ),
        pytest.param(
            "notify", ["UPDATE notice SET kind = 'failed' WHERE saga_id = 'p-whole'"], [(WHOLE, "notice")],
            id="a user was told the wrong ending",
        ),
        pytest.param(
            "notify", ["DELETE FROM notice WHERE saga_id = 'p-queue'"], [("p-queue", "notice")],
            id="a user was told nothing",
        ),
        pytest.param(
            "notify",
            ["UPDATE notice SET state = 'PENDING', due_at = '2026-01-01T00:00:00Z' WHERE user_id = 'whole'"],
            [(WHOLE, "stuck")],
            id="nobody sends the notice",
        ),
        pytest.param(
            "queue",
            ["UPDATE saga_step SET state = 'failed' WHERE saga_id = 'p-whole'",
             "UPDATE token SET state = 'ACTIVE', payment_id = NULL WHERE token = 't-whole'"],
            [(WHOLE, "torn"), (WHOLE, "torn")],
            id="the pivot failed under a completed payment",
        ),
        pytest.param(
            "notify",
            ["DELETE FROM saga_step WHERE saga_id = 'p-point'", "DELETE FROM notice WHERE saga_id = 'p-point'"],
            [("p-point", "stuck")],
            id="the user was never told of the failure",
        ),
        pytest.param(
            "point", ["UPDATE saga_step SET state = 'closed' WHERE saga_id = 'p-point'"], [("p-point", "torn")],
            id="all undone, and nobody failed",
        ),
        pytest.param(
            "notify",
            ["UPDATE saga_step SET state = 'closed' WHERE saga_id = 'p-whole'",
             "UPDATE notice SET kind = 'failed' WHERE saga_id = 'p-whole'"],
            [(WHOLE, "torn")],
            id="the user of a completed payment was told that it failed",
        ),
        pytest.param(
            "reservation",
            ["UPDATE saga_step SET state = 'failed' WHERE saga_id = 'p-point'"],
            [("p-point", "torn")],
            id="two services failed one saga",
        ),
        pytest.param(
            "queue",
            [
                (
                    "INSERT INTO outbox (id, key, type, body, traceparent, staged_at, due_at) VALUES"
                    " ('1', 'p-whole', 'queue.expired', '{}', '', '2026-01-01T00:00:00Z', '2026-01-01T00:00:00Z')"
                )
            ],
            [(WHOLE, "outbox")],
            id="an event was never published",
        ),
    ],
)  # fmt: skip
async def test_each_broken_rule_is_found_and_nothing_else(
    settled: Books, service: str, statements: list[str], expected: list[tuple[str, str]]
) -> None:
    """A finding must lead a person to what is wrong, not to what merely follows from it."""
    settled.spoil(service, *statements)
    assert await settled.rules() == expected


async def test_a_completed_payment_whose_reservation_is_undone_is_torn(settled: Books) -> None:
    """The promise of the whole system: a pivot that is past and a part that is undone cannot both be."""
    settled.spoil(
        "reservation",
        "UPDATE saga_step SET state = 'undone' WHERE saga_id = 'p-whole'",
        "UPDATE reservation SET state = 'HELD', payment_id = NULL WHERE reservation_id = 'r-whole'",
    )
    (violation,) = (await settled.audit()).violations
    assert str(violation) == "p-whole: torn: queue is done, but reservation is undone"


async def test_an_event_that_waits_to_be_published_is_under_way(settled: Books) -> None:
    """Between commit and confirm an event is in the outbox; that is a moment, not a fault."""
    now = datetime.now(UTC).isoformat(" ")
    settled.spoil(
        "payment",
        "INSERT INTO outbox (id, key, type, body, traceparent, staged_at, due_at)"
        f" VALUES ('1', '{WHOLE}', 'payment.completed', '{{}}', '', '{now}', '{now}')",
    )
    report = await settled.audit(after=timedelta(0))
    assert report.clean, report.violations
    assert [(it.saga_id, it.waits_for) for it in report.under_way] == [(WHOLE, ())]
    assert report.counts.unpublished == 1


async def test_what_looks_torn_only_in_passing_is_no_violation(
    settled: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The databases are read one after another: a saga that moves in between must not raise an alarm."""
    settled.spoil("reservation", "DELETE FROM saga_step WHERE saga_id = 'p-whole'")
    readings = 0
    pick = reading.Books.pick

    async def pick_later(self: reading.Books, ids: Iterable[str]) -> list[Saga]:
        nonlocal readings
        readings += 1
        return await pick(self, ids)

    monkeypatch.setattr(reading.Books, "pick", pick_later)
    sleeps: list[float] = []

    async def mend_meanwhile(seconds: float) -> None:
        sleeps.append(seconds)
        settled.spoil(
            "reservation",
            (
                "INSERT INTO saga_step SELECT 'p-whole', 'done', fingerprint, answer_type, answer, created_at,"
                " changed_at FROM saga_step LIMIT 1"
            ),
        )

    monkeypatch.setattr(asyncio, "sleep", mend_meanwhile)
    report = await audit(settled.urls, now=datetime.now(UTC), pause=timedelta(seconds=7))
    assert report.clean, report.violations
    assert (readings, sleeps, report.counts.completed) == (1, [7.0], 1)


async def test_what_is_wrong_is_read_three_times_before_it_is_told(
    settled: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice more and no oftener: a broken saga is told soon, and only when it is sure."""
    settled.spoil("payment", "UPDATE payment SET state = 'CANCELLED' WHERE payment_id = 'p-whole'")
    sleeps: list[float] = []

    async def note(seconds: float) -> None:
        sleeps.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    report = await audit(settled.urls, pause=timedelta(seconds=7))
    assert sleeps == [7.0, 7.0]
    assert [found.rule for found in report.violations] == ["payment"]


async def test_a_page_may_end_anywhere(settled: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million sagas are read in pages; no saga may lose a row to the edge between two."""
    for size in (1, 2, 3):
        monkeypatch.setattr(snapshots, "PAGE", size)
        report = await settled.audit()
        assert report.clean, report.violations
        assert report.counts.sagas == 5


@pytest.fixture
def held(books: Books) -> Iterator[sqlite3.Connection]:
    """A service in the middle of a transaction on its file."""
    with closing(sqlite3.connect(books.file("payment"), isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE payment SET state = 'CANCELLED'")
        yield connection


async def test_a_writing_service_and_the_audit_do_not_wait_for_each_other(
    books: Books, held: sqlite3.Connection
) -> None:
    """The audit may be run at any time, so it neither waits for a lock nor holds one."""
    async with asyncio.timeout(5):
        async with reading.open_books(books.urls) as open_books:
            seen = {it.id: it async for it in open_books.sagas()}
            held.execute("COMMIT")
            (again,) = await open_books.pick([WHOLE])
    states = [it.payment.state for it in (seen[WHOLE], again) if it.payment]
    assert states == ["COMPLETED", "COMPLETED"], "not one moment"


async def test_the_audit_cannot_write(books: Books) -> None:
    """Whoever audits must not be able to change what is audited."""
    async with reading.open_books(books.urls) as open_books:
        with pytest.raises(CannotLookError, match="readonly"):
            await open_books.select("payment", "DELETE FROM payment")


async def test_a_missing_database_is_not_made(books: Books) -> None:
    """An empty database that an auditor made by looking would hide that the real one is gone."""
    books.file("queue").unlink()
    with pytest.raises(CannotLookError, match="the queue database: there is no file"):
        await books.audit()
    assert not books.file("queue").exists()


async def test_a_file_that_is_no_database_of_a_service_cannot_be_audited(books: Books) -> None:
    """A wrong file must not pass as a clean one."""
    books.file("queue").write_bytes(b"")
    with pytest.raises(CannotLookError, match="the queue database: no such table"):
        await books.audit()


async def test_a_report_for_programs_says_everything(books: Books) -> None:
    """Alarms and dashboards read this, so its names are promises."""
    document = json.loads((await books.audit()).to_json())
    assert document["clean"] is False
    assert document["violations"][0].keys() == {"saga_id", "rule", "evidence"}
    assert document["counts"]["completed"] == 1
    assert datetime.fromisoformat(document["looked_at"]).tzinfo


def _leave(*arguments: str) -> object:
    """Run the `saga` command in this process; its exit code."""
    with pytest.raises(SystemExit) as left:
        run(list(arguments))
    return left.value.code


@pytest.mark.parametrize(("fixture", "code"), [("settled", 0), ("books", 1)])
def test_the_command_tells_by_its_exit_code(
    fixture: str, code: int, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Scripts ask by exit code, people read the lines; the databases come from the environment or the line."""
    books: Books = request.getfixturevalue(fixture)
    for service in ("payment", "reservation", "point"):
        monkeypatch.setenv(f"DATABASE_URL_{service.upper()}", books.urls[service])
    monkeypatch.setattr(look, "_PAUSE", timedelta(0))
    given = [f"--database={service}={books.urls[service]}" for service in ("queue", "notify")]
    # The books are seconds old: nothing in them is stuck yet, unless standing still is allowed for no time.
    assert _leave("audit", *given, "--stuck-after=0") == code
    told = capsys.readouterr().out
    assert ("clean: the five databases agree" in told) is (code == 0)
    assert ("violation: p-open: stuck: it waits for point" in told) is (code == 1)
    assert "\x1b" not in told


def test_the_command_says_what_it_cannot_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stack was ever started here: that is neither clean nor violated."""
    monkeypatch.setattr(where, "HOME", tmp_path)
    assert _leave("audit") == 2
    assert "could not look: the payment database: there is no file" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["payments=sqlite:///x", "payment", "payment="])
def test_the_command_refuses_a_database_of_nobody(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error must not audit another database than the one that was meant."""
    assert _leave("audit", "--database", given) == 2
    assert "is not SERVICE=URL" in capsys.readouterr().err


def test_the_command_and_the_services_agree_how_long_what_is_over_is_kept() -> None:
    """Else the audit would take what was forgotten for what was lost."""
    said = inspect.signature(commands.audit).parameters["retention_hours"].default
    assert timedelta(hours=said) == RETENTION
