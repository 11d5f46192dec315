"""Hostile inputs made by hand: where each search begins, and those that are too large to be found or kept."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import pamqp.frame
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from common import recovery, saga, topology
from common.messages import MAX_BODY, TYPES
from fuzz import samples
from fuzz.inputs import Letter, join, of_letter
from fuzz.samples import entry, long

_FAR = struct.pack(">Q", 2**62)
#: The largest message that RabbitMQ 4 carries, and the largest frame that a client agrees to.
LARGEST = 16 * 1024 * 1024
_FRAME = 131_072

_BODIES: tuple[bytes, ...] = (
    *(b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"[" * 40, b"\xff\xfe", b"\xef\xbb\xbf{}", b"{} {}"),
    *(b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1e999}', b'{"a":1e-999}', b'{"a":-0.0}'),
    *(b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}', b'{"\\u0061":1,"a":2}', b'{"":""}', b'{"a":01}', b"{'a':1}"),
    *(b'{"a":"\\ud800"}', b'{"\\udfff":1}', b'{"a":"\\ud83d\\ude00"}', b'{"a":"\\u0000"}', b'{"a":"\x00"}'),
    '{"payment_id":"p\N{FULLWIDTH DIGIT ONE}"}'.encode(),
    b'{"a":' * 17 + b"1" + b"}" * 17,
    b'{"a":' + b"9" * 4300 + b"}",
    b'{"a":' + b"9" * 4301 + b"}",
)
_CHANGES: tuple[Mapping[str, Any], ...] = (
    {"amount": True},
    {"amount": 300.0},
    {"amount": "300"},
    {"amount": 10**30},
    {"amount": -1},
    {"payment_id": "p-1\n"},
    {"payment_id": ""},
    {"payment_id": "p" * 65},
    {"payment_id": ["p-1"]},
    {"payment_id": "__class__"},
    {"expires_at": "9999-12-31T23:59:59-23:59"},
    {"expires_at": "0001-01-01T00:00:00+23:59"},
    {"expires_at": "2026-11-22T10:00:60Z"},
    {"expires_at": "2026-11-22T10:00:00"},
    {"expires_at": 1_700_000_000},
    {"paid_at": "2026-02-29T10:00:00Z"},
    {"detail": "\x1b[31m"},
    {"extra": {"deep": [[[[1.5, None, True, "\N{SNOWMAN}"]]]]}},
    {"keys": "x", "__proto__": {}, "model_config": 1},
)
_HEADERS: tuple[bytes | Mapping[str, Any], ...] = (
    {},
    {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "cloudEvents_specversion": "1.0"},
    {"cloudEvents_type": "queue.failed"},
    {recovery.TYPE: "payment.pay", recovery.ATTEMPT: 2**62, recovery.REASON: "crash_guard"},
    {recovery.TYPE: "queue.expired", recovery.ATTEMPT: -1, recovery.FIRST_FAILED_AT: "0001-01-01T00:00:00+14:00"},
    {recovery.DETAIL: "\x1b]0;owned\x07\u202e", recovery.REASON: "x" * 600, recovery.FAILED_IN: "\x00"},
    {
        "x-death": [
            {"queue": "payment.events", "reason": "expired", "routing-keys": ["payment.return"], "count": 1}
        ]
    },
    {"x-death": [{"queue": "point.events", "reason": "delivery_limit", "routing-keys": []}]},
    {"x-death": "no list"},
    {"x-delivery-count": 2**62},
    {"x-unreadable": True},
    {str(number): number for number in range(65)},
    entry(b"when", b"T", _FAR),
    entry(b"a", b"F", long(entry(b"b", b"T", _FAR))),
    entry(b"a", b"D", b"\xff" + struct.pack(">i", -1)),
    entry(b"a", b"d", struct.pack(">d", float("nan"))),
    entry(b"a", b"?", b""),
    entry(b"\xff\xfe", b"t", b"\1"),
    entry(b"a", b"S", long(b"\xff")),
    entry(b"a", b"A", long(b"A" + long(b"A" + long(b"")))),
    entry(b"a", b"S", struct.pack(">I", 0xFFFFFFFF)),
    b"\x00" * 8,
)
_RECORDS: tuple[Mapping[str, Any], ...] = (
    {},
    {"v": 2},
    {"took_ms": float("nan")},
    {"took_ms": float("inf")},
    {"took_ms": -1},
    {"took_ms": "7"},
    {"at": "0001-01-01T00:00:00+23:59"},
    {"at": "9999-12-31T23:59:59.999999-23:59"},
    {"at": "2026-11-22T10:00:00"},
    {"service": "operator", "entries": [{"saga": "p-1", "type": "discard", "became": "done", "by": "\x1b[2J"}]},
    {"entries": [{"saga": "p-1", "type": "payment.pay", "became": "retry", "delay_ms": -(10**400)}]},
    {"entries": [{"saga": "p-1", "type": "payment.pay", "became": "parked", "attempt": 10**4000}]},
    {"entries": [{"saga": "p-1", "type": "payment.pay", "became": "done", "waited_ms": -(10**400)}]},
    {"entries": [{"saga": "\ud800", "type": "\ud800", "became": "dead", "reason": "\ud800"}]},
    {"entries": [{"saga": "p-1", "type": "payment.pay", "became": "done", "said": [["a"], "bc", 1]}]},
    {"entries": "no list"},
    {"batches": []},
    {"entries": [], "batches": []},
    {"batches": [[2, "2026-11-22T10:00:00Z", 1], [1, "2026-11-22T10:00:01Z", 2]]},
    {"batches": [[4, "2026-11-22T10:00:00Z", 1], [-1, "2026-11-22T10:00:01Z", float("nan")]]},
    {"entries": [], "batches": [[0, "2026-11-22T10:00:00Z", 1]] * 3},
)


def seeds(target: str) -> list[bytes]:
    """Where the search of a target begins: every valid input, and what has been trouble somewhere before."""
    return list(_SEEDS[target]())


def _bodies() -> Iterator[bytes]:
    for type_ in sorted(TYPES):
        yield join(type_, "", "", rest=samples.body(type_))
        for change in _CHANGES:
            yield join(type_, "", "", rest=samples.body(type_, **change))
    for body in _BODIES:
        yield join("payment.paid", "", "", rest=body)
        yield join("payment.paid", "", "", rest=samples.body("payment.paid")[:-1] + b',"more":' + body + b"}")
    for kind in ("application/json", "Application/JSON; charset=UTF-8", "text/plain", ";", "\ufffd" * 85):
        yield join("payment.pay", kind, "", rest=samples.body("payment.pay"))
        yield join("payment.pay", "", kind, rest=samples.body("payment.pay"))


def _wire() -> Iterator[bytes]:
    for headers in _HEADERS:
        yield samples.properties(headers)
    every = {name: b"\xff" * 255 for name in samples.FLAGS if name != "headers"}
    yield samples.properties({}, **every | {"delivery_mode": b"\2", "priority": b"\xff", "timestamp": _FAR})
    for timestamp in (bytes(8), _FAR, b"\xff" * 8, struct.pack(">Q", 2**41)):
        yield samples.properties(timestamp=timestamp)
    yield from (b"", b"\xff", b"\xff\xff" * 40, b"\xff\xfe", b"\x20\x00" + b"\xff" * 4)


def _letters() -> Iterator[bytes]:
    for service in saga.SERVICES:
        key = saga.step_of(service).on
        places = {
            topology.events_queue(service): (key, topology.return_key(service), "queue.failed", "?.failed"),
            topology.commands_queue(service): (key, "payment.pay"),
            topology.dead_queue(service): (topology.dead_queue(service), key),
        }
        for queue, keys in places.items():
            for routing_key in keys:
                for own in (b"", f"saga-{service}".encode()):
                    user = {"user_id": own} if own else {}
                    told = {recovery.TYPE: key, recovery.ATTEMPT: 1, recovery.REASON: "error"}
                    yield _letter(service, queue, routing_key, samples.properties(told, **user))
    events = topology.events_queue("point")
    for properties in _wire():
        yield _letter("point", events, "reservation.confirmed", properties)
        yield _letter("point", topology.dead_queue("point"), topology.dead_queue("point"), properties)
    for body in _BODIES:
        yield of_letter(Letter("point", events, "reservation.confirmed", samples.properties(), body))


def _letter(service: str, queue: str, routing_key: str, properties: bytes) -> bytes:
    body = samples.body(routing_key if routing_key in TYPES else saga.step_of(service).on)
    return of_letter(Letter(service, queue, routing_key, properties, body))


def _records() -> Iterator[bytes]:
    for change in _RECORDS:
        yield json.dumps(samples.record(**change)).encode()
    yield from (b"", b"{}", b"[]", b"null", b"\xff\xfe{\x00}\x00", b'{"v":1}', b"[" * 2000)


def _frames() -> Iterator[bytes]:
    deliver = spec.Basic.Deliver("ctag", 5, redelivered=True, exchange="e", routing_key="k")
    whole = b"".join(
        pamqp.frame.marshal(frame, 7)
        for frame in (
            deliver,
            ContentHeader(body_size=3),
            ContentBody(b"abc"),
            spec.Basic.Ack(9, multiple=True),
            spec.Basic.Nack(10),
            spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0),
            Heartbeat(),
        )
    )
    yield from (whole, whole[:33], whole + b"?", b"AMQP\0\0\x09\x01", b"")
    for kind in (1, 2, 3, 8, 9, 255):
        for payload in (b"", b"\0", bytes(4), b"\xff" * 20):
            yield struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
    yield struct.pack(">BHI", 3, 1, 0xFFFFFFFF)


_SEEDS = {
    "bodies": _bodies,
    "wire": _wire,
    "deliveries": _letters,
    "letters": _letters,
    "records": _records,
    "frames": _frames,
}


def giants() -> Iterator[tuple[str, str, bytes]]:
    """Inputs too large to keep: the name of each, its target, and what it is."""
    for name, body in _giant_bodies():
        yield f"a body of {name}", "bodies", join("payment.paid", "", "", rest=body)
        told = Letter("point", topology.events_queue("point"), "reservation.confirmed", samples.properties(), body)
        yield f"a delivery of {name}", "deliveries", of_letter(told)
    for name, table in _giant_tables():
        properties = samples.properties(table)
        yield f"a table of {name}", "wire", properties
    for name, body in _giant_records():
        yield f"a record of {name}", "records", body


def _giant_bodies() -> Iterator[tuple[str, bytes]]:
    whole = samples.body("payment.paid")[:-1] + b',"x":'
    room = MAX_BODY - len(whole) - 1
    yield "16 MiB", b'{"a":"' + b"x" * LARGEST + b'"}'
    yield "16 MiB of brackets", b"[" * LARGEST
    yield "64 KiB of brackets", b"[" * MAX_BODY
    yield "64 KiB of objects", b'{"a":' * (MAX_BODY // 5)
    yield "one number of 64 KiB", whole + b"9" * room + b"}"
    yield "one fraction of 64 KiB", whole + b"0." + b"9" * (room - 2) + b"}"
    yield "escapes", whole + b'"' + b"\\u0041" * ((room - 2) // 6) + b'"}'
    yield "halves of characters", whole + b'"' + b"\\ud800" * ((room - 2) // 6) + b'"}'
    yield "empty lists", whole + b"[" + b"[]," * ((room - 5) // 3) + b"1]}"
    yield "zeros", whole + b"[" + b"0," * ((room - 4) // 2) + b"0]}"
    names = [b'"%x":0' % number for number in range(6500)]
    yield "many fields", b"{" + b",".join(names) + b"}"
    yield "many fields, the last one twice", b"{" + b",".join([*names, names[-1]]) + b"}"
    yield "one field again and again", b"{" + b'"a":0,' * (MAX_BODY // 6 - 1) + b'"a":0}'


def _giant_tables() -> Iterator[tuple[str, bytes]]:
    room = _FRAME - 64
    nested = b""
    while len(nested) < room - 16:
        nested = b"A" + long(nested)
        if len(nested) > 15_000:
            break
    yield "3,000 nested arrays", entry(b"a", nested[:1], nested[1:])
    inside = b"S" + long(b"x" * (room - 6_000))
    for _ in range(900):
        inside = b"A" + long(inside)
    yield "900 nested arrays around 120 KiB", entry(b"a", inside[:1], inside[1:])
    table = long(entry(b"a", b"S", long(b"x" * (room - 8_000))))
    for _ in range(900):
        table = long(entry(b"a", b"F", table))
    yield "900 nested tables around 120 KiB", entry(b"a", b"F", table)
    yield "very many headers", b"".join(entry(b"%x" % number, b"t", b"\1") for number in range(18_000))
    yield "headers of one name", entry(b"a", b"t", b"\1") * (room // 4)
    yield "a list of empty lists", entry(b"a", b"A", long((b"A" + long(b"")) * (room // 5)))
    yield "one text", entry(b"a", b"S", long(b"\xff" * room))


def _giant_records() -> Iterator[tuple[str, bytes]]:
    one = json.dumps(samples.record()["entries"][0])
    yield (
        "two thousand entries",
        json.dumps(samples.record(entries=[])).replace("[]", f"[{','.join([one] * 2_000)}]").encode(),
    )
    yield "brackets", b"[" * LARGEST
    yield "long texts", json.dumps(samples.record(replica="x" * 1_000_000)).encode()
