"""What is staged in the outbox, before any database: which events, how often, and what they are called."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import saga
from common.outbox import GRACE, Outbox, is_mandatory, message_id

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("type_", "mandatory"),
    [
        ("payment.paid", True),
        ("reservation.confirmed", True),
        ("point.deducted", True),
        ("queue.expired", True),
        ("payment.failed", True),
        ("queue.failed", True),
        ("payment.completed", False),
        ("payment.cancelled", False),
        ("reservation.reverted", False),
        ("point.restored", False),
        ("notification.sent", False),
        ("reservation.held", False),
        ("point.rejected", False),
    ],
)
def test_an_event_that_a_service_waits_for_must_find_a_queue(type_: str, *, mandatory: bool) -> None:
    """One that only observers read may go nowhere: nobody has to be there to observe."""
    assert is_mandatory(type_) is mandatory


def test_the_id_of_a_message_is_the_same_in_every_version() -> None:
    """During a rolling upgrade two versions say the same thing, and observers must see one message."""
    assert message_id("p-1", "payment.paid") == "705981cd-e9f3-5707-bfab-392ca6658682"


def test_what_is_said_twice_in_a_batch_is_staged_once() -> None:
    """A repetition in the same breath says nothing new; another body, saga or type does."""
    outbox = Outbox(NOW)
    for body in ("{}", "{}", '{"a": 1}'):
        for key in ("p-1", "p-2"):
            for type_ in (saga.FIRST.emits, saga.FIRST.failed):
                outbox.stage(type_, key, body, TRACE)
    said = [(row.type, row.key, row.body) for row in outbox.events]
    assert len(said) == len(set(said)) == 8
    assert said[0] == (saga.FIRST.emits, "p-1", "{}"), "in the order in which it was staged"


def test_a_staged_event_is_its_own_process_to_publish_for_a_while() -> None:
    """Until it is due no sweeper takes it, here or in another replica."""
    outbox = Outbox(NOW)
    outbox.stage("payment.paid", "p-1", "{}", TRACE)
    (row,) = outbox.events
    assert (row.staged_at, row.due_at) == (NOW, NOW + GRACE)
    assert row.parked_because is None
    assert row.traceparent.split("-")[1] == TRACE.split("-")[1]


def test_what_is_parked_keeps_what_it_was_and_says_why() -> None:
    """It waits for a person, who has nothing else to go by."""
    outbox = Outbox(NOW)
    outbox.park("notification.sent", "p-1", '{"a": 1}', reason="channel_failed", detail="the mailbox is full")
    (row,) = outbox.events
    assert (row.type, row.key, row.body) == ("notification.sent", "p-1", '{"a": 1}')
    assert (row.parked_because, row.detail) == ("channel_failed", "the mailbox is full")
    assert (row.staged_at, row.due_at) == (NOW, NOW + GRACE)


@given(key=st.text(max_size=64), type_=st.text(max_size=64))
def test_a_message_id_is_the_uuid_of_its_saga_and_type(key: str, type_: str) -> None:
    """Design and RFC 9562 say UUIDv5; outsiders may compute it, too."""
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, "https://concert-saga.example/messages")
    assert message_id(key, type_) == str(uuid.uuid5(namespace, f"{key}/{type_}"))
