"""AMQP's bytes, read tolerantly and fast, and written fast: the frames that carry messages and their confirms.

Two reasons. A stranger's properties may break AMQP's rules (a time outside the calendar, a text that is not
UTF-8); aiormq would close the connection over it, get the message again, and so on for ever. And aiormq reads each
frame in three steps and describes each field by an object, which costs more than all that a service does with a
message. So the frames of messages are read and written here; everything else is left to pamqp.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import aiormq.connection
import pamqp.frame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from pamqp import commands as spec
from pamqp import decode
from pamqp.body import ContentBody
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

#: Levels of tables, and of lists, inside headers; `x-death` has two.
MAX_NESTING = 8
#: Bytes of headers that are read. Ours take 9 KiB at most, with what the broker adds to a message that dies.
MAX_HEADER_BYTES = 16 * 1024
#: Headers, and values in their tables and lists. Each is an object, which takes many times its bytes.
MAX_HEADER_VALUES = 256
#: What a table of headers becomes that is not read; the value tells why, if it is a text.
UNREADABLE = "x-unreadable"

_READ_AT_ONCE = 256 * 1024
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE
_DELIVER, _ACK, _PUBLISH = 0x003C003C, 0x003C0050, 0x003C0028
_PERSISTENT = b"\x02"
_strict_time = decode.timestamp
_strict_table = decode.field_table
_strict_list = decode.field_array
_FRAME = struct.Struct(">BHI")
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_LONG_LONG = struct.Struct(">Q")
_SIGNED = struct.Struct(">q")
_ACKED = struct.Struct(">QB")
_CONTENT = struct.Struct(">HHQH")

#: The short strings among the properties, by the bit that says they are there (AMQP 0-9-1, section 4.2.6.1 and
#: the basic class). Headers (13), delivery mode (12), priority (11) and timestamp (6) are none.
_SHORT_STRINGS = (
    (15, "content_type"),
    (14, "content_encoding"),
    (10, "correlation_id"),
    (9, "reply_to"),
    (8, "expiration"),
    (7, "message_id"),
    (5, "message_type"),
    (4, "user_id"),
    (3, "app_id"),
    (2, "cluster_id"),
)


_PROPERTIES = tuple(spec.Basic.Properties.__slots__)


@dataclass(slots=True)
class Properties:
    """What a message is published with. `timestamp`: seconds since 1970; `expiration`: milliseconds, as a text."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: int | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    cluster_id: str | None = None


def install() -> None:
    """Make aiormq read with `FrameReader`, and pamqp read any header, in this whole process.

    Doing it again changes nothing.
    """
    aiormq.connection.FrameReceiver = FrameReader  # type: ignore[misc]
    decode.TABLE_MAPPING |= {b"T": _any_time, b"F": _shallow(_any_table), b"A": _shallow(_strict_list)}


class FrameReader(aiormq.connection.FrameReceiver):
    """Takes what the socket has, and gives frame after frame from it."""

    _buffer = b""
    _at = 0

    async def get_frame(self) -> tuple[int, int, Any]:
        """The next frame: its size in bytes, its channel, what it says."""
        while (found := self._next()) is None:
            try:
                more = await self.reader.read(_READ_AT_ONCE)
            except OSError as error:
                raise AMQPConnectionError(f"the connection broke: {error!r}") from error
            if not more:
                # Never the end of an iteration: whoever is connecting waits for frames here, too.
                raise AMQPConnectionError("the server closed the connection")
            self._buffer, self._at = self._buffer[self._at :] + more, 0
        return found

    def _next(self) -> tuple[int, int, Any] | None:
        buffer, start = self._buffer, self._at + _FRAME.size
        if len(buffer) < start:
            return None
        if not self.started and buffer.startswith(b"AMQP"):
            raise ProtocolSyntaxError("the server speaks another version of AMQP")
        self.started = True
        kind, channel, size = _FRAME.unpack_from(buffer, self._at)
        end = start + size
        if len(buffer) <= end:
            return None
        if buffer[end] != _END:
            raise InvalidFrameError("a frame does not end where it says")
        try:
            frame = _read(kind, buffer[start:end])
        except (struct.error, IndexError) as error:
            raise InvalidFrameError(f"a frame is too short: {error}") from error
        if frame is None:
            try:
                _, _, frame = pamqp.frame.unmarshal(buffer[self._at : end + 1])
            except PAMQPException as error:
                raise InvalidFrameError(str(error)) from error
        self._at = end + 1
        return size + 8, channel, frame


def _read(kind: int, payload: bytes) -> Any:  # noqa: ANN401 - pamqp's frames have no type in common
    """A frame of a message or a confirm; None for any other."""
    if kind == _BODY:
        return ContentBody(payload)
    if kind == _HEADER:
        size = _LONG_LONG.unpack_from(payload, 4)[0]
        return ContentHeader(0, size, read_properties(payload))
    if kind == _METHOD:
        (method,) = _LONG.unpack_from(payload)
        if method == _DELIVER:
            return _read_deliver(payload)
        if method == _ACK:
            tag, bits = _ACKED.unpack_from(payload, 4)
            return spec.Basic.Ack(tag, bits & 1 == 1)
    return None


def _read_deliver(payload: bytes) -> spec.Basic.Deliver:
    consumer_tag, at = _short_string(payload, 4)
    tag, redelivered = _ACKED.unpack_from(payload, at)
    exchange, at = _short_string(payload, at + _ACKED.size)
    routing_key, _ = _short_string(payload, at)
    deliver = spec.Basic.Deliver.__new__(spec.Basic.Deliver)  # its own check would refuse a stranger's key
    deliver.consumer_tag = consumer_tag
    deliver.delivery_tag = tag
    deliver.redelivered = redelivered & 1 == 1
    deliver.exchange = exchange
    deliver.routing_key = routing_key
    return deliver


def read_properties(payload: bytes) -> spec.Basic.Properties:
    """The properties in the payload of a content header, whatever a stranger wrote there."""
    properties = spec.Basic.Properties.__new__(spec.Basic.Properties)  # its own check would refuse a stranger's
    for name in _PROPERTIES:
        setattr(properties, name, None)
    try:
        _fill(properties, payload)
    except (struct.error, IndexError):
        properties.headers = {UNREADABLE: True}
    return properties


def _fill(properties: spec.Basic.Properties, payload: bytes) -> None:
    (flags,) = more = _SHORT.unpack_from(payload, 12)
    at = 14
    while more[0] & 1:
        more = _SHORT.unpack_from(payload, at)
        at += 2
    for bit, name in _SHORT_STRINGS[:2]:
        if flags >> bit & 1:
            value, at = _short_string(payload, at)
            setattr(properties, name, value)
    if flags >> 13 & 1:
        end = at + 4 + _LONG.unpack_from(payload, at)[0]
        properties.headers = _read_headers(payload[at:end])
        at = end
    for bit, name in ((12, "delivery_mode"), (11, "priority")):
        if flags >> bit & 1:
            setattr(properties, name, payload[at])
            at += 1
    for bit, name in _SHORT_STRINGS[2:]:
        if bit == 5 and flags >> 6 & 1:
            at, properties.timestamp = at + 8, _any_time(payload[at : at + 8])[1]
        if flags >> bit & 1:
            value, at = _short_string(payload, at)
            setattr(properties, name, value)


def _short_string(payload: bytes, at: int) -> tuple[str, int]:
    start = at + 1
    end = start + payload[at]
    return payload[start:end].decode("utf-8", "replace"), end


def _read_headers(table: bytes) -> dict[str, Any]:
    """The headers, or why they are not read: hundreds of deliveries are held at once, each with its own."""
    size = len(table) - 4
    if size > MAX_HEADER_BYTES:
        return {UNREADABLE: f"{size} bytes of headers; the limit is {MAX_HEADER_BYTES}"}
    return _read_table(table)


def _too_many(count: int) -> dict[str, Any]:
    return {UNREADABLE: f"{count} values in headers; the limit is {MAX_HEADER_VALUES}"}


def _count(value: object) -> int:
    """How many values there are inside, at all levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return len(inside) + sum(_count(one) for one in inside if isinstance(one, dict | list))


def _read_table(table: bytes) -> dict[str, Any]:
    """A table of headers: here if it holds only texts and numbers, else by pamqp."""
    headers: dict[str, Any] = {}
    at = 4
    try:
        while at < len(table):
            start = at + 1 + table[at]
            name = table[at + 1 : start].decode()
            match table[start]:
                case 0x53:  # S: a long string
                    at = start + 5 + _LONG.unpack_from(table, start + 1)[0]
                    headers[name] = table[start + 5 : at].decode()
                case 0x6C:  # l: a signed 64-bit number
                    headers[name] = _SIGNED.unpack_from(table, start + 1)[0]
                    at = start + 9
                case _:
                    return _read_any_table(table)
    except (ValueError, IndexError, struct.error):
        return _read_any_table(table)
    return headers if len(headers) <= MAX_HEADER_VALUES else _too_many(len(headers))


def _read_any_table(table: bytes) -> dict[str, Any]:
    headers: dict[str, Any] = _any_table(table)[1]
    count = _count(headers)
    return headers if count <= MAX_HEADER_VALUES else _too_many(count)


def _any_time(value: bytes) -> tuple[int, Any]:
    try:
        return _strict_time(value)
    except (ValueError, OverflowError, OSError):
        return 8, None


def _any_table(value: bytes) -> tuple[int, Any]:
    try:
        return _strict_table(value)
    except (ValueError, OverflowError, OSError, IndexError, KeyError, RecursionError, struct.error):
        return 4 + int.from_bytes(value[:4], "big"), {UNREADABLE: True}


def _shallow(read: Callable[[bytes], tuple[int, Any]]) -> Callable[[bytes], tuple[int, Any]]:
    """Read what is nested in headers, but not deeper than any client of ours would nest.

    pamqp copies what is left of a frame at each level: a header of 128 KiB would take as many MiB.
    """
    depth = 0

    def reader(value: bytes) -> tuple[int, Any]:
        nonlocal depth
        if depth == MAX_NESTING:
            raise ValueError("headers are nested too deeply")
        depth += 1
        try:
            return read(value)
        finally:
            depth -= 1

    return reader


def publish(
    channel: int,
    *,
    exchange: str,
    routing_key: str,
    body: bytes,
    properties: Properties,
    mandatory: bool,
    body_limit: int,
) -> bytes:
    """The frames that publish one persistent message; `body_limit`: bytes of the body that one frame may hold.

    Headers are texts and whole numbers. ValueError for a text of a property that is longer than 255 bytes.
    """
    method = b"".join((_PUBLISH_HEAD, _short(exchange), _short(routing_key), b"\x01" if mandatory else b"\x00"))
    header = _header(len(body), properties)
    parts = [_FRAME.pack(_METHOD, channel, len(method)), method, b"\xce"]
    parts += [_FRAME.pack(_HEADER, channel, len(header)), header, b"\xce"]
    for start in range(0, len(body), body_limit):
        part = body[start : start + body_limit]
        parts += [_FRAME.pack(_BODY, channel, len(part)), part, b"\xce"]
    return b"".join(parts)


_PUBLISH_HEAD = _LONG.pack(_PUBLISH) + b"\0\0"


def _header(size: int, properties: Properties) -> bytes:
    flags = 1 << 12
    before: list[bytes] = []
    after: list[bytes] = []
    for bit, name in _SHORT_STRINGS:
        if bit == 5 and properties.timestamp is not None:
            flags |= 1 << 6
            after.append(_LONG_LONG.pack(properties.timestamp))
        value = getattr(properties, name)
        if value is not None:
            flags |= 1 << bit
            (before if bit > 13 else after).append(_short(value))
    if properties.headers is not None:
        flags |= 1 << 13
        before.append(_table(properties.headers))
    return b"".join((_CONTENT.pack(60, 0, size, flags), *before, _PERSISTENT, *after))


def _table(headers: Mapping[str, str | int | None]) -> bytes:
    parts = []
    for name, value in headers.items():
        parts.append(_name(name))
        if isinstance(value, str):
            text = value.encode()
            parts += [b"S", _LONG.pack(len(text)), text]
        elif value is None:
            parts.append(b"V")
        else:
            parts += [b"l", _SIGNED.pack(value)]
    table = b"".join(parts)
    return _LONG.pack(len(table)) + table


def _short(text: str) -> bytes:
    value = text.encode()
    return bytes((len(value),)) + value


#: The names of our own headers are few; strangers' are never written.
_name = cache(_short)
