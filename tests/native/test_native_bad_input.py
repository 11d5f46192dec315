"""Whatever is published, it is parked with a reason that a person understands, and its neighbours are done."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import aio_pika
import pytest
from pamqp import base, commands, frame

from common import saga, topology
from tests.support.eventually import eventually
from tests.support.saga import PRICE, Theatre, Visit, theatre, visit
from tools.broker import Broker, PrivateBroker

pytestmark = pytest.mark.broker


def content(name: str, **fields: object) -> dict[str, object]:
    """A good command, but for what is said otherwise."""
    standard: dict[str, object] = {
        "payment_id": name,
        "user_id": f"{name}-user",
        "reservation_id": f"{name}-hold",
        "token": f"{name}-token",
        "amount": PRICE,
    }
    return standard | fields


def text(name: str, **fields: object) -> bytes:
    """A command as JSON."""
    return json.dumps(content(name, **fields)).encode()


def swapped(name: str, old: str, new: str) -> bytes:
    """A good command with some of its text replaced."""
    good = text(name)
    assert old.encode() in good
    return good.replace(old.encode(), new.encode())


def without(name: str, field: str) -> bytes:
    """A command that lacks a field."""
    return json.dumps({key: value for key, value in content(name).items() if key != field}).encode()


_N = "bad"
_AMOUNT = f'"amount": {PRICE}'

#: What is published, the reason under which it is parked, and a word that its detail must hold.
BODIES: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "not_json", ""),
    "not-json": (b"pay please", "not_json", ""),
    "cut-off": (text(_N)[:-5], "not_json", ""),
    "trailing": (text(_N) + b" {}", "not_json", ""),
    "not-utf8": (b'{"payment_id": "\xff"}', "not_utf8", "UTF-8"),
    "utf16": (text(_N).decode().encode("utf-16"), "not_utf8", "UTF-8"),
    "bom": (b"\xef\xbb\xbf" + text(_N), "not_json", ""),
    "array": (b"[" + text(_N) + b"]", "not_an_object", "list"),
    "string": (b'"payment"', "not_an_object", "str"),
    "number": (b"5", "not_an_object", "int"),
    "null": (b"null", "not_an_object", "NoneType"),
    "nan": (swapped(_N, _AMOUNT, '"amount": NaN'), "not_json", "NaN"),
    "infinity": (swapped(_N, _AMOUNT, '"amount": -Infinity'), "not_json", "Infinity"),
    "huge-exponent": (swapped(_N, _AMOUNT, '"amount": 1e999'), "not_json", "range"),
    "huge-integer": (swapped(_N, _AMOUNT, '"amount": ' + "9" * 5000), "not_json", "digits"),
    "true": (text(_N, amount=True), "invalid_fields", "amount"),
    "float": (swapped(_N, _AMOUNT, '"amount": 1.0'), "invalid_fields", "amount"),
    "exponent": (swapped(_N, _AMOUNT, '"amount": 1e2'), "invalid_fields", "amount"),
    "text-amount": (text(_N, amount="5"), "invalid_fields", "amount"),
    "null-amount": (text(_N, amount=None), "invalid_fields", "amount"),
    "zero": (text(_N, amount=0), "invalid_fields", "amount"),
    "negative": (text(_N, amount=-1), "invalid_fields", "amount"),
    "too-much": (text(_N, amount=1_000_000_001), "invalid_fields", "amount"),
    "2-to-63": (text(_N, amount=2**63), "invalid_fields", "amount"),
    "missing": (without(_N, "token"), "invalid_fields", "token"),
    "nothing": (b"{}", "invalid_fields", "payment_id"),
    "extra": (text(_N, discount=1), "invalid_fields", "discount"),
    "duplicated": (swapped(_N, _AMOUNT, f'{_AMOUNT}, "amount": 1'), "duplicate_field", "amount"),
    "duplicated-deep": (swapped(_N, _AMOUNT, f'{_AMOUNT}, "x": {{"y": 1, "y": 2}}'), "duplicate_field", "y"),
    "100-kB": (text(_N, user_id="x" * 100_000), "too_large", "bytes"),
    "60-kB": (text(_N, user_id="x" * 60_000), "invalid_fields", "user_id"),
    "empty-id": (text(_N, user_id=""), "invalid_fields", "user_id"),
    "65-characters": (text(_N, user_id="x" * 65), "invalid_fields", "user_id"),
    "control-character": (text(_N, user_id="a\u0000b"), "invalid_fields", "user_id"),
    "newline-at-the-end": (text(_N, user_id="ann\n"), "invalid_fields", "user_id"),
    "lone-surrogate": (text(_N, user_id="a\ud800"), "bad_text", "surrogate"),
    "lone-surrogate-as-name": (text(_N, **{"\udc00": 1}), "bad_text", "surrogate"),
    "letters-of-others": (text(_N, user_id="\uff21nn"), "invalid_fields", "user_id"),
    "id-is-a-number": (text(_N, user_id=5), "invalid_fields", "user_id"),
    "id-is-an-object": (text(_N, user_id={"$ne": 1}), "invalid_fields", "user_id"),
    "deep": (b'{"a":' * 500 + b"1" + b"}" * 500, "not_json", "deep"),
    "very-deep": (b"[" * 60_000, "not_json", ""),
    "time-without-offset": (text(_N, expires_at="2099-01-01T00:00:00"), "invalid_fields", "expires_at"),
    "time-is-a-number": (text(_N, expires_at=4_000_000_000), "invalid_fields", "expires_at"),
    "time-that-is-none": (text(_N, expires_at="2099-02-30T00:00:00Z"), "invalid_fields", "expires_at"),
    "time-before-the-calendar": (text(_N, expires_at="0001-01-01T00:00:00+23:59"), "invalid_fields", "expires_at"),
    "time-after-the-calendar": (text(_N, expires_at="9999-12-31T23:59:59-23:59"), "invalid_fields", "expires_at"),
}

#: Properties beside a good body, and the reason under which it is parked.
PROPERTIES: dict[str, tuple[dict[str, Any], str]] = {
    "xml": ({"content_type": "application/xml"}, "wrong_content_type"),
    "text": ({"content_type": "text/plain"}, "wrong_content_type"),
    "latin-1": ({"content_type": "application/json; charset=latin-1"}, "wrong_content_type"),
    "gzip": ({"content_encoding": "gzip"}, "wrong_content_encoding"),
    "utf-16": ({"content_encoding": "utf-16"}, "wrong_content_encoding"),
    "other-event": ({"headers": {"cloudEvents_type": "payment.paid"}}, "bad_headers"),
    "other-version": ({"headers": {"cloudEvents:specversion": "2.0"}}, "bad_headers"),
    "type-is-a-number": ({"headers": {"cloudEvents_type": 5}}, "bad_headers"),
    "type-is-a-table": ({"headers": {"cloudEvents_type": {"a": [1]}}}, "bad_headers"),
    "many-headers": ({"headers": {f"h{n}": n for n in range(100)}}, "bad_headers"),
}

#: Properties beside a good body that are odd and harmless.
ODD: dict[str, dict[str, Any]] = {
    "no-content-type": {"content_type": None},
    "upper-case": {"content_type": "Application/JSON; charset=UTF-8"},
    "identity": {"content_encoding": "identity"},
    "other-type": {"type": "queue.expired"},
    "reply-to": {"reply_to": "nobody", "message_id": "m" * 255, "correlation_id": "\u00e9" * 100},
    "odd-headers": {
        "headers": {"a": None, "b": [1, {"c": bytearray(b"\xff")}], "d": {"e": 1.5}, "traceparent": 7}
    },
    "odd-trace": {"headers": {"traceparent": "x" * 10_000, "tracestate": "\n\u2028" * 50}},
    "not-persistent": {"delivery_mode": aio_pika.DeliveryMode.NOT_PERSISTENT},
    "priority": {"priority": 255},
    "old": {"timestamp": datetime(1970, 1, 1, tzinfo=UTC)},
    "far-future": {"timestamp": datetime(9999, 12, 31, tzinfo=UTC)},
}


async def test_bad_input_of_every_kind_is_parked_and_its_neighbours_done(here: Visit, house: Theatre) -> None:
    """One burst, so that good and bad share batches: each bad one is parked for its reason, each good done."""
    good = await here.paying(20)
    odd = {name: here.pay(payment_id=f"{here.mark}-odd-{name}") for name in ODD}
    await here.prepare(*odd.values())
    expected: dict[str, tuple[str, str]] = {}
    publishing = []
    neighbours = iter(good)
    for name, (body, reason, word) in BODIES.items():
        # The correlation id tells one bad message from the other: their bodies cannot.
        mark = f"{here.mark}-{name}"
        expected[mark] = (reason, word)
        publishing.append(here.publish(saga.FIRST.on, body, correlation_id=mark))
        if (neighbour := next(neighbours, None)) is not None:
            publishing.append(here.send(neighbour))
    for name, (properties, reason) in PROPERTIES.items():
        mark = f"{here.mark}-{name}"
        expected[mark] = (reason, "")
        publishing.append(here.publish(saga.FIRST.on, text(mark), correlation_id=mark, **properties))
    publishing += [here.publish(saga.FIRST.on, odd[name], **properties) for name, properties in ODD.items()]
    await asyncio.gather(*publishing)
    await here.completed(*good, *odd.values())

    def all_parked() -> bool:
        return expected.keys() <= {copy.correlation_id for copy in here.copies if copy.key == "payment.parked"}

    await eventually(all_parked)
    parked = {copy.correlation_id: copy for copy in here.copies if copy.key == "payment.parked"}
    for mark, (reason, word) in expected.items():
        headers = parked[mark].headers
        assert headers["x-reason"] == reason, (mark, headers)
        assert word in headers["x-detail"], (mark, headers)
        assert 0 < len(headers["x-detail"]) <= 500
        assert headers["x-detail"].isprintable()
        assert headers["x-type"] == saga.FIRST.on
        assert headers["x-failed-in"] == "payment.commands"
    in_queue = {letter["properties"].get("correlation_id") for letter in house.peek("payment.parked")}
    assert expected.keys() <= in_queue
    assert here.theatre.rows("payment", "SELECT * FROM saga_step WHERE saga_id LIKE 'bad%'") == []


@pytest.mark.parametrize("command", ["reservation.hold", "point.top_up", "queue.enter"])
async def test_a_bad_command_of_another_service_is_parked_too(here: Visit, command: str) -> None:
    """Every service reads as strictly as the first."""
    service = command.split(".", maxsplit=1)[0]
    mark = f"{here.mark}-{service}"
    await here.publish(command, b'{"amount": 1.0}', correlation_id=mark)
    await eventually(
        lambda: any(copy.key == f"{service}.parked" and copy.correlation_id == mark for copy in here.copies)
    )


async def test_a_bad_event_is_parked_by_its_receiver(here: Visit) -> None:
    """An event that cannot be read is nobody's fault and everybody's danger: parked, the queue goes on."""
    mark = f"{here.mark}-event"
    for key in ("payment.paid", "reservation.confirmed", "point.deducted", "queue.expired", "point.failed"):
        await here.publish(key, b'{"payment_id": null}', correlation_id=mark)
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    parked = {copy.key for copy in here.copies if copy.correlation_id == mark}
    assert parked == {f"{service}.parked" for service in saga.SERVICES}


def _raw_header(name: str, kind: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name.encode() + kind + value


def _table(entries: bytes) -> bytes:
    return struct.pack(">I", len(entries)) + entries


#: Properties that AMQP allows and that a client library may fail to read: flags, and what follows them.
POISON: dict[str, tuple[int, bytes]] = {
    "timestamp-beyond-the-calendar": (1 << 6, struct.pack(">Q", 2**63 - 1)),
    "content-type-not-utf8": (1 << 15, b"\x04\xff\xfe\xff\xfe"),
    "correlation-id-not-utf8": (1 << 10, b"\x04\xff\xfe\xff\xfe"),
    "message-id-not-utf8": (1 << 7, b"\x02\xff\xfe"),
    "header-timestamp-beyond-the-calendar": (
        1 << 13,
        _table(_raw_header("when", b"T", struct.pack(">Q", 2**63 - 1))),
    ),
    "header-name-not-utf8": (1 << 13, _table(b"\x02\xff\xfe" + b"t\x01")),
    "header-decimal": (1 << 13, _table(_raw_header("price", b"D", b"\xff\xff\xff\xff\xff"))),
    "header-bytes": (1 << 13, _table(_raw_header("bytes", b"x", struct.pack(">I", 2) + b"\xff\xfe"))),
    "header-unsigned": (1 << 13, _table(_raw_header("many", b"i", b"\xff\xff\xff\xff"))),
}


@pytest.fixture(scope="module")
def paydesk(node: PrivateBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    """A theatre with the first service alone: it is the one that strangers talk to."""
    with theatre(node, tmp_path_factory.mktemp("paydesk")) as opened:
        yield opened


@pytest.mark.parametrize("poison", POISON)
async def test_properties_that_cannot_be_read_do_not_stop_a_service(paydesk: Theatre, poison: str) -> None:
    """A stranger's properties are as untrusted as a body: one message must never keep all others out."""
    paydesk.start("payment")
    try:
        async with visit(paydesk) as here:
            pay = here.pay()
            flags, properties = POISON[poison]
            await asyncio.to_thread(publish_raw, paydesk.broker, saga.FIRST.on, b"poison", flags, properties)
            await here.send(pay)
            await here.hears(pay.payment_id, "payment.paid", seconds=10)
            # The bad one is where a person can see it, and so is not delivered again and again.
            await eventually(
                lambda: any(letter["payload"] == "poison" for letter in paydesk.peek("payment.parked"))
            )
    finally:
        for queue in ("commands", "events", "dead", "parked"):
            paydesk.api("DELETE", f"/api/queues/{{v}}/payment.{queue}/contents")


def publish_raw(broker: Broker, key: str, body: bytes, flags: int, properties: bytes) -> None:
    """Publish with properties as bytes, as a client of another make could; wait until the broker has it."""
    address = urlsplit(broker.amqp_url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as line:
        stream = line.makefile("rb")

        def say(number: int, request: base.Frame) -> None:
            line.sendall(frame.marshal(request, number))

        def hear() -> str:
            while True:
                kind, _, size = struct.unpack(">BHI", stream.read(7))
                payload = stream.read(size + 1)
                if kind == 1:
                    return str(vars(commands.INDEX_MAPPING[struct.unpack(">I", payload[:4])[0]])["name"])

        line.sendall(b"AMQP\x00\x00\x09\x01")
        assert hear() == "Connection.Start"
        say(0, commands.Connection.StartOk(response=f"\0{broker.user}\0{broker.password}"))
        assert hear() == "Connection.Tune"
        say(0, commands.Connection.TuneOk(1, 131_072, 0))
        say(0, commands.Connection.Open(virtual_host=unquote(address.path[1:])))
        assert hear() == "Connection.OpenOk"
        say(1, commands.Channel.Open())
        assert hear() == "Channel.OpenOk"
        say(1, commands.Confirm.Select())
        assert hear() == "Confirm.SelectOk"
        say(1, commands.Basic.Publish(exchange=topology.EVENTS, routing_key=key))
        for kind, payload in ((2, struct.pack(">HHQH", 60, 0, len(body), flags) + properties), (3, body)):
            line.sendall(struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce")
        assert hear() == "Basic.Ack"
