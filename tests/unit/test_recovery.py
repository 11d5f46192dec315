"""What becomes of a message that failed, and whose word about its past is believed."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import recovery, saga, topology
from common.db import Fault
from common.messages import MAX_DETAIL, TYPES, Malformed, UnknownType
from common.recovery import Dead, History, Origin, Outcome, Parked, Promise, Retry
from common.settings import Delay

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
BOOM = RuntimeError("boom")
FORWARD = "payment.paid"
DELAYS = tuple(Delay.parse(text) for text in ("1s", "5s", "30s", "5m"))


def disposed(
    type_: str, error: Exception, *, fault: Fault = Fault.OTHER, attempts: int = 0, since: datetime | None = None
) -> Outcome:
    """What becomes of a message with four retry levels, unknown types being retried for an hour."""
    history = History(attempts=attempts, first_failed_at=since)
    return recovery.disposition(type_, error, fault, history, levels=4, now=NOW, unknown_for=HOUR)


def of(outcome: Outcome | None) -> tuple[str, int | str]:
    """An outcome in short: what, and the level or the reason."""
    match outcome:
        case Retry():
            return ("for ever" if outcome.persistent else "retry", outcome.level)
        case Dead() | Parked():
            return (type(outcome).__name__.lower(), outcome.reason)
    raise AssertionError(outcome)


@pytest.mark.parametrize("type_", sorted(TYPES))
def test_compensations_and_what_follows_the_pivot_are_never_given_up(type_: str) -> None:
    """Giving up on one of these would tear a saga; anything else ends in a clean failure."""
    for_ever = type_.endswith(".failed") or type_ in {"queue.expired", "payment.settled"}
    assert (recovery.promise(type_) is Promise.FOR_EVER) == for_ever


@pytest.mark.parametrize(
    ("type_", "attempts", "fault", "expected"),
    [
        (FORWARD, 0, Fault.OTHER, ("retry", 0)),
        (FORWARD, 1, Fault.OTHER, ("retry", 1)),
        (FORWARD, 3, Fault.OTHER, ("retry", 3)),
        (FORWARD, 4, Fault.OTHER, ("dead", "retries_spent")),
        (FORWARD, 99, Fault.OTHER, ("dead", "retries_spent")),
        (FORWARD, 0, Fault.RACE, ("retry", 0)),
        (FORWARD, 4, Fault.RACE, ("dead", "retries_spent")),
        (FORWARD, 0, Fault.DATA, ("dead", "data_error")),
        ("payment.pay", 0, Fault.DATA, ("dead", "data_error")),
        ("point.top_up", 4, Fault.OTHER, ("dead", "retries_spent")),
        ("queue.failed", 0, Fault.OTHER, ("for ever", 0)),
        ("queue.failed", 4, Fault.OTHER, ("for ever", 3)),
        ("queue.failed", 99, Fault.OTHER, ("for ever", 3)),
        ("queue.failed", 0, Fault.DATA, ("for ever", 0)),
        ("queue.expired", 99, Fault.DATA, ("for ever", 3)),
    ],
)
def test_a_message_whose_handling_failed(
    type_: str, attempts: int, fault: Fault, expected: tuple[str, object]
) -> None:
    """Transient until the levels are used up; content that cannot be stored is not tried again in vain."""
    outcome = disposed(type_, BOOM, fault=fault, attempts=attempts)
    assert of(outcome) == expected
    if isinstance(outcome, Retry):
        assert outcome.attempt == attempts + 1
        assert outcome.detail == "RuntimeError: boom"


def test_a_message_that_cannot_be_read_is_parked_whatever_its_type_claims() -> None:
    """Even a compensation: retrying would not make it readable."""
    for type_ in (FORWARD, "queue.failed"):
        assert of(disposed(type_, Malformed("not_json", "it is not"), attempts=99)) == ("parked", "not_json")


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (None, ("retry", 3)),
        (NOW, ("retry", 3)),
        (NOW - HOUR + timedelta(seconds=1), ("retry", 3)),
        (NOW - HOUR, ("parked", "unknown_type")),
    ],
)
def test_an_unknown_type_is_retried_slowly_for_a_bounded_time(
    since: datetime | None, expected: tuple[str, object]
) -> None:
    """During a rolling upgrade a newer twin may know it; afterwards a person must."""
    assert of(disposed("payment.refund", UnknownType("payment.refund"), attempts=50, since=since)) == expected


def test_an_unknown_type_is_named_and_its_attempts_are_counted() -> None:
    """Whoever looks at the queue sees which type no version knew, and how long it has been going round."""
    unknown = UnknownType("payment.refund")
    again = disposed("payment.refund", unknown, attempts=50, since=NOW)
    assert isinstance(again, Retry)
    assert (again.attempt, again.persistent) == (51, False)
    parked = disposed("payment.refund", unknown, attempts=50, since=NOW - HOUR)
    assert isinstance(parked, Parked)
    assert "payment.refund" in again.detail
    assert "payment.refund" in parked.detail


def test_content_that_cannot_be_stored_dies_with_the_error_that_said_so() -> None:
    """It becomes the detail of the failure that the user is told."""
    assert disposed(FORWARD, BOOM, fault=Fault.DATA) == Dead("data_error", "RuntimeError: boom")


def test_the_headers_of_a_copy_are_bounded() -> None:
    """As long as AMQP and our own bound allow, and no longer."""
    assert copied({"tracestate": "x" * 512})["tracestate"] == "x" * 512
    assert "tracestate" not in copied({"tracestate": "x" * 513})
    assert copied({}, Origin("x" * 300, History()))["x-type"] == "x" * 255


@given(st.text())
def test_the_detail_of_a_failure_can_be_a_header_and_a_field(text: str) -> None:
    """An error's text may quote anything, and it is published, stored and shown."""
    for error in (RuntimeError(text), UnknownType(text)):
        outcome = disposed(FORWARD, error)
        assert isinstance(outcome, Retry)
        assert 1 <= len(outcome.detail) <= MAX_DETAIL
        assert outcome.detail.isprintable() or " " in outcome.detail or not outcome.detail.isascii()
        outcome.detail.encode()


# --- dead letters


@pytest.mark.parametrize(
    ("type_", "reason", "killed", "expected"),
    [
        (FORWARD, "retries_spent", False, None),
        (FORWARD, "unknown_reservation", False, None),
        (FORWARD, "", False, None),
        (FORWARD, "", True, ("retry", 0)),
        (FORWARD, "error", True, ("retry", 0)),
        (FORWARD, recovery.CRASH_GUARD, True, None),
        ("queue.failed", "", True, ("retry", 0)),
        ("queue.failed", recovery.CRASH_GUARD, True, ("for ever", 3)),
        ("queue.failed", "error", False, ("for ever", 3)),
        ("queue.expired", "error", False, ("for ever", 3)),
        ("queue.enter", recovery.CRASH_GUARD, True, None),
    ],
)
def test_a_dead_letter_before_its_service_is_asked(
    type_: str, reason: str, *, killed: bool, expected: tuple[str, object] | None
) -> None:
    """What the broker killed may be a neighbour of the killer; what holds a saga together goes round for ever."""
    history = History(attempts=3, reason=reason, detail="why")
    outcome = recovery.after_death(type_, history, levels=4, killed_by_broker=killed)
    assert (of(outcome) if outcome else None) == expected
    if isinstance(outcome, Retry):
        assert outcome.attempt == 4
        assert History(reason=outcome.reason).is_suspect == killed, "what was killed is handled alone"


@pytest.mark.parametrize("type_", ["queue.failed", "queue.expired"])
def test_what_is_never_given_up_keeps_its_reason_on_every_round(type_: str) -> None:
    """Whoever answers the alarm needs the first cause, also after a week of rounds."""
    told = recovery.after_death(
        type_, History(attempts=7, reason="dead_letter_failed", detail="no room"), levels=4, killed_by_broker=False
    )
    assert told == Retry(3, "dead_letter_failed", "no room", 8, persistent=True)


def test_what_is_never_given_up_is_given_a_reason_if_it_comes_without_one() -> None:
    """A copy that a person made has no headers of ours; it must still be told apart from a suspect."""
    told = recovery.after_death("queue.failed", History(), levels=4, killed_by_broker=False)
    assert isinstance(told, Retry)
    assert (told.level, told.reason, told.attempt, told.persistent) == (3, "error", 1, True)
    assert told.detail


# --- whose word is believed

OURS = {
    recovery.TYPE: FORWARD,
    recovery.ATTEMPT: 3,
    recovery.REASON: "error",
    recovery.DETAIL: "boom",
    recovery.FIRST_FAILED_AT: NOW.isoformat(),
}
BELIEVED = Origin(FORWARD, History(3, "error", "boom", NOW))


def death(key: str, *, queue: str = "reservation.events", reason: str = "delivery_limit") -> dict[str, object]:
    """An entry of `x-death`, as the broker writes it."""
    return {"queue": queue, "reason": reason, "routing-keys": [key], "exchange": "saga.events", "count": 1}


def origin(routing_key: str, headers: Mapping[str, object], user: str | None = "saga-reservation") -> Origin:
    """Where the reservation service, logged in as saga-reservation, takes a delivery to come from."""
    return recovery.provenance(
        "reservation", "saga-reservation", routing_key=routing_key, user_id=user, headers=headers
    )


def test_our_own_retry_comes_back_with_its_past() -> None:
    """Its routing key is the way back; its type and attempts are in our headers."""
    assert origin("reservation.return", OURS) == BELIEVED
    assert origin("reservation.dead", OURS) == BELIEVED


@pytest.mark.parametrize(
    "routing_key", [FORWARD, "queue.failed", "reservation.hold", "payment.return", "point.dead", "payment.dead"]
)
@pytest.mark.parametrize("user", ["saga-reservation", "mallory", None])
def test_forged_headers_are_ignored_off_the_way_back(routing_key: str, user: str | None) -> None:
    """Elsewhere anybody may have written them, so the routing key alone decides the type."""
    forged = OURS | {"x-death": [death("queue.failed")], recovery.TYPE: "queue.failed"}
    assert origin(routing_key, forged, user) == Origin(routing_key, History(), publisher=user)


@pytest.mark.parametrize("routing_key", ["reservation.return", "reservation.dead"])
@pytest.mark.parametrize("user", ["mallory", "", None, "saga-point", "SAGA-RESERVATION"])
def test_forged_headers_are_ignored_on_the_way_back_too(routing_key: str, user: str | None) -> None:
    """Only the service's own user is believed, and the broker vouches for the user."""
    assert origin(routing_key, OURS, user) == Origin(routing_key, History(), publisher=user)
    assert origin(routing_key, OURS, user).type not in TYPES


@pytest.mark.parametrize("reason", ["delivery_limit", "expired"])
def test_the_broker_tells_under_which_key_it_gave_up_on_a_message(reason: str) -> None:
    """The crash guard, or an expiry that a publisher has set on its own command."""
    told = origin("reservation.dead", {"x-death": [death(FORWARD, reason=reason)]}, "anybody")
    assert told == Origin(FORWARD, History(), killed_by_broker=True, publisher="anybody")


def test_a_retry_that_the_broker_gave_up_on_keeps_its_past() -> None:
    """Its key was the way back, so its type is in our headers; they are ours only if the user is."""
    headers = OURS | {"x-death": [death("reservation.return")]}
    assert origin("reservation.dead", headers) == Origin(BELIEVED.type, BELIEVED.history, killed_by_broker=True)
    stranger = origin("reservation.dead", headers, "mallory")
    assert stranger == Origin("reservation.return", History(), killed_by_broker=True, publisher="mallory")
    assert stranger.type not in TYPES


@pytest.mark.parametrize(
    "deaths",
    [
        None,
        "x",
        5,
        [],
        ["x"],
        [{}],
        [death(FORWARD, queue="point.events")],
        [death(FORWARD, queue="reservation.retry.1s", reason="expired")],
        [death(FORWARD, reason="rejected")],
        [death(FORWARD, reason="maxlen")],
        [death(FORWARD) | {"routing-keys": []}],
        [death(FORWARD) | {"routing-keys": "x"}],
        [death(FORWARD) | {"reason": []}],
        [death(FORWARD) | {"queue": {}}],
    ],
)
def test_an_x_death_that_tells_of_no_death_in_our_queues_is_ignored(deaths: object) -> None:
    """Retries leave entries too, and whoever publishes may write what they like."""
    assert origin("reservation.dead", OURS | {"x-death": deaths}) == BELIEVED


@pytest.mark.parametrize("key", [FORWARD, "queue.failed"])
def test_a_forged_x_death_cannot_turn_a_command_into_an_event(key: str) -> None:
    """A user who may only send commands must not speak for a service by letting a command expire."""
    forged = {"x-death": [death(key, queue="reservation.commands", reason="expired")]}
    assert origin("reservation.dead", forged, "anybody").type not in {FORWARD, "queue.failed"}


Scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
Headers = st.dictionaries(
    st.sampled_from([*OURS, recovery.FAILED_IN, "x-death", "traceparent", "tracestate", "x-delivery-count"])
    | st.text(),
    Scalars | st.lists(Scalars | st.dictionaries(st.text(), Scalars)) | st.dictionaries(st.text(), Scalars),
)


@given(
    headers=Headers, key=st.sampled_from(["reservation.dead", "reservation.return", FORWARD]), ours=st.booleans()
)
def test_no_headers_can_trip_the_reading_of_a_delivery(
    headers: dict[str, object], key: str, *, ours: bool
) -> None:
    """What is raised here would end the session, and the message would come again: a loop anybody could start."""
    told = origin(key, headers, "saga-reservation" if ours else "mallory")
    assert told.history.attempts >= 0
    if not ours:
        assert told == Origin(key, History(), publisher="mallory")


@pytest.mark.parametrize("attempt", [-1, None, "5", 1.5, [5]])
def test_an_attempt_that_is_no_number_counts_as_none(attempt: object) -> None:
    """A copy that a person edited must not stop the service."""
    assert origin("reservation.return", OURS | {recovery.ATTEMPT: attempt}).history.attempts == 0


def test_a_copy_without_a_past_has_none() -> None:
    """Moved by hand, it tells its type and nothing else; no reason must not become one."""
    assert origin("reservation.return", {recovery.TYPE: FORWARD}) == Origin(FORWARD, History())
    assert origin("reservation.return", {}).type == ""


@pytest.mark.parametrize("way", ["reservation.return", "reservation.dead", "reservation.replay"])
@pytest.mark.parametrize("publisher", ["payment", None])
def test_a_copy_keeps_who_published_the_original(way: str, publisher: str | None) -> None:
    """Else our own name on the copy would vouch for whatever somebody sent us once."""
    headers = copied({"x-published-by": "reservation"}, Origin(FORWARD, History(), publisher=publisher))
    assert headers.get("x-published-by") == publisher
    assert origin(way, headers).publisher == publisher
    assert origin(way, headers, "mallory").publisher == "mallory"


def rejected(queue: str = "reservation.parked") -> dict[str, object]:
    """What the broker writes when an operator rejects a letter."""
    return death(queue, queue=queue, reason="rejected")


def test_what_an_operator_gives_back_begins_anew() -> None:
    """It is the service's own copy, unchanged; its attempts are not counted on."""
    back = OURS | {"x-death": [rejected()]}
    assert origin("reservation.replay", back) == Origin(FORWARD, History())
    stranger = origin("reservation.replay", back, "operator")
    assert stranger == Origin("reservation.replay", History(), publisher="operator")


@pytest.mark.parametrize("user", ["payment", "saga-reservation"])
def test_an_original_that_is_given_back_stays_a_suspect_and_its_publishers(user: str) -> None:
    """The broker moved it, so nobody has written its type on it; it may still be what kills the service."""
    deaths = {"x-death": [rejected("reservation.dead"), death(FORWARD)]}
    told = origin("reservation.replay", OURS | deaths, user)
    assert told == Origin(FORWARD, History(reason=recovery.CRASH_GUARD), publisher=user)
    retried = {"x-death": [rejected("reservation.dead"), death("reservation.return")]}
    assert origin("reservation.replay", OURS | retried) == Origin(FORWARD, History(reason=recovery.CRASH_GUARD))
    suspect = OURS | {recovery.REASON: recovery.CRASH_GUARD, "x-death": [rejected()]}
    assert origin("reservation.replay", suspect).history.is_suspect


def test_an_operators_letter_is_about_the_services_own_part_and_nothing_else() -> None:
    """Whoever may end a saga must not be able to say anything else by it."""
    told = origin("reservation.abort", OURS | {recovery.TYPE: "queue.failed"}, "kim")
    assert (told.type, told.publisher, told.aborted) == (FORWARD, "kim", True)
    assert (told.history.reason, told.history.attempts) == ("aborted", 3)
    assert not origin("reservation.abort", OURS, None).aborted
    assert not origin("point.abort", OURS, "kim").aborted


def test_a_letter_that_an_operator_wrote_stays_one_when_it_is_parked_and_replayed() -> None:
    """Its body is the operator's: as a forward message it would do a part of a saga that never came there."""
    told = origin("reservation.abort", OURS, "kim")
    back = copied({}, told) | {"x-death": [rejected()]}
    assert origin("reservation.replay", back).type == "reservation.abort"
    assert "reservation.abort" not in TYPES


def test_times_are_told_in_utc_wherever_the_service_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas in two time zones write one kind of header."""
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Seoul")
        time.tzset()
        try:
            told = origin("reservation.return", OURS | {recovery.FIRST_FAILED_AT: "2026-11-22T19:00:00+09:00"})
            assert copied({}, told)["x-first-failed-at"] == NOW.isoformat()
        finally:
            elsewhere.undo()
            time.tzset()


@pytest.mark.parametrize("time", ["yesterday", "", 5, None])
def test_a_first_failure_at_no_time_is_forgotten(time: object) -> None:
    """As above."""
    assert origin("reservation.return", OURS | {recovery.FIRST_FAILED_AT: time}).history.first_failed_at is None


def test_a_first_failure_outside_the_calendar_is_forgotten() -> None:
    """As above, at the edge of the calendar."""
    headers = OURS | {recovery.FIRST_FAILED_AT: "0001-01-01T00:00:00+23:00"}
    assert origin("reservation.return", headers).history.first_failed_at is None


# --- copies


def copied(headers: Mapping[str, object], told: Origin = BELIEVED) -> dict[str, str | int]:
    """The headers of a copy that failed for the fourth time."""
    return recovery.copy_headers(
        headers, told, reason="error", detail="boom\n", attempt=4, failed_in="reservation.events", now=NOW + HOUR
    )


def test_a_copy_says_why_where_when_and_after_how_many_attempts() -> None:
    """It is all that a person sees of it in the management UI."""
    assert copied({}) == {
        "x-type": FORWARD,
        "x-attempt": 4,
        "x-reason": "error",
        "x-detail": "boom?",
        "x-first-failed-at": NOW.isoformat(),
        "x-failed-in": "reservation.events",
    }


def test_the_first_failure_is_now_when_there_was_none_before() -> None:
    """The time that is kept is that of the first."""
    assert copied({}, Origin(FORWARD, History()))["x-first-failed-at"] == (NOW + HOUR).isoformat()


@given(headers=Headers)
def test_a_copy_keeps_flat_scalars_from_an_allow_list_and_nothing_else(headers: dict[str, object]) -> None:
    """Streams drop arrays and tables, and a stranger's header must not become ours by being copied."""
    told = copied(headers)
    own = set(copied({}))
    assert set(told) - own <= {"traceparent", "tracestate"}
    assert all(isinstance(value, str | int) for value in told.values())
    assert all(len(value) <= 512 for value in told.values() if isinstance(value, str))
    assert {name: told[name] for name in own} == copied({})


def test_the_trace_survives_the_copy() -> None:
    """A retry belongs to the trace of its saga."""
    assert copied({"traceparent": "00-a-b-01", "tracestate": "x=y"}).items() >= {
        ("traceparent", "00-a-b-01"),
        ("tracestate", "x=y"),
    }
    assert "traceparent" not in copied({"traceparent": "x" * 513})


def test_what_was_copied_is_believed_when_it_returns() -> None:
    """The two halves of recovery fit each other."""
    told = origin("reservation.return", copied({}))
    assert told == Origin(FORWARD, History(4, "error", "boom?", NOW))


@pytest.mark.parametrize("text", ["1ms", "10ms", "1s", "30s", "5m"])
def test_a_retry_waits_for_0_8_to_1_0_of_its_level(text: str) -> None:
    """What failed together comes back apart, and never later than the queue's own limit."""
    delay = Delay.parse(text)
    chance = random.Random(1)
    waits = [recovery.expiration(delay, chance) for _ in range(500)]
    assert min(waits) >= max(1, int(0.8 * delay.milliseconds))
    assert max(waits) <= delay.milliseconds
    if delay.milliseconds >= 1000:
        assert max(waits) - min(waits) > 0.15 * delay.milliseconds


@pytest.mark.parametrize(
    ("outcome", "queue"),
    [
        (Retry(0, "error", "boom", 1), "point.retry.1s"),
        (Retry(3, "error", "boom", 9, persistent=True), "point.retry.5m"),
        (Dead("retries_spent", "boom"), "point.dead"),
        (Parked("not_json", "boom"), "point.parked"),
    ],
)
def test_every_outcome_that_is_not_the_end_has_its_queue(outcome: Retry | Dead | Parked, queue: str) -> None:
    """Each is bound under its own name on the exchange of recovery."""
    assert recovery.destination("point", outcome, DELAYS) == queue
    assert queue in {binding.key for binding in topology.derive(DELAYS).bindings}


def test_the_reasons_of_the_machinery_are_codes() -> None:
    """They end up in `<service>.failed`, whose reader relies on their form."""
    for code in (recovery.CRASH_GUARD, recovery.CRASHED_ALONE, saga.RETRIES_SPENT, saga.DATA_ERROR):
        assert code == code.lower()
        assert code.replace("_", "").isalnum()
