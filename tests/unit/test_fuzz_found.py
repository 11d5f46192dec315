"""What the search for hostile input found, each under its name: mended, and not to come back."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
from aiormq.exceptions import InvalidFrameError

from common import history, messages, wire
from common.messages import Malformed
from fuzz import samples
from fuzz.targets import frames, records
from ops import output


@pytest.mark.parametrize("kind", [1, 2], ids=["method", "header"])
@pytest.mark.parametrize("payload", [b"", b"\0\x3c", bytes(4)])
def test_a_frame_too_short_for_what_it_is_ends_the_session_with_a_reason(kind: int, payload: bytes) -> None:
    """It once raised what no session expects."""
    data = struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce"
    frames.run(data)
    if payload == b"":
        reader = wire.FrameReader(frames._Socket(data))  # type: ignore[arg-type]
        with pytest.raises(InvalidFrameError, match="short"):
            reader.get_frame().send(None)


class Name(str):
    """A field's name that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Name.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_field_that_appears_twice_among_thousands_is_found_without_comparing_each_with_each() -> None:
    """One body of 64 KiB once took half a second, a full prefetch minutes: longer than the heartbeat waits."""
    pairs = [(Name(number), 0) for number in range(5000)]
    Name.compared = 0
    with pytest.raises(Malformed, match="4999"):
        messages._unique([*pairs, (Name(4999), 1)])
    assert Name.compared < 10 * len(pairs)


@pytest.mark.parametrize("kind", [b"A", b"F"], ids=["lists", "tables"])
def test_nested_headers_take_no_more_memory_than_flat_ones(kind: bytes) -> None:
    """Each level once copied all that was inside: a header of 120 KiB took 128 MB, a service's whole allowance."""
    wire.install()
    inside = samples.entry(b"a", b"S", samples.long(b"x" * 100_000))
    if kind == b"A":
        inside = inside[2:]
    for level in range(900):
        nested = kind + samples.long(inside)
        inside = nested if kind == b"A" or level == 899 else samples.short(b"a") + nested
    table = samples.short(b"a") + inside
    tracemalloc.start()
    try:
        read = wire.read_properties(b"\0\x3c\0\0" + bytes(8) + samples.properties(table))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000
    assert wire.UNREADABLE in repr(read.headers)


def test_headers_nested_as_the_broker_nests_them_are_read() -> None:
    """`x-death` is a list of tables with lists in them."""
    wire.install()
    death = {"x-death": [{"queue": "point.events", "routing-keys": ["point.return"], "count": 1}]}
    assert wire.read_properties(b"\0\x3c\0\0" + bytes(8) + samples.properties(death)).headers == death


@pytest.mark.parametrize(
    "took",
    [float("nan"), float("inf"), -1, 10**400, "7", None, [1]],
    ids=["nan", "infinity", "negative", "huge", "text", "null", "list"],
)
def test_a_record_that_took_no_real_time_is_no_record(took: object) -> None:
    """NaN once stopped `saga show`, and stayed in the board's means for ever, as JSON that no browser reads."""
    body = json.dumps(samples.record(took_ms=took)).encode()
    with pytest.raises(ValueError, match="took_ms"):
        history.decode(body)
    records.run(body)


@pytest.mark.parametrize("name", ["attempt", "delay_ms", "waited_ms", "lasted_ms"])
@pytest.mark.parametrize(
    "number", [-1, 10**400, -(10**400), 1.5], ids=["negative", "huge", "hugely negative", "fraction"]
)
def test_a_record_with_a_number_that_cannot_be_is_no_record(name: str, number: float) -> None:
    """A division by which a span is told once ended `saga show` and the board with OverflowError."""
    entry = {"saga": "p-1", "type": "payment.pay", "became": "retry", name: number}
    with pytest.raises(ValueError, match=name):
        history.decode(json.dumps(samples.record(entries=[entry])).encode())


def test_json_for_programs_does_not_steer_the_terminal_that_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    """U+009B begins a control sequence, U+202E turns the rest of a line around; both once came through --json."""
    told = {"detail": "\x9b2J\u202edenepo\ud800\n\x1b"}
    output.tell_json(told)
    shown = capsys.readouterr().out
    assert shown.isascii()
    assert json.loads(shown) == told
