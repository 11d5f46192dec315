"""What the services tell the history, and that whoever reads it may trust its shape."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.history import Became, Entry, Observers, Record, decode, encode

AT = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


def record(*entries: Entry) -> Record:
    """A record of the payment service."""
    return Record(service="payment", replica="host-1", at=AT, took_ms=1.5, entries=list(entries))


def test_a_record_comes_back_as_it_was_told() -> None:
    """Operators see what the service saw, to the microsecond."""
    told = record(
        Entry(saga="p-1", type="payment.pay", deed="did", said=(("payment.paid", TRACE),), waited_ms=7),
        Entry(saga="p-2", type="payment.paid", became=Became.RETRY, reason="error", detail="boom", delay_ms=5000),
        Entry(saga="p-2", type="payment.paid", became=Became.DEAD, reason="error", attempt=2, trace=TRACE),
        Entry(saga="", type="nonsense", became=Became.PARKED, reason="bad_body", detail="no JSON"),
        Entry(saga="p-3", type="discard", by="kim", why="typed by hand"),
    )
    assert decode(encode(told)) == told


def test_what_is_empty_costs_nothing() -> None:
    """A healthy message is three words in the stream, not thirteen."""
    (entry,) = json.loads(encode(record(Entry(saga="p-1", type="payment.pay"))))["entries"]
    assert entry == {"saga": "p-1", "type": "payment.pay", "became": "done"}


@given(st.text(st.characters()), st.text())
def test_any_text_can_be_told(detail: str, saga: str) -> None:
    """A stranger's ids and errors are quoted in the history, and none of them may stop it."""
    told = decode(
        encode(record(Entry(saga=saga, type="payment.pay", became=Became.DEAD, reason="x", detail=detail)))
    )
    assert told.entries[0].saga == saga.encode("utf-8", "replace").decode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON, st.sampled_from(["service", "replica", "at", "took_ms", "entries", "v"]))
def test_a_forged_record_is_refused_with_a_value_error(value: object, name: str) -> None:
    """Anybody may write to the stream; whoever reads it goes on with the next record."""
    forged = json.loads(encode(record(Entry(saga="p-1", type="payment.pay")))) | {name: value}
    for body in (json.dumps(forged), json.dumps(value)):
        with contextlib.suppress(ValueError):
            assert isinstance(decode(body.encode()), Record)


@given(st.binary())
def test_nonsense_is_refused_with_a_value_error(body: bytes) -> None:
    """Bytes that are no JSON at all, too."""
    with pytest.raises(ValueError, match=r"."):
        decode(body)


@given(
    _JSON, st.sampled_from(["saga", "type", "became", "deed", "reason", "attempt", "said", "trace", "waited_ms"])
)
def test_a_forged_entry_is_refused_with_a_value_error(value: object, name: str) -> None:
    """As deep as it may be hidden."""
    forged = json.loads(encode(record(Entry(saga="p-1", type="payment.pay"))))
    forged["entries"][0][name] = value
    with contextlib.suppress(ValueError):
        (entry,) = decode(json.dumps(forged).encode()).entries
        assert isinstance(entry.saga, str)
        assert isinstance(entry.attempt, int)


def test_an_observer_that_stumbles_hurts_nobody() -> None:
    """What was done is done: metrics with a bug must not cost a message."""
    observers = Observers()
    heard: list[Record] = []

    def stumbles(_: Record) -> None:
        raise RuntimeError("boom")

    def unmade() -> Record:
        raise RuntimeError("boom")

    with observers.joined_by(stumbles), observers.joined_by(heard.append):
        observers.tell(record)
        observers.tell(unmade)
    observers.tell(unmade)
    assert len(heard) == 1
