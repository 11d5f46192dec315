"""What the services tell the history, and that whoever reads it may trust its shape."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.history import Became, Entry, Gathered, Observers, Record, decode, encode
from tests.support.eventually import eventually

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
    assert decode(encode(told)) == [told]


def batch(number: int, *, entries: int = 1) -> Record:
    """A record that is told from others by its time."""
    told = record(*(Entry(saga=f"p-{number}-{place}", type="payment.pay") for place in range(entries)))
    told.at = AT + timedelta(milliseconds=number)
    told.took_ms = number
    return told


def test_records_that_are_told_together_come_back_one_by_one() -> None:
    """A timeline orders what several services told by these times, to the millisecond."""
    told = [batch(1), batch(2, entries=3), batch(3, entries=0), batch(4)]
    assert decode(encode(*told)) == told


def test_an_older_reader_takes_what_is_told_together_for_one_record() -> None:
    """A `saga` command of yesterday goes on to work: it reads only what it knows."""
    told = json.loads(encode(batch(1), batch(2)))
    del told["batches"]
    (one,) = decode(json.dumps(told).encode())
    assert [entry.saga for entry in one.entries] == ["p-1-0", "p-2-0"]
    assert one.at == batch(2).at


@pytest.mark.parametrize("sizes", [[1], [1, 2], [3, -1], [True, True], [1.0, 1.0], ["1", "1"]])
def test_batches_that_are_not_the_entries_are_refused(sizes: list[object]) -> None:
    """A forger's numbers would otherwise tell an entry twice, or at somebody else's time."""
    told = json.loads(encode(batch(1), batch(2)))
    told["batches"] = [[size, AT.isoformat(), 1.0] for size in sizes]
    with pytest.raises(ValueError, match=r"."):
        decode(json.dumps(told).encode())


async def test_records_gather_for_a_moment_and_are_told_in_order() -> None:
    """At a low rate every batch holds one message, and would cost the broker another one."""
    messages: list[list[Record]] = []
    gathered = Gathered(lambda records: messages.append(list(records)))
    for number in (1, 2, 3):
        gathered.add(batch(number))
    assert messages == []
    await eventually(lambda: messages == [[batch(1), batch(2), batch(3)]])
    gathered.add(batch(4))
    await eventually(lambda: messages[1:] == [[batch(4)]])


async def test_many_entries_do_not_wait_and_the_rest_is_told_when_asked() -> None:
    """Under load nothing piles up here; a service that leaves keeps nothing to itself."""
    messages: list[list[Record]] = []
    gathered = Gathered(lambda records: messages.append(list(records)))
    gathered.add(batch(1))
    gathered.add(batch(2, entries=500))
    assert messages == [[batch(1), batch(2, entries=500)]]
    gathered.add(batch(3))
    gathered.tell()
    gathered.tell()
    assert messages[1:] == [[batch(3)]]


def test_what_is_empty_costs_nothing() -> None:
    """A healthy message is three words in the stream, not thirteen."""
    (entry,) = json.loads(encode(record(Entry(saga="p-1", type="payment.pay"))))["entries"]
    assert entry == {"saga": "p-1", "type": "payment.pay", "became": "done"}


@given(st.text(st.characters()), st.text())
def test_any_text_can_be_told(detail: str, saga: str) -> None:
    """A stranger's ids and errors are quoted in the history, and none of them may stop it."""
    (told,) = decode(
        encode(record(Entry(saga=saga, type="payment.pay", became=Became.DEAD, reason="x", detail=detail)))
    )
    assert told.entries[0].saga == saga.encode("utf-8", "replace").decode()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON, st.sampled_from(["service", "replica", "at", "took_ms", "entries", "batches", "v"]))
def test_a_forged_record_is_refused_with_a_value_error(value: object, name: str) -> None:
    """Anybody may write to the stream; whoever reads it goes on with the next record."""
    forged = json.loads(encode(record(Entry(saga="p-1", type="payment.pay")))) | {name: value}
    for body in (json.dumps(forged), json.dumps(value)):
        with contextlib.suppress(ValueError):
            assert all(isinstance(told, Record) for told in decode(body.encode()))


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
        ((entry,),) = (told.entries for told in decode(json.dumps(forged).encode()))
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
