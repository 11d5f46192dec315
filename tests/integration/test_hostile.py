"""What a hostile review found: faults of the world that once stopped, blinded or fooled a service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from aiohttp import web
from tortoise import connections

from common import bus, db, life, messages, runner, saga
from common.bus import Session
from common.channel import Publish
from common.consumer import Consumer, reading_messages
from common.life import Life
from common.messages import Message
from common.outbox import Confirmation, Confirmed, OutboxRow, Unconfirmed, Unroutable
from common.recovery import DONE, Outcome
from common.settings import Settings
from common.unit_of_work import Batch
from notify_svc import sender
from notify_svc.models import Notice
from payment_svc.models import Payment
from tests.support import bodies
from tests.support.bench import SERVICES, Bench, Databases, Opens, bench, failure, forward
from tests.support.databases import VENDOR, Server, Wire, ask, empty
from tests.support.eventually import eventually
from tests.support.hand_fed import HandFedInbox

TRACE = "0af7651916cd43dd8448eb211c80319c"
OVER_LIMIT = 1_000_000_000


# --- a database that goes at the worst moment


class TappedWire(Wire):
    """A wire to a server that listens: it breaks at a word of the client's, or falls silent."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.breaks_at = b""
        self.broken = 0
        self.is_silent = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back, writer), self._pass(there, writer, back))
        self._writers -= {writer, back}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, other: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.breaks_at and self.breaks_at in data:
                    self.breaks_at = b""
                    self.broken += 1
                    other.transport.abort()
                    break
                if not self.is_silent:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@pytest.fixture
async def tapped(server: Server, prepared: dict[str, str]) -> AsyncIterator[tuple[TappedWire, str]]:
    """A way to the payment service's database that listens, and the URL that leads over it."""
    await empty(prepared["payment"])
    parts = urlsplit(server.url)
    way = TappedWire(parts.hostname or "127.0.0.1", parts.port or 0)
    await way.mend()
    try:
        yield way, server.named(prepared["payment"].rpartition("/")[2], port=way.port)
    finally:
        await way.cut()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that looks for its lost database again and again, at once."""
    monkeypatch.setattr(life, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(life, "_LONGEST_WAIT", 0.01)


def pays(count: int, **changes: object) -> HandFedInbox:
    """An inbox with so many commands: p-0, p-1 and so on."""
    inbox = HandFedInbox("payment.commands")
    for number in range(count):
        inbox.deliver("payment.pay", bodies.command(f"p-{number}", **changes))
    return inbox


#: What a client says before it writes, and at the end of it.
_WORDS = {
    "postgres": {"before": b'"payment_id":"p-2"', "after": b"SELECT 1\x00"},
    "mariadb": {"before": b"INSERT INTO `payment`", "after": b"COMMIT"},
}


@pytest.mark.server_only
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connection_lost_while_it_writes_leaves_no_dead_unit(
    tapped: tuple[TappedWire, str], moment: str
) -> None:
    """Nobody knows whether it was written; it is done again, and the task must not stay in what is over."""
    way, url = tapped
    word = _WORDS[VENDOR][moment]
    async with bench("payment", url) as payment:
        assert await payment.do(forward("payment")) == [DONE]
        way.breaks_at = word
        async with asyncio.timeout(20):
            assert await payment.do(forward("payment", "p-2")) == [DONE]
            assert way.broken == 1, "the test has missed its moment"
            assert await payment.do(forward("payment", "p-3")) == [DONE]
        assert await Payment.all().count() == 3
        assert payment.life.health.database == "ok"


@pytest.mark.server_only
@pytest.mark.usefixtures("impatient")
async def test_a_database_that_falls_silent_is_noticed_and_costs_no_attempt(
    tapped: tuple[TappedWire, str],
) -> None:
    """A pulled cable says nothing: without a limit a statement would wait for the operating system's hours."""
    way, url = tapped
    async with bench("payment", f"{url}?command_timeout=1") as payment:
        assert await payment.do(forward("payment", "p-9")) == [DONE]
        way.is_silent = True
        inbox = pays(3)
        working = asyncio.create_task(payment.consume(inbox))
        await eventually(lambda: payment.life.health.database not in {"ok", "opening"}, seconds=15)
        assert "TimeoutError" in payment.life.health.database
        # The machine at the other end is gone, with all it knew; another one answers now.
        await way.cut()
        way.is_silent = False
        await way.mend()
        async with asyncio.timeout(30):
            session = await working
        assert session.copies == []
        assert inbox.acked == {1, 2, 3}
        assert await Payment.all().count() == 4


@pytest.mark.postgres_only
async def test_a_statement_that_took_too_long_is_cancelled_and_its_connection_thrown_away(
    tapped: tuple[TappedWire, str],
) -> None:
    """Nobody waits until the server has obeyed, for it may be gone; but one that is there is told to stop."""
    _, url = tapped
    running = "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(299)%' AND pid <> pg_backend_pid()"

    async def is_running() -> bool:
        return bool(await connections.get("default").execute_query_dict(running))

    async with bench("payment", f"{url}?command_timeout=1"):
        for within in (db.unit, contextlib.nullcontext):
            with pytest.raises(TimeoutError):
                async with within():
                    await connections.get("default").execute_query_dict("SELECT pg_sleep(299)")
            await eventually(lambda: _is_not(is_running), seconds=20)


@pytest.mark.server_only
@pytest.mark.usefixtures("payment")
async def test_a_chore_that_is_cancelled_in_the_middle_of_a_statement_ends() -> None:
    """A lost broker ends a session and its chores: one that took its own end for an outage went on for ever."""

    async def asleep() -> None:
        sleep = {"postgres": "SELECT pg_sleep(99)", "mysql": "SELECT SLEEP(99)"}
        connection = connections.get("default")
        await connection.execute_query_dict(sleep[connection.capabilities.dialect])

    for _ in range(20):
        sleeping = asyncio.create_task(life.patiently(Life("payment"), asleep))
        await asyncio.sleep(0.01)  # any moment of it will do
        sleeping.cancel()
        done, _ = await asyncio.wait({sleeping}, timeout=10)
        assert done
        assert sleeping.cancelled()


async def _is_not(check: Callable[[], Awaitable[bool]]) -> bool:
    return not await check()


def test_a_statement_has_a_limit_unless_the_url_sets_another() -> None:
    """Nobody thinks of it before the cable is pulled."""

    def limit(url: str) -> str:
        service = SERVICES["payment"]
        connection = db.configuration(url, service.modules, service.migrations)["connections"]["default"]
        return str(connection["credentials"]["command_timeout"])

    for vendor in ("postgres", "mariadb"):
        assert limit(f"{vendor}://u:p@host/name") == "30"
        assert limit(f"{vendor}://u:p@host/name?command_timeout=1") == "1"


# --- work that breaks its own connection


_BREAK = (
    "CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$"
)
_BREAKS = "CREATE TRIGGER break_it BEFORE INSERT ON payment FOR EACH ROW "
#: How a row is made that kills the connection which writes it, and how that is taken back.
_BREAKING = {
    "postgres": (
        [_BREAK, f"{_BREAKS}WHEN (NEW.payment_id = 'p-3') EXECUTE FUNCTION break_it()"],
        ["DROP FUNCTION break_it CASCADE"],
    ),
    "mariadb": (
        [f"{_BREAKS}IF NEW.payment_id = 'p-3' THEN KILL CONNECTION_ID(); END IF"],
        ["DROP TRIGGER break_it"],
    ),
}


@pytest.mark.server_only
@pytest.mark.usefixtures("impatient")
async def test_work_that_breaks_its_own_connection_is_found_out_and_its_neighbours_are_done(
    payment: Bench,
) -> None:
    """It looks like an outage, to every batch it is in: waited for, it would stop the service for ever."""
    make, drop = _BREAKING[VENDOR]
    await ask(payment.url, *make)
    try:
        inbox = pays(8)
        async with asyncio.timeout(60):
            session = await payment.consume(inbox)
    finally:
        await ask(payment.url, *drop)
    assert session.told() == [("payment.retry.1s", "error")]
    (copy,) = session.copies
    assert "StillThereError" in str(copy.headers["x-detail"])
    assert b'"p-3"' in copy.delivery.body
    assert inbox.acked == set(range(1, 9))
    done = {row.payment_id for row in await Payment.all()}
    assert done == {f"p-{number}" for number in range(8)} - {"p-3"}
    assert payment.life.health.database == "ok"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset by peer"),
        TimeoutError(),
        asyncpg.InterfaceError("the connection is closed"),
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.AdminShutdownError("terminating connection"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("impatient")
async def test_work_that_looks_like_an_outage_while_the_database_answers_is_tried_like_any_other(
    payment: Bench, error: Exception
) -> None:
    """Whatever name the driver has for a lost connection; each attempt counts, and the last one ends the saga."""

    async def breaking(batch: Batch[Message]) -> list[Outcome]:
        if any(message.key == "p-1" for message in batch.messages):
            raise error
        return await payment.service.handle(batch)

    inbox = pays(3)
    async with asyncio.timeout(60):
        session = await payment.consume(inbox, handle=breaking)
    assert session.told() == [("payment.retry.1s", "error")]
    assert session.copies[0].headers["x-attempt"] == 1
    assert inbox.acked == {1, 2, 3}
    assert {row.payment_id for row in await Payment.all()} == {"p-0", "p-2"}


@pytest.mark.server_only
@pytest.mark.usefixtures("impatient")
async def test_a_real_outage_burns_no_attempt_however_long_it_lasts(
    tapped: tuple[TappedWire, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side of the same look: where nobody answers, nobody's work is to blame."""
    way, url = tapped
    asked: list[bool] = []
    answers = db.answers

    async def counted() -> bool:
        asked.append(await answers())
        return asked[-1]

    monkeypatch.setattr(db, "answers", counted)
    async with bench("payment", url) as payment:
        assert await payment.do(forward("payment", "p-9")) == [DONE]
        await way.cut()
        inbox = pays(3)
        working = asyncio.create_task(payment.consume(inbox))
        await eventually(lambda: len(asked) > 3 * life._BENEFIT_OF_THE_DOUBT or working.done(), seconds=20)
        assert not working.done()
        assert not any(asked)
        await way.mend()
        async with asyncio.timeout(30):
            session = await working
        assert session.copies == []
        assert inbox.acked == {1, 2, 3}
        assert await Payment.all().count() == 4


@pytest.mark.sqlite_only
@pytest.mark.parametrize("pragma", ["max_page_count", "query_only"])
@pytest.mark.usefixtures("impatient")
async def test_a_full_or_read_only_disk_is_waited_for_without_an_attempt(payment: Bench, pragma: str) -> None:
    """It answers every question and takes nothing: still the messages wait until a person has made room."""
    connection = connections.get("default")
    is_mended = {"max_page_count": 1_000_000, "query_only": 0}[pragma]
    # One page is far less than the file has by now; SQLite takes it for "no more than there are".
    await connection.execute_query(f"PRAGMA {pragma} = 1")
    runs = 0

    async def counted(batch: Batch[Message]) -> list[Outcome]:
        nonlocal runs
        runs += 1
        return await payment.service.handle(batch)

    inbox = pays(200)
    working = asyncio.create_task(payment.consume(inbox, handle=counted))
    await eventually(lambda: runs > 3 * life._BENEFIT_OF_THE_DOUBT or working.done(), seconds=20)
    assert not working.done()
    assert payment.life.health.database not in {"ok", "opening"}
    await connection.execute_query(f"PRAGMA {pragma} = {is_mended}")
    async with asyncio.timeout(20):
        session = await working
    assert session.copies == []
    assert inbox.acked == set(range(1, 201))
    assert await Payment.all().count() == 200


# --- copies that are refused, and copies that are many


class FakeChannel:
    """A channel for copies: notes what is published together, and answers as it is told to."""

    def __init__(self, answer: Confirmation | Exception = Confirmed()) -> None:  # noqa: B008 - a value
        self.windows: list[list[Publish]] = []
        self._answer = answer

    async def publish(self, copies: Sequence[Publish]) -> list[Confirmation]:
        """Take copies that are published at once."""
        self.windows.append(list(copies))
        if isinstance(self._answer, Exception):
            raise self._answer
        return [Confirmed()] * (len(copies) - 1) + [self._answer]


def session_over(channel: FakeChannel) -> Session:
    """A session whose copies go to this channel."""
    session = Session("payment", "saga-payment")
    session._copies = channel  # type: ignore[assignment]
    return session


def consumer_of(payment: Bench, session: Session) -> Consumer[Message]:
    """The payment service's consumer in this session."""
    settings = Settings()
    return Consumer(
        session, settings, payment.unit_of_work, payment.relay,
        reading_messages(settings), payment.service.handle, payment.observers,
    )  # fmt: skip


async def test_two_hundred_refusals_are_copied_at_once_and_not_one_after_the_other(payment: Bench) -> None:
    """A burst of refused payments costs one way to the broker and back, not two hundred."""
    channel = FakeChannel()
    inbox = pays(200, amount=OVER_LIMIT)
    await consumer_of(payment, session_over(channel))._work(inbox, inbox.take(200))
    (window,) = channel.windows
    assert {(copy.exchange, copy.routing_key, copy.mandatory) for copy in window} == {
        ("saga.recovery", "payment.dead", True)
    }
    assert len({copy.properties.message_id for copy in window}) == 200
    assert inbox.acked == set(range(1, 201))


@pytest.mark.parametrize(
    "answer",
    [
        Unroutable(),
        Unconfirmed("a queue is full"),
        ConnectionResetError("reset by peer"),
        KeyError("something nobody thought of"),
    ],
    ids=["returned", "refused", "lost", "anything"],
)
async def test_a_copy_that_is_not_taken_ends_the_session_and_acks_nothing(
    payment: Bench, answer: Confirmation | Exception
) -> None:
    """The originals are delivered to the next session; this one must not go on as if they were settled."""
    session = session_over(FakeChannel(answer))
    inbox = pays(3, amount=OVER_LIMIT)
    consumer = consumer_of(payment, session)
    consumer._inboxes.append(inbox)
    async with asyncio.timeout(20):
        await consumer.run()
        why = await session.ended()
    assert session.is_over
    assert why
    assert inbox.acked == set()


# --- a broker that vanishes while a session is opened


async def test_whatever_opening_a_session_raises_the_service_tries_again(
    database: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dying connection raises a bare Exception, even CancelledError; only a real cancellation is one."""
    errors = iter([Exception("bare"), asyncio.CancelledError(), KeyError("x"), TimeoutError(), OSError("gone")])
    tries: list[str] = []

    @contextlib.asynccontextmanager
    async def vanishing(url: str, service: str) -> AsyncIterator[Session]:
        tries.append(f"{url} {service}")
        if (error := next(errors, None)) is not None:
            raise error
        await asyncio.Event().wait()
        yield Session(service, "nobody")

    monkeypatch.setattr(bus, "open_session", vanishing)
    monkeypatch.setattr(runner, "_LONGEST_WAIT", 0.01)
    stays = Life("payment")
    settings = Settings(database_url=database("payment"))
    running = asyncio.create_task(runner.run(SERVICES["payment"], settings, stays))
    await eventually(lambda: len(tries) == 6 or running.done(), seconds=10)
    assert not running.done()
    assert stays.health.broker.startswith("OSError")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- messages that came the wrong way


@pytest.mark.parametrize("name", saga.SERVICES)
async def test_what_is_not_a_services_own_is_parked_and_nothing_fails(opened: Opens, name: str) -> None:
    """A wrong binding, or a CC header, brings somebody else's step: doing or failing it would harm a stranger."""
    others = sorted(key for key in messages.TYPES if not saga.takes(name, key))
    assert len(others) > 10
    async with opened(name) as service:
        held = await service.holds()
        inbox = HandFedInbox(f"{name}.events")
        for key in others:
            inbox.deliver(key, bodies.valid(key))
        session = await service.consume(inbox)
        assert session.told() == [(f"{name}.parked", "not_ours")] * len(others)
        assert [copy.headers["x-type"] for copy in session.copies] == others
        assert len(inbox.acked) == len(others)
        assert await service.holds() == held
        assert await service.said() == []


@pytest.mark.parametrize("reason", ["expired", "delivery_limit", "rejected", "maxlen"])
@pytest.mark.parametrize("key", ["queue.expired", "payment.paid", "nothing.known", "payment.return"])
async def test_a_dead_letter_with_a_forged_past_is_parked_at_once(payment: Bench, key: str, reason: str) -> None:
    """Who may publish commands lets one expire with an `x-death` of its own making, to have an event believed."""
    await payment.do(forward("payment"))
    await payment.events()
    held = await payment.holds()
    death = {"queue": "payment.commands", "reason": reason, "count": 2, "routing-keys": [key]}
    past = {"x-death": [death], "x-type": key, "x-reason": "crash_guard", "x-attempt": 3}
    undertaker = HandFedInbox("payment.dead")
    undertaker.deliver("payment.dead", bodies.forward("queue.expired"), headers=past, user_id="somebody")
    session = await payment.consume(undertaker)
    assert session.told() == [("payment.parked", "unknown_origin")]
    assert undertaker.acked == {1}
    assert await payment.holds() == held
    assert await payment.said() == []


# --- the trace of a failure


NONSENSE: dict[str, object] = {
    "overlong": "00-" + "a" * 10_000,
    "longer-by-one": f"00-{TRACE}-b7ad6b7169203331-010",
    "line-break": f"00-{TRACE}-b7ad6b7169203331-01\n",
    "upper-case": f"00-{TRACE.upper()}-B7AD6B7169203331-01",
    "no-trace": f"00-{'0' * 32}-b7ad6b7169203331-01",
    "no-span": f"00-{TRACE}-{'0' * 16}-01",
    "other-digits": f"00-{TRACE[:-1]}\u0663-b7ad6b7169203331-01",
    "empty": "",
    "number": 7,
    "bytes": bytearray(b"\xff\xfe"),
    "table": {"a": [1]},
    "nothing": None,
}


async def emitted_traces() -> dict[str, list[str]]:
    """The trace contexts of what is staged, by type, each in its parts."""
    return {row.type: row.traceparent.split("-") for row in await OutboxRow.all()}


@pytest.mark.parametrize("trace", NONSENSE)
async def test_a_nonsense_trace_on_a_failure_is_ignored_and_the_notice_is_written(
    notify: Bench, trace: str
) -> None:
    """It is stored with the notice: too long for its column, it would keep the user from ever being told."""
    inbox = HandFedInbox("notify.events")
    inbox.deliver("queue.failed", bodies.failure(), headers={"traceparent": NONSENSE[trace]})
    assert (await notify.consume(inbox)).copies == []
    assert (await Notice.get(saga_id="p-1")).traceparent is None
    await sender.deliver(Life("notify"), notify.unit_of_work, sender.to_log, notify.observers)
    version, fresh, span, flags = (await emitted_traces())["notification.sent"]
    assert (version, len(fresh), len(span), flags) == ("00", 32, 16, "01")
    assert fresh != TRACE


async def test_a_valid_trace_on_a_failure_is_passed_on_to_the_notice(notify: Bench) -> None:
    """Whoever looks for why a user was told finds it in one trace; the notice goes out much later."""
    inbox = HandFedInbox("notify.events")
    inbox.deliver("queue.failed", bodies.failure(), headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    assert (await notify.consume(inbox)).copies == []
    await sender.deliver(Life("notify"), notify.unit_of_work, sender.to_log, notify.observers)
    _, same, span, _ = (await emitted_traces())["notification.sent"]
    assert same == TRACE
    assert span != "b7ad6b7169203331"


@pytest.mark.parametrize(("header", "is_kept"), [(f"00-{TRACE}-b7ad6b7169203331-01", True), ("x" * 100, False)])
async def test_a_compensation_is_in_the_trace_of_its_failure(
    payment: Bench, header: str, *, is_kept: bool
) -> None:
    """And one of nonsense is compensated all the same."""
    await payment.do(forward("payment"))
    await payment.events()
    inbox = HandFedInbox("payment.events")
    inbox.deliver("queue.failed", bodies.failure(), headers={"traceparent": header})
    assert (await payment.consume(inbox)).copies == []
    assert await payment.state() == "undone"
    assert ((await emitted_traces())["payment.cancelled"][1] == TRACE) is is_kept


# --- notices through Apprise


#: Apprise's mail plugin looks for a module that Python 3.11 and 3.12 call old; later ones have it no more.
APPRISE = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


class Webhook:
    """A small web server that keeps what is posted to it."""

    def __init__(self, *statuses: int) -> None:
        self.posted: list[dict[str, Any]] = []
        self.url = ""
        self._statuses: Iterator[int] = iter(statuses)

    async def take(self, request: web.Request) -> web.Response:
        """Take one post: answer with the next status that was asked for, 200 when there are no more."""
        self.posted.append(await request.json())
        return web.Response(status=next(self._statuses, 200))


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Webhook], Any]]:
    """A way to let webhooks listen until the test is over."""
    async with contextlib.AsyncExitStack() as stack:

        async def listen(webhook: Webhook) -> Webhook:
            application = web.Application()
            application.router.add_post("/", webhook.take)
            server = web.AppRunner(application, access_log=None)
            await server.setup()
            stack.push_async_callback(server.cleanup)
            await web.TCPSite(server, "127.0.0.1", 0).start()
            webhook.url = f"json://127.0.0.1:{server.addresses[0][1]}/"
            return webhook

        yield listen


def told(webhook: Webhook) -> Sequence[tuple[str, str]]:
    """Title and text of what was posted, in an order of its own."""
    return sorted((post["title"], post["message"]) for post in webhook.posted)


@APPRISE
async def test_notices_go_out_through_apprise_word_for_word(
    notify: Bench, serve: Callable[[Webhook], Any]
) -> None:
    """What the user reads is what the rules say: nothing is escaped, cut or understood as markup on the way."""
    one, two = await serve(Webhook()), await serve(Webhook())
    odd = r"*no* <b>points</b> &amp; \n {left} % \u00fc: ü 漢 _a_"
    await notify.do(forward("notify"), failure("p-2", detail=odd))
    channel = sender.to_urls((one.url, two.url))
    assert await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers) == 2
    expected = [
        (
            "Concert payment completed",
            "Your seat is confirmed: payment p-1, reservation r-1, 30 points.",
        ),
        ("Concert payment failed", f"Payment p-2 was not made: {odd}. Nothing was charged."),
    ]
    assert told(one) == expected
    assert told(two) == expected
    assert {notice.state for notice in await Notice.all()} == {"SENT"}
    assert await notify.said() == ["notification.sent"] * 2


@APPRISE
async def test_a_notice_that_apprise_cannot_deliver_is_tried_again(
    notify: Bench, serve: Callable[[Webhook], Any]
) -> None:
    """Apprise tells it by a value and not by an exception; taken for a success, nobody would ever be told."""
    webhook = await serve(Webhook(500))
    await notify.do(forward("notify"))
    channel = sender.to_urls((webhook.url,))
    await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers)
    notice = await Notice.get(saga_id="p-1")
    assert (notice.state, notice.attempts) == ("PENDING", 1)
    assert await notify.said() == []
    notice.due_at = notice.due_at.replace(year=2020)
    await notice.save()
    await sender.deliver(Life("notify"), notify.unit_of_work, channel, notify.observers)
    assert (await Notice.get(saga_id="p-1")).state == "SENT"
    assert len(webhook.posted) == 2
    assert await notify.said() == ["notification.sent"]
