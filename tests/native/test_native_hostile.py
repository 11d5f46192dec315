"""What a hostile review found, on a real broker: strangers' bytes, a broker that goes, a channel that is slow."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aio_pika.exceptions import DeliveryError
from aiohttp import web

from common import saga
from common.messages import Body, Enter, Hold, TopUp
from tests.support.eventually import eventually
from tests.support.raw_client import raw, short
from tests.support.saga import Heard, Theatre, Visit, depth, soon, theatre, visit
from tools.broker import Broker, PrivateBroker
from tools.stack import ROOT

pytestmark = pytest.mark.broker


# --- bytes that no client library would send


def long(value: bytes) -> bytes:
    """AMQP's long string; and a table or an array, whose length is told alike."""
    return struct.pack(">I", len(value)) + value


def header(name: bytes, kind: bytes, value: bytes) -> bytes:
    """One entry of a table of headers."""
    return short(name) + kind + value


def nested(levels: int) -> bytes:
    """An array in an array in an array."""
    inside = b""
    for _ in range(levels):
        inside = b"A" + long(inside)
    return inside


TYPE, ENCODING, HEADERS, CORRELATION, MESSAGE_ID, TIMESTAMP = 1 << 15, 1 << 14, 1 << 13, 1 << 10, 1 << 7, 1 << 6
_FAR = struct.pack(">Q", 2**62)

#: What cannot be read, and the reason under which it is parked.
UNREADABLE: dict[str, tuple[int, bytes, str]] = {
    "header-time": (HEADERS, long(header(b"when", b"T", _FAR)), "done"),
    "header-time-deep": (HEADERS, long(header(b"a", b"F", long(header(b"b", b"T", _FAR)))), "done"),
    "header-time-in-array": (HEADERS, long(header(b"a", b"A", long(b"T" + _FAR))), "done"),
    "header-name": (HEADERS, long(header(b"\xff\xfe", b"t", b"\1")), "bad_headers"),
    "header-text": (HEADERS, long(header(b"a", b"S", long(b"\xff\xfe"))), "done"),
    "header-depth": (HEADERS, long(header(b"a", b"A", nested(3000)[1:])), "bad_headers"),
    "forged-mark": (HEADERS, long(header(b"x-unreadable", b"t", b"\1")), "bad_headers"),
    "content-type": (TYPE, short(b"\xff\xfe"), "wrong_content_type"),
    "content-type-255": (TYPE, short(b"\xff" * 255), "wrong_content_type"),
    "content-encoding": (ENCODING, short(b"\xff" * 255), "wrong_content_encoding"),
    "correlation-id": (CORRELATION, short(b"\xff" * 255), "done"),
    "message-id": (MESSAGE_ID, short(b"\xff\xfe"), "done"),
    "timestamp": (TIMESTAMP, _FAR, "done"),
    "all-at-once": (
        TYPE | ENCODING | HEADERS | CORRELATION | MESSAGE_ID | TIMESTAMP,
        short(b"\xff" * 255)
        + short(b"\xfe" * 255)
        + long(header(b"when", b"T", _FAR))
        + short(b"\xff" * 255)
        + short(b"\xff")
        + _FAR,
        "wrong_content_type",
    ),
}


@pytest.fixture
def paydesk(node: PrivateBroker, tmp_path: Path) -> Iterator[Theatre]:
    """The first service alone; what it does not know it gives up on soon."""
    with theatre(node, tmp_path, UNKNOWN_TYPE_HOURS="0.0001") as opened:
        opened.start("payment")
        yield opened


def sessions(house: Theatre, service: str) -> int:
    """How many sessions with the broker a service has begun to serve."""
    return house.stack.log(service).read_text().count("taking messages")


async def test_unreadable_properties_are_parked_for_their_reason_in_the_session_that_met_them(
    paydesk: Theatre,
) -> None:
    """They once closed the connection, again and again: now no session is lost, neighbours are done."""
    async with visit(paydesk) as here:
        good = [here.pay() for _ in UNREADABLE]
        odd = {name: here.pay() for name in UNREADABLE}

        def publish() -> None:
            with raw(paydesk.broker) as client:
                for neighbour, (name, (flags, properties, _)) in zip(good, UNREADABLE.items(), strict=True):
                    client.publish(b"payment.pay", odd[name].encode().encode(), flags, properties)
                    client.publish(b"payment.pay", neighbour.encode().encode())

        await asyncio.to_thread(publish)
        for pay in good:
            await here.hears(pay.payment_id, "payment.paid")
        for name, (_, _, reason) in UNREADABLE.items():
            if reason == "done":
                await here.hears(odd[name].payment_id, "payment.paid")
                assert here.copy(odd[name].payment_id, "payment.parked") is None, name
            else:
                parked = await here.recovers(odd[name].payment_id, "payment.parked")
                assert parked.headers["x-reason"] == reason, (name, parked.headers)
                assert parked.headers["x-type"] == "payment.pay"
                assert here.event(odd[name].payment_id, "payment.paid") is None, name
        await eventually(lambda: _is_empty(paydesk, "payment.commands"))
        assert sessions(paydesk, "payment") == 1


async def _is_empty(house: Theatre, queue: str) -> bool:
    return await depth(house, queue) == 0


@pytest.mark.parametrize(
    "key", [b"\xff\xfe.failed", b"\xff" * 248 + b".failed", b"\x1b[31m\n.failed"], ids=["bytes", "long", "escape"]
)
async def test_a_routing_key_that_is_no_text_is_retried_as_unknown_and_then_parked(
    paydesk: Theatre, key: bytes
) -> None:
    """The broker binds and routes bytes: `*.failed` lets them in, and every service has to read them."""
    async with visit(paydesk) as here:
        mark, pay = f"{here.mark}-stray", here.pay()
        body = json.dumps({"payment_id": mark}).encode()

        def publish() -> None:
            with raw(paydesk.broker) as client:
                client.publish(key, body)

        await asyncio.to_thread(publish)
        await here.send(pay)
        await here.hears(pay.payment_id, "payment.paid")
        retried = await here.recovers(mark, "payment.retry.400ms")
        assert retried.headers["x-reason"] == "unknown_type"
        parked = await here.recovers(mark, "payment.parked")
        assert parked.headers["x-reason"] == "unknown_type"
        assert parked.headers["x-detail"].isprintable()
        assert parked.headers["x-type"] == key.decode(errors="replace")[:255]
        assert sessions(paydesk, "payment") == 1


# --- copies that the broker does not take


def holds_of(here: Visit, count: int) -> list[Body]:
    """Good commands for seats that nobody has."""
    return [here.hold_of(here.pay()) for _ in range(count)]


async def test_a_copy_that_has_nowhere_to_go_makes_the_service_mend_its_queues(house: Theatre) -> None:
    """Somebody deletes the parked queue: a new session declares it anew, and nothing is lost in between."""
    # Nobody may observe the copies here: an observer's queue would take them, and none would be returned.
    mark = f"mending-{uuid.uuid4().hex[:8]}"
    before = sessions(house, "reservation")
    house.api("DELETE", "/api/queues/{v}/reservation.parked")
    good = [
        Hold(reservation_id=f"{mark}-{number}", user_id="ann", seat=f"{mark}-{number}", price=5)
        for number in range(10)
    ]

    def publish() -> None:
        with raw(house.broker) as client:
            client.publish(b"reservation.hold", json.dumps({"reservation_id": mark, "price": 1.5}).encode())
            for hold in good:
                client.publish(b"reservation.hold", hold.encode().encode())

    await asyncio.to_thread(publish)
    await eventually(lambda: [letter for letter in house.peek("reservation.parked") if mark in letter["payload"]])
    await eventually(lambda: _is_empty(house, "reservation.commands"))
    held = "SELECT count(*) FROM reservation WHERE state = 'HELD' AND reservation_id LIKE ?"
    await eventually(lambda: house.rows("reservation", held, f"{mark}-%") == [(10,)])
    assert sessions(house, "reservation") > before
    assert "Traceback" not in house.stack.log("reservation").read_text()


async def test_a_copy_that_is_refused_is_not_lost_and_its_neighbours_are_done(here: Visit, house: Theatre) -> None:
    """A parked queue that takes no more must not swallow what it is given, nor stop what is good."""
    policy = {
        "pattern": r"^reservation\.parked$",
        "definition": {"max-length": 1, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    before = sessions(house, "reservation")
    house.api("PUT", "/api/policies/{v}/full", policy)
    mark = f"{here.mark}-malformed"
    try:

        async def is_full() -> bool:
            try:
                await here.publish("reservation.parked", b"filler", exchange="saga.recovery")
            except DeliveryError:
                return True
            return False

        await eventually(is_full)
        await here.publish("reservation.hold", json.dumps({"reservation_id": mark, "price": 1.5}).encode())
        answers = await here.ask(*holds_of(here, 10))
        assert {answer.key for answer in answers} == {"reservation.held"}
        await eventually(lambda: sessions(house, "reservation") > before)
        assert not any(mark in letter["payload"] for letter in house.peek("reservation.parked"))
    finally:
        house.api("DELETE", "/api/policies/{v}/full")
    await eventually(lambda: [letter for letter in house.peek("reservation.parked") if mark in letter["payload"]])
    await eventually(lambda: _is_empty(house, "reservation.commands"))


async def test_a_queue_of_commands_that_is_full_in_bytes_refuses_and_tells_its_publisher(
    here: Visit, house: Theatre
) -> None:
    """A consumer counts what it prefetches in messages, and pays for it in memory: huge ones are kept out."""
    queues = house.api("GET", "/api/queues/{v}?columns=name,arguments")
    arguments = {queue["name"]: queue["arguments"] for queue in queues}
    for service in saga.SERVICES:
        if saga.command_keys(service):
            told = arguments[f"{service}.commands"]
            assert told["x-max-length-bytes"] == 256 * 1024 * 1024
            assert told["x-overflow"] == "reject-publish"
        assert "x-max-length-bytes" not in arguments[f"{service}.events"]
    # The smaller of argument and policy counts; the way it refuses is the argument's.
    policy = {"pattern": r"^queue\.commands$", "definition": {"max-length-bytes": 100_000}, "apply-to": "queues"}
    assert not house.stack.stop("queue")
    house.api("PUT", "/api/policies/{v}/small", policy)
    huge, tokens = [], [Enter(token=f"{here.mark}-{n}", user_id="ann") for n in range(3)]
    try:

        async def is_refused() -> bool:
            try:
                await here.publish("queue.enter", b"x" * 50_000, correlation_id=f"{here.mark}-huge")
            except DeliveryError:
                return True
            huge.append(1)
            return False

        await eventually(is_refused)
        assert huge
    finally:
        house.api("DELETE", "/api/policies/{v}/small")
        house.start("queue", sabotaged=True)
    answers = await here.ask(*tokens)
    assert {answer.key for answer in answers} == {"queue.entered"}


# --- messages that came the wrong way


@pytest.mark.parametrize("header_name", ["CC", "BCC"])
async def test_a_message_sent_on_to_another_service_by_cc_fails_nothing(here: Visit, header_name: str) -> None:
    """CC goes around the permissions on routing keys: the other service sets it aside, and no saga notices."""
    (pay,) = await here.paying()
    await here.publish(saga.FIRST.on, pay, headers={header_name: ["payment.paid", "reservation.confirmed"]})
    for service in ("reservation", "point"):
        parked = await here.recovers(pay.payment_id, f"{service}.parked")
        assert parked.headers["x-reason"] == "not_ours"
        assert parked.headers["x-type"] == saga.FIRST.on
    await here.completed(pay)
    assert not [key for key in here.events(pay.payment_id) if key.endswith(".failed")]


async def test_a_wrong_binding_sets_messages_aside_and_fails_nothing(here: Visit, house: Theatre) -> None:
    """One slip in the management UI must not make a service do, or fail, the steps of others."""
    pays = await here.paying(3)
    wrong = "/api/bindings/{v}/e/saga.events/q/point.events"
    house.api("POST", wrong, {"routing_key": "point.deducted"})
    try:
        await here.send(*pays)
        await here.completed(*pays)
        for pay in pays:
            parked = await here.recovers(pay.payment_id, "point.parked")
            assert (parked.headers["x-reason"], parked.headers["x-type"]) == ("not_ours", "point.deducted")
            assert not [key for key in here.events(pay.payment_id) if key.endswith(".failed")]
    finally:
        house.api("DELETE", f"{wrong}/point.deducted")


@pytest.mark.parametrize("reason", ["expired", "delivery_limit"])
async def test_a_command_that_expires_with_a_forged_past_is_parked_at_once(
    here: Visit, house: Theatre, reason: str
) -> None:
    """The broker itself carries the forgery to the dead letters; the payment it would complete is not touched."""
    (pay,) = await here.paying()
    when = {"expires_at": soon(600), "paid_at": soon(-1), "expired_at": soon(-1)}
    body = pay.model_dump(mode="json") | {name: moment.isoformat() for name, moment in when.items()}
    death = {"queue": "payment.commands", "reason": reason, "count": 1, "exchange": "saga.events"}
    forged = {"x-death": [death | {"routing-keys": ["queue.expired"]}]}
    assert not house.stack.stop("payment")
    try:
        await here.publish("payment.pay", json.dumps(body).encode(), headers=forged, expiration=0.05)
        await here.recovers(pay.payment_id, "payment.dead")
    finally:
        house.start("payment", sabotaged=True, ready=False)

    def set_aside() -> list[Heard]:
        return [copy for copy in here.copies if copy.id == pay.payment_id and "x-reason" in copy.headers]

    first = (await eventually(set_aside))[0]
    assert "x-type" in first.headers
    assert first.headers["x-type"] != "queue.expired"
    if reason == "expired":
        # Only an entry of the same kind is counted on instead of being put under a new one of the broker's own.
        assert (first.key, first.headers["x-reason"]) == ("payment.parked", "unknown_origin")
    assert here.states(pay.payment_id)["payment"] is None
    assert "payment.completed" not in here.events(pay.payment_id)
    await here.send(pay)
    await here.completed(pay)


# --- a broker that goes while it is being reached


class Doorway:
    """A way to the broker that lets so many bytes of each connection's answers through, and no more."""

    def __init__(self, broker: Broker) -> None:
        address = urlsplit(broker.amqp_url)
        self._target = (str(address.hostname), int(address.port or 0))
        self.limits: Iterator[int | None] = iter(())
        self.is_silent = False
        self.passed = 0
        self._inside: set[asyncio.Task[None]] = set()

    def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let one connection in."""
        task = asyncio.create_task(self._carry(reader, writer))
        self._inside.add(task)
        task.add_done_callback(self._inside.discard)

    async def clear(self) -> None:
        """Throw everybody out."""
        for task in self._inside:
            task.cancel()
        await asyncio.gather(*self._inside, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        limit = next(self.limits, None)
        self.passed += 1
        there, back = await asyncio.open_connection(*self._target)
        await asyncio.gather(
            self._pass(reader, back, None, (writer, back)), self._pass(there, writer, limit, (writer, back))
        )

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limit: int | None,
        both: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        count = 0
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(4096):
                count += len(data)
                if limit is None or count <= limit:
                    writer.write(data)
                    await writer.drain()
                elif not self.is_silent:
                    writer.write(data[: max(0, len(data) - (count - limit))])
                    await writer.drain()
                    break
        for one in both:
            # Half of them politely: a broker may close its end, or its machine may be gone.
            if limit is not None and limit % 2:
                one.transport.abort()
            else:
                one.close()


@pytest.fixture
async def doorway(node: PrivateBroker) -> AsyncIterator[Callable[[Theatre], tuple[Doorway, str]]]:
    """A way to the broker that a test spoils; and the URL that leads through it."""
    way = Doorway(node.broker)
    server = await asyncio.start_server(way.enter, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def of(house: Theatre) -> tuple[Doorway, str]:
        parts = urlsplit(house.url)
        return way, parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    yield of
    server.close()
    await way.clear()


@contextlib.contextmanager
def process(service: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A service that does not wait long before it tries again; gone afterwards."""
    eager = "from common import runner; runner._LONGEST_WAIT = 0.02; import runpy"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"{eager}; runpy.run_module('{service}_svc', run_name='__main__')",
            ],
            env=os.environ | {"PYTHONUNBUFFERED": "1", "DATABASE_URL": f"sqlite://{log}.sqlite3"} | environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait(10)


#: Bytes after which the broker's answers break off: in the handshake of both connections; while one declares.
HANDSHAKE = (0, 7, 300, 501, 520, 540, 555)
DECLARING = (580, 601, 640, 701, 780, 901, 1000, 1201, 1500, 1801, 2100, 2401)


async def test_a_broker_that_breaks_off_at_any_moment_of_the_opening_is_tried_again(
    empty: Theatre, tmp_path: Path, doorway: Callable[[Theatre], tuple[Doorway, str]]
) -> None:
    """The libraries answer with nearly anything, CancelledError included; the process must outlive it all."""
    way, url = doorway(empty)
    way.limits = iter([*(limit for cut in HANDSHAKE for limit in (cut, None, cut)), *DECLARING])
    log = tmp_path / "said"
    with process("point", log, RABBITMQ_URL=url, RETRY_DELAYS="200ms,400ms") as child:

        def serves() -> bool:
            assert way.passed > 3 * len(HANDSHAKE) + len(DECLARING), f"{way.passed} connections"
            return "taking messages" in log.read_text() or child.poll() is not None

        await eventually(serves, seconds=60)
        assert child.poll() is None, log.read_text()[-3000:]
        async with visit(empty) as here:
            gift = TopUp(top_up_id=f"{here.mark}-gift", user_id="ann", amount=5)
            (answer,) = await here.ask(gift)
            assert answer.key == "point.topped_up"
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 10) == 0
    assert "the broker is away" in log.read_text()


@pytest.mark.parametrize("heard", [0, 2000], ids=["from-the-start", "while-declaring"])
async def test_a_broker_that_falls_silent_while_it_is_reached_is_given_up_and_tried_again(
    empty: Theatre, tmp_path: Path, doorway: Callable[[Theatre], tuple[Doorway, str]], heard: int
) -> None:
    """A load balancer that accepts and says nothing must not hold a service for ever."""
    way, url = doorway(empty)
    way.is_silent = True
    way.limits = iter([heard])
    log = tmp_path / "said"
    with process("point", log, RABBITMQ_URL=f"{url}?heartbeat=1", RETRY_DELAYS="200ms,400ms") as child:
        await eventually(lambda: "taking messages" in log.read_text() or child.poll() is not None, seconds=40)
        assert child.poll() is None, log.read_text()[-3000:]
        assert "the broker is away" in log.read_text()
        async with visit(empty) as here:
            gift = TopUp(top_up_id=f"{here.mark}-gift", user_id="ann", amount=5)
            (answer,) = await here.ask(gift)
            assert answer.key == "point.topped_up"


# --- a channel of notices that is slow


@pytest.fixture
async def slow_webhook() -> AsyncIterator[tuple[str, list[str]]]:
    """A web server that takes fifteen seconds for each post: its address, and what was posted."""
    posted: list[str] = []

    async def take(request: web.Request) -> web.Response:
        posted.append((await request.json())["message"])
        await asyncio.sleep(15)
        return web.Response()

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"127.0.0.1:{runner.addresses[0][1]}/", posted
    await runner.cleanup()


@pytest.mark.parametrize("options", ["", "?rto=30"], ids=["default", "patient"])
async def test_a_service_leaves_in_time_while_a_channel_is_slow(
    empty: Theatre, tmp_path: Path, slow_webhook: tuple[str, list[str]], options: str
) -> None:
    """SIGTERM in the middle of a mail server's bad day: out within ten seconds, and no notice is forgotten."""
    address, posted = slow_webhook
    log = tmp_path / "said"
    with process("notify", log, RABBITMQ_URL=empty.url, NOTIFY_URLS=f"json://{address}{options}") as child:
        await eventually(lambda: "taking messages" in log.read_text())
        async with visit(empty) as here:
            pays = [here.pay() for _ in range(40)]
            for pay in pays:
                what = {"service": "queue", "reason": "unknown_token", "detail": "none", "attempts": 1}
                body = {"payment_id": pay.payment_id, "user_id": pay.user_id} | what
                await here.publish("queue.failed", json.dumps(body).encode())
            here.commands.clear()
        await eventually(lambda: posted)
        child.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(child.wait, 10) == 0, log.read_text()[-2000:]
    said = log.read_text()
    assert "Traceback" not in said
    assert "could not finish in time" not in said


# --- what outsiders depend on


_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


def assert_properties(event: Heard, *, service: str, key: str, user: str, since: datetime) -> None:
    """Every property and header that docs/asyncapi.yaml promises of what a service publishes."""
    properties = dict(event.properties)
    stamped = properties.pop("timestamp")
    assert isinstance(stamped, datetime)
    assert since.replace(microsecond=0) <= stamped.astimezone(UTC) <= soon(1)
    assert properties == {
        "delivery_mode": 2,
        "content_type": "application/json",
        "type": event.key,
        "app_id": service,
        "user_id": user,
    }
    assert event.correlation_id == key
    assert event.message_id
    assert uuid.UUID(event.message_id).version == 5
    headers = dict(event.headers)
    assert _TRACEPARENT.fullmatch(headers.pop("traceparent"))
    told = datetime.fromisoformat(headers.pop("cloudEvents_time"))
    assert since <= told <= soon(1)
    assert headers == {
        "cloudEvents_specversion": "1.0",
        "cloudEvents_id": event.message_id,
        "cloudEvents_source": f"/concert-saga/{service}",
        "cloudEvents_type": event.key,
        "cloudEvents_subject": key,
    }


async def test_everything_that_is_said_has_the_properties_of_the_design_and_the_same_id_again(
    here: Visit, house: Theatre
) -> None:
    """Observers deduplicate by the id and trust the user: of a whole saga, a failed one, and of answers alike."""
    since = soon(0)
    (whole,) = await here.paying()
    failed = here.pay()
    await here.prepare(failed, token=False)
    await here.send(whole, failed)
    await here.completed(whole)
    await here.undone(failed, at="queue", reason="unknown_token")
    await here.publish("reservation.hold", here.hold_of(whole, price=1))
    await here.hears(whole.reservation_id, "reservation.rejected")
    once = list(here.heard)
    service_of = {key: service for service in saga.SERVICES for key in saga.emitted_keys(service)}
    ours = [event for event in once if event.id.startswith(here.mark)]
    assert {event.key for event in ours} >= {
        *(step.emits for step in saga.SAGA),
        *(command.answer for command in saga.COMMANDS),
        *("payment.completed", "queue.failed", "reservation.rejected"),
        *(step.compensation for step in saga.SAGA if step.compensation),
    }
    for event in ours:
        assert_properties(event, service=service_of[event.key], key=event.id, user=house.broker.user, since=since)
    ids = {(event.key, event.id): event.message_id for event in ours}
    assert len(set(ids.values())) == len(ids), "one id for each thing that is said"
    # Said again, it is the same message; and a saga that is over has only its last word to say.
    await here.send(whole, failed)
    for pay, key in ((whole, "payment.paid"), (whole, "payment.completed"), (failed, "payment.failed")):
        await here.hears(pay.payment_id, key, times=1 if key == "payment.failed" else 2)
    again = [event for event in here.heard[len(once) :] if (event.key, event.id) in ids]
    assert again
    for event in again:
        assert event.message_id == ids[event.key, event.id]
        assert_properties(event, service=service_of[event.key], key=event.id, user=house.broker.user, since=since)
