"""AMQP's bytes: what is written is what pamqp would write, and what is read is what pamqp would read, or more."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from typing import Any

import pamqp.frame
import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from common import wire
from common.wire import FrameReader, Properties

_TEXTS = (
    "content_type",
    "content_encoding",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "message_type",
    "user_id",
    "app_id",
)
WHEN = datetime(2026, 1, 1, 12, tzinfo=UTC)
_short = st.text(max_size=40).filter(lambda text: len(text.encode()) < 256)
_texts = st.none() | _short
_headers = st.dictionaries(
    _short.filter(bool), st.text(max_size=60) | st.integers(-(2**63), 2**63 - 1), max_size=5
)


@pytest.fixture(autouse=True, scope="module")
def _installed() -> None:
    wire.install()


def frames_of(encoded: bytes) -> list[Any]:
    """The frames in these bytes, as pamqp reads them."""
    found = []
    while encoded:
        size, channel, frame = pamqp.frame.unmarshal(encoded)
        assert channel == 7
        found.append(frame)
        encoded = encoded[size:]
    return found


@given(
    headers=st.none() | _headers,
    texts=st.fixed_dictionaries(dict.fromkeys(_TEXTS, _texts)),
    timestamp=st.none() | st.integers(0, 2**32),
    body=st.binary(max_size=50),
)
def test_a_publish_is_read_by_pamqp_as_it_was_meant(
    headers: dict[str, Any] | None, texts: dict[str, str | None], timestamp: int | None, body: bytes
) -> None:
    """Whatever the properties: the broker and every other client read the same."""
    properties = Properties(headers=headers, timestamp=timestamp, **texts)
    encoded = wire.publish(
        7,
        exchange="saga.events",
        routing_key="payment.paid",
        body=body,
        properties=properties,
        mandatory=True,
        body_limit=20,
    )
    method, header, *parts = frames_of(encoded)
    assert (method.exchange, method.routing_key, method.mandatory) == ("saga.events", "payment.paid", True)
    assert header.body_size == len(body)
    assert b"".join(part.value for part in parts) == body
    assert all(len(part.value) <= 20 for part in parts)
    read = header.properties
    assert read.delivery_mode == 2
    assert read.headers == headers
    assert {name: getattr(read, name) for name in texts} == texts
    assert (int(read.timestamp.timestamp()) if read.timestamp else None) == timestamp


@given(
    headers=st.none() | _headers | st.just({"x-death": [{"count": 1, "time": WHEN, "routing-keys": ["a"]}]}),
    texts=st.fixed_dictionaries(dict.fromkeys(_TEXTS, _texts.filter(lambda text: text != ""))),
    numbers=st.fixed_dictionaries(
        {"delivery_mode": st.sampled_from([None, 1, 2]), "priority": st.none() | st.just(3)}
    ),
    timestamp=st.none() | st.just(WHEN),
)
def test_properties_are_read_as_pamqp_reads_them(
    headers: dict[str, Any] | None,
    texts: dict[str, str | None],
    numbers: dict[str, int | None],
    timestamp: datetime | None,
) -> None:
    """Nothing that a well-behaved client says is lost or moved to another property."""
    written = spec.Basic.Properties(headers=headers, timestamp=timestamp, **texts, **numbers)  # type: ignore[arg-type]
    payload = pamqp.frame.marshal(ContentHeader(properties=written, body_size=5), 7)[7:-1]
    read = wire.read_properties(payload)
    assert (read.headers or None) == (headers or None)
    assert {name: getattr(read, name) for name in texts} == texts
    assert {name: getattr(read, name) for name in numbers} == numbers
    assert read.timestamp == timestamp


@given(st.binary(max_size=80))
def test_no_bytes_at_all_break_the_reading_of_properties(noise: bytes) -> None:
    """A stranger may write anything there, and the connection serves everybody."""
    for flags in (b"\xff\xfe", b"\xff\xff", b"\x20\x00", b"\x00\x40"):
        assert isinstance(wire.read_properties(b"\0\x3c\0\0" + bytes(8) + flags + noise), spec.Basic.Properties)


def test_what_cannot_be_read_of_the_headers_is_told() -> None:
    """So the consumer parks the message, and does not take it for one without headers."""
    torn = b"\0\x3c\0\0" + bytes(8) + b"\x20\x00" + struct.pack(">I", 9) + b"\x02ab?"
    assert wire.read_properties(torn).headers == {wire.UNREADABLE: True}


def headers_read(headers: dict[str, Any]) -> dict[str, Any]:
    """What becomes of these headers."""
    written = spec.Basic.Properties(headers=headers, user_id="ann")
    payload = pamqp.frame.marshal(ContentHeader(0, 5, written), 7)[7:-1]
    read = wire.read_properties(payload)
    assert read.user_id == "ann", "what comes after the headers is lost"
    return read.headers or {}


@pytest.mark.parametrize("over", [False, True])
def test_headers_are_read_up_to_their_limits(*, over: bool) -> None:
    """Hundreds of deliveries are held at once; a stranger's headers must not decide what that takes."""
    many = {f"{number:03}": "x" for number in range(wire.MAX_HEADER_VALUES + over)}
    room = wire.MAX_HEADER_BYTES - len(b"\x04longS\0\0\0\0")
    long = {"long": "x" * (room + over)}
    inside = {"list": [{"a": 1, "b": [True, True]}] * ((wire.MAX_HEADER_VALUES - 1) // 5 + over)}
    for headers in (many, long, inside):
        read = headers_read(headers)
        if over:
            assert "the limit is" in read[wire.UNREADABLE]
        else:
            assert read == headers


def fed(data: bytes, *, ends: bool = True) -> FrameReader:
    """A reader of these bytes."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    if ends:
        reader.feed_eof()
    return FrameReader(reader)


DELIVERY = (
    pamqp.frame.marshal(spec.Basic.Deliver("ctag", 5, redelivered=True, exchange="e", routing_key="k"), 7)
    + pamqp.frame.marshal(ContentHeader(body_size=3), 7)
    + pamqp.frame.marshal(ContentBody(b"abc"), 7)
    + pamqp.frame.marshal(spec.Basic.Ack(9, multiple=True), 7)
    + pamqp.frame.marshal(spec.Basic.Nack(10), 7)
    + pamqp.frame.marshal(Heartbeat(), 0)
)


@pytest.mark.parametrize("step", [1, 2, 7, 64, 10_000])
async def test_frames_are_the_same_however_the_socket_cuts_them(step: int) -> None:
    """TCP knows no frames."""
    reader = asyncio.StreamReader()
    frames = FrameReader(reader)
    reading = asyncio.create_task(_some(frames, 6))
    for start in range(0, len(DELIVERY), step):
        reader.feed_data(DELIVERY[start : start + step])
        await asyncio.sleep(0)
    deliver, header, body, ack, nack, heartbeat = await reading
    assert (deliver.delivery_tag, deliver.redelivered, deliver.exchange, deliver.routing_key) == (
        5,
        True,
        "e",
        "k",
    )
    assert (header.body_size, body.value) == (3, b"abc")
    assert (ack.delivery_tag, ack.multiple, nack.delivery_tag) == (9, True, 10)
    assert isinstance(heartbeat, Heartbeat)


async def _some(frames: FrameReader, count: int) -> list[Any]:
    return [(await frames.get_frame())[2] for _ in range(count)]


async def test_a_connection_that_closes_while_a_frame_is_awaited_is_an_error() -> None:
    """Also for whoever is just connecting: it must not look like the end of a loop."""
    reader = asyncio.StreamReader()
    reading = asyncio.create_task(FrameReader(reader).get_frame())
    await asyncio.sleep(0)
    reader.feed_eof()
    with pytest.raises(AMQPConnectionError, match="closed"):
        await reading


async def _all(frames: FrameReader) -> list[Any]:
    return [frame async for _, _, frame in frames]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (DELIVERY[:33], AMQPConnectionError),
        (DELIVERY[:8] + b"?" * (len(DELIVERY) - 8), InvalidFrameError),
        (b"AMQP\0\0\x09\x01", ProtocolSyntaxError),
        (struct.pack(">BHI", 1, 7, 4) + b"\x7f\x7f\x7f\x7f\xce", InvalidFrameError),
    ],
    ids=["cut off", "no end", "another version", "unknown method"],
)
async def test_a_stream_that_is_not_amqp_ends_the_connection_with_a_reason(
    data: bytes, error: type[Exception]
) -> None:
    """The session ends, and the next one starts from nothing."""
    with pytest.raises(error):
        await _all(fed(data))


def test_a_text_too_long_for_its_property_is_refused_before_it_is_sent() -> None:
    """Half a frame on the wire would cost the connection."""
    with pytest.raises(ValueError, match="256"):
        wire.publish(
            1,
            exchange="",
            routing_key="k",
            body=b"",
            properties=Properties(user_id="x" * 300),
            mandatory=False,
            body_limit=10,
        )
