"""An operator's commands are read before they are sent, and their endings told truly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common import history, messages, recovery, saga, topology
from common.history import Became, Entry, Record
from common.messages import Body, Cancelled, Completed, Failed, Held, Pay, Rejected, Reverted
from common.recovery import Deed
from ops.acting import books, letter, telling
from ops.acting.command import SlipError, ago, moment, write
from ops.acting.ending import Ending, Outcome, told_by
from ops.acting.letter import Act, Holder
from ops.acting.past import Past

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
PAY: dict[str, str | int | None] = {
    "payment_id": "p-1",
    "user_id": "u-1",
    "reservation_id": "r-1",
    "token": "t-1",
    "amount": 300,
    "expires_at": None,
}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _failed(service: str, reason: str = "balance_too_low", **fields: Any) -> Failed:  # noqa: ANN401 - any field
    body = {"payment_id": "p-1", "user_id": "u-1", "service": service, "reason": reason, "detail": "why"}
    return Failed.model_validate(body | {"attempts": 1} | fields)


CANCELLED = Cancelled(payment_id="p-1", user_id="u-1", amount=300, cancelled_at=NOW)
REVERTED = Reverted(payment_id="p-1", user_id="u-1", reservation_id="r-1", seat="A", state="HELD", reverted_at=NOW)
COMPLETED = Completed(payment_id="p-1", user_id="u-1", amount=300, completed_at=NOW)


def _after(*events: tuple[str, Body]) -> Outcome:
    outcome = Outcome("p-1")
    for type_, body in events:
        assert not outcome.is_over, "it went on after its end"
        outcome.hear(type_, body)
    return outcome


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"amount": 0}, "amount"),
        ({"token": "a b"}, "token"),
        ({"user_id": "x" * 65}, "user_id"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"reservation_id": None}, "reservation_id"),
    ],
)
def test_a_slip_is_told_with_its_field_before_anything_is_sent(
    fields: dict[str, str | int | None], wrong: str
) -> None:
    """What a service cannot read it parks, and its sender would wait for an answer in vain."""
    with pytest.raises(SlipError, match=wrong):
        write("payment.pay", PAY | fields)


def test_a_command_is_what_its_service_would_read() -> None:
    """The same content must have the same fingerprint whoever wrote it, or asking again would be a conflict."""
    written = write("payment.pay", PAY)
    sent = written.model_dump_json(exclude_none=True).encode()
    assert messages.decode("payment.pay", sent).fingerprint() == written.fingerprint()


def test_moments_may_be_told_from_now() -> None:
    """Nobody types RFC 3339 for fun; what is typed so is passed on as it is."""
    assert moment("90s", now=NOW) == (NOW + timedelta(seconds=90)).isoformat()
    assert moment("2026-11-22T10:00:00Z", now=NOW) == "2026-11-22T10:00:00Z"
    assert moment(None) is None
    assert ago("1d", now=NOW) == NOW - timedelta(days=1)
    assert ago("2026-11-22t10:00:00z") == NOW
    for text in ("yesterday", "2026-11-22T10:00:00", "0s", "10"):
        with pytest.raises(ValueError, match="is neither a time"):
            ago(text)


def test_only_payment_completed_completes() -> None:
    """The pivot's event may still be on its way to the payment, which is provisional until then."""
    outcome = _after(("queue.expired", _forward("queue.expired")))
    assert not outcome.is_over
    outcome.hear("payment.completed", COMPLETED)
    assert outcome.ending is Ending.COMPLETED
    assert outcome.ending.is_good


def test_a_failed_saga_is_over_when_everything_before_it_is_undone() -> None:
    """Until then somebody's seat is still taken, and a person who is told the end may act on it."""
    outcome = _after(("point.failed", _failed("point")))
    assert outcome.to_undo == ("payment", "reservation")
    assert not outcome.is_over
    outcome.hear("reservation.reverted", REVERTED)
    assert not outcome.is_over
    outcome.hear("payment.cancelled", CANCELLED)
    assert outcome.ending is Ending.FAILED
    assert outcome.undone == ("payment", "reservation")
    assert telling.sentence(outcome) == "failed in point: balance_too_low: why; undone: payment, reservation"


def test_compensations_may_be_heard_before_the_failure() -> None:
    """No order is promised between events of different services."""
    outcome = _after(
        ("payment.cancelled", CANCELLED), ("reservation.reverted", REVERTED), ("point.failed", _failed("point"))
    )
    assert outcome.is_over


def test_a_failure_at_the_first_step_leaves_nothing_to_wait_for() -> None:
    """A limit refuses before anything is done."""
    assert _after(("payment.failed", _failed("payment", "over_limit"))).ending is Ending.FAILED


def test_a_failure_that_another_service_repeats_is_an_old_one() -> None:
    """Its compensations were said long ago; to wait for them would be to wait in vain."""
    outcome = _after(("payment.failed", _failed("point")))
    assert outcome.ending is Ending.FAILED
    assert outcome.to_undo == ()
    assert telling.told(outcome)["failed_in"] == "point"


def test_what_is_not_heard_to_be_undone_is_said() -> None:
    """When the time is up, the operator must know that something may be left."""
    outcome = _after(("point.failed", _failed("point", attempts=4)), ("payment.cancelled", CANCELLED))
    assert telling.sentence(outcome).endswith(
        "why (after 4 attempts); undone: payment; not heard to be undone: reservation"
    )


def test_other_sagas_are_not_heard() -> None:
    """The queue hears everybody; only one's own ending is one's own."""
    outcome = Outcome("p-2")
    assert not outcome.hear("payment.completed", COMPLETED)
    assert outcome.ending is Ending.UNDER_WAY


def test_answers_and_rejections_end_the_other_commands() -> None:
    """They are no sagas: one word is the end, good or bad."""
    held = Held(reservation_id="r-1", user_id="u-1", seat="A", price=300, held_until=NOW)
    outcome = Outcome("r-1")
    outcome.hear("reservation.held", held)
    assert outcome.ending is Ending.ANSWERED
    refused = Outcome("r-1")
    refused.hear("reservation.rejected", Rejected(id="r-1", reason="seat_taken", detail="it is sold"))
    assert refused.ending is Ending.REJECTED
    assert not refused.ending.is_good
    assert telling.sentence(refused) == "rejected: seat_taken: it is sold"


def test_an_id_that_is_used_otherwise_ends_a_payment_as_rejected() -> None:
    """The first payment goes its way; the second is answered, and must not be told the first one's end."""
    conflict = Rejected(id="p-1", reason="idempotency_conflict", detail="choose another id")
    assert _after(("payment.rejected", conflict)).ending is Ending.REJECTED


def test_an_observer_hears_nothing_that_one_step_alone_waits_for() -> None:
    """Its queue would hide from the broker that a service's is missing: the event would be confirmed, and gone."""
    heard = told_by(saga.FIRST.on)
    assert set(heard) <= set(saga.vocabulary())
    assert not any(set(saga.command_keys(service)) & set(heard) for service in saga.SERVICES)
    assert not {step.emits for step in saga.SAGA} & set(heard)
    compensations = {step.compensation for step in saga.SAGA if step.compensation}
    failures = {step.failed for step in saga.SAGA if step.refusals}
    assert compensations | failures | {"payment.completed", "payment.rejected"} <= set(heard)
    assert told_by("point.top_up") == ("point.topped_up", "point.rejected")


def _forward(type_: str) -> Body:
    service = next(step.service for step in saga.SAGA if step.on == type_)
    return messages.decode(type_, letter.made_up(service, PAY, NOW))


@pytest.mark.parametrize("service", ["payment", "reservation", "point", "queue"])
def test_a_letter_is_believed_and_fails_the_saga_in_the_service_that_holds_the_baton(service: str) -> None:
    """It is read by the service as one of its own: right type, right reason, and a body that can be read."""
    act = Act("p-1", service, by="kim", why="the seat is broken", trace=TRACE, attempts=3, at=NOW)
    origin = recovery.provenance(
        service, "saga", routing_key=topology.dead_queue(service), user_id="saga", headers=act.headers()
    )
    step = saga.step_of(service)
    assert origin.type == step.on
    assert (origin.history.reason, origin.history.attempts) == ("aborted", 3)
    assert recovery.after_death(origin.type, origin.history, levels=4, killed_by_broker=False) is None
    body = messages.decode(origin.type, letter.made_up(service, PAY, NOW))
    assert body.key == "p-1"
    assert letter.read_forward(service, letter.made_up(service, PAY, NOW)) == body


def test_the_command_that_is_aborted_keeps_its_content() -> None:
    """The real one may still come: with another fingerprint it would be a conflict, and not be told the end."""
    made = letter.made_up("payment", PAY, NOW)
    assert messages.decode("payment.pay", made).fingerprint() == write("payment.pay", PAY).fingerprint()


def test_who_and_why_is_told_the_history_and_not_the_user() -> None:
    """The detail of a failure is sent to the user; an operator's name and reasons are not for them."""
    act = Act("p-1", "point", by="kim\x1b[2J", why="fraud?", trace=TRACE, attempts=0, at=NOW)
    assert not any("fraud" in str(value) or "kim" in str(value) for value in act.headers().values())
    (told,) = history.decode(act.record())
    (entry,) = told.entries
    assert (told.service, entry.saga, entry.type) == ("operator", "p-1", "abort")
    assert (entry.by, entry.why, entry.trace) == ("kim?[2J", "fraud?", TRACE)


def test_a_message_of_another_type_is_no_letter_for_a_service() -> None:
    """Doing somebody else's step would fail somebody else's saga."""
    with pytest.raises(SlipError, match=r"this is no reservation\.confirmed"):
        letter.read_forward("point", letter.made_up("reservation", PAY, NOW))


ROWS: dict[str, str | None] = dict.fromkeys(saga.SERVICES)


@pytest.mark.parametrize("done", range(4))
def test_the_first_service_that_has_not_acted_holds_the_baton(done: int) -> None:
    """Failing any other would make two services end one saga."""
    states = ROWS | dict.fromkeys(saga.SERVICES[:done], "done")
    holder = letter.holder_by_rows("p-1", states)
    assert holder.service == (saga.SERVICES[done] if done else None)
    assert holder.unheard is (done == 0)


@pytest.mark.parametrize(
    ("states", "why"),
    [
        (dict.fromkeys(saga.SERVICES[:4], "done"), "past its pivot"),
        (dict.fromkeys(saga.SERVICES, "done"), "past its pivot"),
        ({"payment": "undone", "reservation": "failed"}, "over already: it failed in reservation"),
        ({"payment": "done", "queue": "closed"}, "over already"),
        ({"payment": "failed"}, "over already: it failed in payment"),
    ],
)
def test_what_is_past_its_pivot_or_over_is_not_aborted(states: dict[str, str | None], why: str) -> None:
    """After the pivot a saga only goes forward, and what is over has an ending of its own."""
    holder = letter.holder_by_rows("p-1", ROWS | states)
    assert holder.service is None
    assert why in holder.why


@pytest.mark.parametrize(("payment", "why"), [("COMPLETED", "past its pivot"), ("CANCELLED", "over already")])
def test_what_is_forgotten_but_for_its_payment_is_not_aborted(payment: str, why: str) -> None:
    """Rows are forgotten one day: a dead letter would find none, and fail what was paid for long ago."""
    holder = letter.holder_by_rows("p-1", ROWS, payment)
    assert (holder.service, holder.unheard) == (None, False)
    assert why in holder.why


@pytest.mark.parametrize("expires_at", [None, NOW])
def test_a_command_is_read_again_exactly_as_it_was_sent(expires_at: datetime | None) -> None:
    """Other content under the same id would be parked; whether a deadline was sent, the digest tells."""
    sent = Pay.model_validate(PAY | {"expires_at": expires_at and expires_at.isoformat()})
    row = (sent.user_id, sent.reservation_id, sent.token, sent.amount, NOW)
    assert books.as_it_was_sent("p-1", row, (sent.fingerprint(),)) == sent
    for deadline in (NOW.isoformat(sep=" "), NOW.replace(tzinfo=None)):
        elsewhere = (*row[:4], deadline)
        assert books.as_it_was_sent("p-1", elsewhere, (sent.fingerprint(),)) == sent


def test_a_command_that_nobody_knows_for_sure_is_not_sent() -> None:
    """A guess could be another command."""
    row = ("u-1", "r-1", "t-1", 300, NOW)
    assert books.as_it_was_sent("p-1", None, ("x",)) is None
    assert books.as_it_was_sent("p-1", row, None) is None
    assert books.as_it_was_sent("p-1", row, ("another",)) is None


def test_a_wish_does_not_overrule_what_is_known() -> None:
    """A service that has not been reached would be failed beside the one that holds the baton."""
    known = Holder("point", told_by="the databases")
    assert letter.choose(known, None) == known
    assert letter.choose(known, "point") == known
    assert letter.choose(known, "queue").why == "by the databases, point holds the baton, not queue"
    over = Holder(None, "it is over", "the databases")
    assert letter.choose(over, "point") == over


def test_a_wish_counts_where_nobody_knows() -> None:
    """A command that waits at the first service has left no trace anywhere."""
    assert letter.choose(None, "payment").service == "payment"
    assert letter.choose(letter.unheard_by("p-1", "the databases"), "payment").service == "payment"
    assert letter.choose(None, None).service is None
    assert letter.choose(letter.unheard_by("p-1", "the databases"), None).service is None
    assert "only goes forward" in letter.choose(None, "notify").why
    assert letter.choose(None, "nobody").why == "there is no service nobody"


def _past(*entries: tuple[str, Entry]) -> Past:
    past = Past("p-1")
    for place, (service, entry) in enumerate(entries):
        at = NOW + timedelta(seconds=place)
        past.learn(Record(service=service, replica="r", at=at, took_ms=1.0, entries=[entry]))
    return past


def _did(service: str, **fields: Any) -> tuple[str, Entry]:  # noqa: ANN401 - any field
    step = saga.step_of(service)
    entry = Entry(saga="p-1", type=step.on, deed=Deed.DID, said=[(step.emits, TRACE)], **fields)
    return service, entry


def _holder(past: Past) -> Holder:
    standing = past.standing(NOW.timestamp() + 10)
    assert standing
    return letter.holder_by_history("p-1", standing)


def test_the_history_says_who_holds_the_baton() -> None:
    """Without the databases it is all there is; it knows attempts and traces besides."""
    tried = Entry(saga="p-1", type="reservation.confirmed", became=Became.RETRY, reason="error", attempt=3)
    past = _past(_did("payment"), _did("reservation"), ("point", tried), _did("payment"))
    assert _holder(past).service == "point"
    assert past.attempts("point") == 3
    assert past.attempts("payment") == 0
    assert past.trace("reservation.confirmed") == TRACE
    assert past.trace("point.deducted") == ""


def test_the_history_refuses_after_the_pivot_and_after_the_end() -> None:
    """The same two refusals as by the databases, completed or not, undone or still at it."""
    before = [_did(service) for service in ("payment", "reservation", "point")]
    assert "past its pivot" in _holder(_past(*before, _did("queue"))).why
    completed = Entry(saga="p-1", type="queue.expired", deed=Deed.DID, said=[("payment.completed", TRACE)])
    assert "past its pivot" in _holder(_past(*before, _did("queue"), ("payment", completed))).why
    failed = Entry(
        saga="p-1", type="point.deducted", deed=Deed.FAILED, reason="unknown_token", detail="nobody has it",
        said=[("queue.failed", TRACE)],
    )  # fmt: skip
    past = _past(*before, ("queue", failed))
    assert _holder(past) == Holder(
        None, "p-1 is over already: it failed in queue (unknown_token)", told_by=letter.HISTORY
    )
    assert past.detail == "nobody has it"


def test_a_history_that_knows_nothing_says_so() -> None:
    """Silence is no ending."""
    stranger = Entry(saga="p-2", type="payment.pay", deed=Deed.DID)
    assert _past(("payment", stranger)).standing() is None
