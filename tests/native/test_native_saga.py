"""The whole saga over a real broker: everything of it happens, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from aio_pika.exceptions import DeliveryError

from common import saga
from common.messages import MAX_AMOUNT, Body, Enter, Pay, TopUp
from tests.support.eventually import eventually
from tests.support.saga import FILLED, LEVELS, PRICE, Theatre, Visit, key_of, passed, soon

pytestmark = pytest.mark.broker

GOOD_SAGA = (
    "payment.paid",
    "reservation.confirmed",
    "point.deducted",
    "queue.expired",
    "payment.completed",
    "notification.sent",
)


async def test_a_payment_happens_in_all_five_services(here: Visit) -> None:
    """The main thing: one command, and every service has done its part once and said so once."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    assert Counter(here.events(pay.payment_id)) == Counter(GOOD_SAGA)
    told = here.event(pay.payment_id, "notification.sent")
    assert told
    assert told.body["kind"] == "completed"
    assert here.belongings(pay)["wallet"] == [(pay.user_id, FILLED - PRICE)]


async def test_what_the_services_publish_carries_the_properties_of_the_design(here: Visit) -> None:
    """Outsiders depend on them: a deterministic id, the saga, the type, the service, and one trace for all."""
    (pay,) = await here.paying()
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await here.publish(saga.FIRST.on, pay, headers=headers)
    await here.completed(pay)
    for key in GOOD_SAGA:
        event = here.event(pay.payment_id, key)
        assert event
        service = {"notification": "notify"}.get(key.split(".")[0], key.split(".")[0])
        assert event.correlation_id == pay.payment_id
        assert event.message_id
        assert event.headers["cloudEvents_id"] == event.message_id
        assert event.headers["cloudEvents_type"] == key
        assert event.headers["traceparent"].split("-")[1] == trace
        said = {name: event.properties[name] for name in ("delivery_mode", "content_type", "type", "app_id")}
        assert said == {"delivery_mode": 2, "content_type": "application/json", "type": key, "app_id": service}


async def _over_limit(here: Visit) -> Pay:
    pay = here.pay(amount=MAX_AMOUNT)
    await here.prepare(pay)
    return pay


async def _too_late(here: Visit) -> Pay:
    pay = here.pay(expires_at=soon(-1))
    await here.prepare(pay)
    return pay


async def _unknown_reservation(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, hold=False)
    return pay


async def _not_your_reservation(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, user_id=f"{here.mark}-somebody-else")
    return pay


async def _price_mismatch(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, price=PRICE + 1)
    return pay


async def _hold_expired(here: Visit) -> Pay:
    pay, until = here.pay(), soon(0.5)
    await here.prepare(pay, held_until=until)
    await passed(until)
    return pay


async def _seat_given_away(here: Visit) -> Pay:
    pay = await _hold_expired(here)
    other = here.pay(payment_id=f"{here.mark}-never-sent")
    await here.prepare(other, seat=pay.reservation_id)
    return pay


async def _reservation_taken(here: Visit) -> Pay:
    (first,) = await here.paying()
    await here.send(first)
    await here.completed(first)
    again = here.pay(user_id=first.user_id, reservation_id=first.reservation_id)
    await here.prepare(again, hold=False, wallet=None)
    return again


async def _no_wallet(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, wallet=None)
    return pay


async def _balance_too_low(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, wallet=PRICE - 1)
    return pay


async def _unknown_token(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, token=False)
    return pay


async def _not_your_token(here: Visit) -> Pay:
    pay = here.pay()
    await here.prepare(pay, token=False)
    await here.ask(Enter(token=pay.token, user_id=f"{here.mark}-somebody-else"))
    return pay


async def _token_not_active(here: Visit) -> Pay:
    (first,) = await here.paying()
    await here.send(first)
    await here.completed(first)
    again = here.pay(user_id=first.user_id, token=first.token)
    await here.prepare(again, token=False, wallet=None)
    return again


REFUSALS: dict[tuple[str, str], Callable[[Visit], Awaitable[Pay]]] = {
    ("payment", "over_limit"): _over_limit,
    ("payment", "deadline_passed"): _too_late,
    ("reservation", "unknown_reservation"): _unknown_reservation,
    ("reservation", "not_your_reservation"): _not_your_reservation,
    ("reservation", "price_mismatch"): _price_mismatch,
    ("reservation", "hold_expired"): _hold_expired,
    ("reservation", "seat_given_away"): _seat_given_away,
    ("reservation", "reservation_taken"): _reservation_taken,
    ("point", "no_wallet"): _no_wallet,
    ("point", "balance_too_low"): _balance_too_low,
    ("queue", "unknown_token"): _unknown_token,
    ("queue", "not_your_token"): _not_your_token,
    ("queue", "token_not_active"): _token_not_active,
}
#: A deadline that passes on the way takes a service that is stopped meanwhile.
LATE = {(step.service, "deadline_passed") for step in saga.SAGA[1:] if step.refusals}


def test_every_refusal_of_the_saga_table_is_provoked_here() -> None:
    """A reason that is added to the table and to no test would be a promise nobody checks."""
    table = {(step.service, reason) for step in saga.SAGA for reason in step.refusals}
    assert set(REFUSALS) | LATE == table


@pytest.mark.parametrize(("service", "reason"), REFUSALS, ids="-".join)
async def test_a_refused_payment_leaves_everything_as_it_was(here: Visit, service: str, reason: str) -> None:
    """Whoever refuses and why: all earlier steps are undone, the user is told, and nothing else has changed."""
    pay = await REFUSALS[service, reason](here)
    before = here.belongings(pay)
    await here.send(pay)
    await here.undone(pay, at=service, reason=reason)
    assert here.belongings(pay) == before
    told = here.event(pay.payment_id, "notification.sent")
    assert told
    assert told.body["kind"] == "failed"
    undoing = [step.compensation for step in saga.SAGA[: saga.SERVICES.index(service)] if step.compensation]
    for compensation in undoing:
        await here.hears(pay.payment_id, compensation)
    said = Counter(here.events(pay.payment_id))
    assert not set(said) & {"payment.completed", "queue.expired"}
    assert all(said[compensation] == 1 for compensation in undoing)


@pytest.mark.parametrize("service", [service for service, _ in sorted(LATE)])
async def test_a_deadline_that_passes_on_the_way_undoes_the_payment(
    here: Visit, house: Theatre, service: str
) -> None:
    """Only the service that holds the baton may say that it is too late, and it must."""
    pay = here.pay(expires_at=soon(3))
    await here.prepare(pay)
    before = here.belongings(pay)
    assert pay.expires_at
    assert not house.stack.stop(service)
    try:
        await here.send(pay)
        await here.hears(pay.payment_id, saga.step_of(service).on)
        await passed(pay.expires_at)
    finally:
        house.start(service, sabotaged=True, ready=False)
    await here.undone(pay, at=service, reason="deadline_passed")
    assert here.belongings(pay) == before


async def test_a_reverted_reservation_is_released_when_its_hold_has_run_out(here: Visit, house: Theatre) -> None:
    """Undoing must not hold a seat for longer than its user held it, and the seat must be free again."""
    pay, until = here.pay(), soon(3)
    await here.prepare(pay, token=False, held_until=until)
    assert not house.stack.stop("queue")
    try:
        await here.send(pay)
        await here.hears(pay.payment_id, "point.deducted")
        await passed(until)
    finally:
        house.start("queue", sabotaged=True, ready=False)
    await here.undone(pay, at="queue", reason="unknown_token")
    reverted = await here.hears(pay.payment_id, "reservation.reverted")
    assert reverted.body["state"] == "RELEASED"
    next_one = here.hold_of(here.pay(), seat=pay.reservation_id)
    (held,) = await here.ask(next_one)
    assert held.key == "reservation.held"


async def test_the_points_of_an_undone_payment_can_be_spent_again(here: Visit) -> None:
    """A compensation is worth something only if what is given back is really there."""
    bad, good = here.pay(), here.pay(user_id=f"{here.mark}-002-user")
    bad = here.pay(user_id=good.user_id)
    await here.prepare(bad, wallet=PRICE, token=False)
    await here.prepare(good, wallet=None)
    await here.send(bad)
    await here.undone(bad, at="queue", reason="unknown_token")
    await here.send(good)
    await here.completed(good)
    assert here.belongings(good)["wallet"] == [(good.user_id, 0)]


async def test_commands_are_answered_and_their_repetitions_too(here: Visit) -> None:
    """A client that lost an answer asks again, and must not hold, fill or enter twice."""
    pay = here.pay()
    commands: list[Body] = [
        here.hold_of(pay),
        TopUp(top_up_id=f"{here.mark}-gift", user_id=pay.user_id, amount=7),
        Enter(token=pay.token, user_id=pay.user_id),
    ]
    first = await here.ask(*commands)
    again = await here.ask(*commands)
    assert [answer.key for answer in first] == ["reservation.held", "point.topped_up", "queue.entered"]
    assert [answer.raw for answer in again] == [answer.raw for answer in first]
    assert here.belongings(pay)["wallet"] == [(pay.user_id, 7)]


async def test_refused_commands_are_rejected_with_their_reason(here: Visit) -> None:
    """A seat is held once, and never in the past; the rejection is recorded and repeated."""
    first, second = here.pay(), here.pay()
    taken = here.hold_of(second, seat=first.reservation_id)
    late = here.hold_of(here.pay(), held_until=datetime(2020, 1, 1, tzinfo=UTC))
    await here.ask(here.hold_of(first))
    for _ in range(2):
        answers = await here.ask(taken, late)
        assert [(answer.key, answer.body["reason"]) for answer in answers] == [
            ("reservation.rejected", "seat_taken"),
            ("reservation.rejected", "hold_in_the_past"),
        ]


@pytest.mark.parametrize("service", ["reservation", "point", "queue"])
async def test_a_command_with_a_known_id_and_other_content_is_rejected_and_parked(
    here: Visit, house: Theatre, service: str
) -> None:
    """Two clients that chose the same id must not think that both were served."""
    pay = here.pay()
    pairs: dict[str, tuple[Body, Body]] = {
        "reservation": (here.hold_of(pay), here.hold_of(pay, price=PRICE + 1)),
        "point": tuple(TopUp(top_up_id=pay.token, user_id=pay.user_id, amount=n) for n in (1, 2)),  # type: ignore[dict-item]
        "queue": (
            Enter(token=pay.token, user_id=pay.user_id),
            Enter(token=pay.token, user_id=f"{here.mark}-somebody-else"),
        ),
    }
    first, second = pairs[service]
    await here.ask(first)
    before = here.belongings(pay)
    (answer,) = await here.ask(second)
    assert (answer.key, answer.body["reason"]) == (saga.rejected(service), "idempotency_conflict")
    parked = await here.recovers(first.key, f"{service}.parked")
    assert parked.headers["x-reason"] == "idempotency_conflict"
    assert parked.headers["x-type"] == key_of(second)
    assert any(first.key in letter["payload"] for letter in house.peek(f"{service}.parked"))
    assert here.belongings(pay) == before


async def test_the_same_payment_id_with_other_content_leaves_the_first_payment_alone(
    here: Visit, house: Theatre
) -> None:
    """The payment's id is the idempotency key: nobody can change, or undo, a payment by reusing it."""
    (pay,) = await here.paying()
    await here.send(pay)
    await here.completed(pay)
    before = here.belongings(pay)
    other = pay.model_copy(update={"amount": PRICE - 1})
    await here.send(other)
    rejected = await here.hears(pay.payment_id, "payment.rejected")
    assert rejected.body["reason"] == "idempotency_conflict"
    parked = await here.recovers(pay.payment_id, "payment.parked")
    assert parked.headers["x-reason"] == "idempotency_conflict"
    assert any(pay.payment_id in letter["payload"] for letter in house.peek("payment.parked"))
    assert here.belongings(pay) == before
    assert "payment.failed" not in here.events(pay.payment_id)


async def test_two_contents_under_one_payment_id_at_once_pay_for_one(here: Visit) -> None:
    """In one batch as well as in two: the first one wins, the other is rejected, neither is mixed."""
    (pay,) = await here.paying()
    other = pay.model_copy(update={"amount": PRICE - 1})
    await asyncio.gather(here.send(pay), here.send(other))
    await here.hears(pay.payment_id, "payment.rejected")
    await here.hears(pay.payment_id, "notification.sent")
    ((amount,),) = here.theatre.rows("payment", "SELECT amount FROM payment WHERE payment_id = ?", pay.payment_id)
    if amount == pay.amount:
        await here.completed(pay)
    else:
        here.commands.remove(pay)
        here.commands.append(other)
        await here.undone(other, at="reservation", reason="price_mismatch")


async def test_the_same_moment_in_another_time_zone_is_the_same_content(here: Visit) -> None:
    """A repetition that writes its deadline differently is a repetition."""
    pay = here.pay()
    await here.prepare(pay)
    body = pay.encode()
    for moment in ("2099-01-01T00:00:00Z", "2099-01-01T01:00:00.000+01:00"):
        content = body.replace('"expires_at":null', f'"expires_at":"{moment}"').encode()
        await here.publish(saga.FIRST.on, content)
    await here.hears(pay.payment_id, "payment.paid", times=2)
    await here.completed(pay)
    assert "payment.rejected" not in here.events(pay.payment_id)


async def test_everything_said_twice_changes_nothing_and_repeats_the_answers(here: Visit) -> None:
    """At least once is all that brokers promise: all of a whole and of a failed saga comes again."""
    good, bad = here.pay(), here.pay()
    await here.prepare(good)
    await here.prepare(bad, token=False)
    await here.send(good, bad)
    await here.completed(good)
    await here.undone(bad, at="queue", reason="unknown_token")
    await here.hears(bad.payment_id, "payment.cancelled")
    await here.hears(bad.payment_id, "reservation.reverted")
    before = [here.belongings(pay) for pay in (good, bad)]
    states = [here.states(pay.payment_id) for pay in (good, bad)]
    captured = [event for event in here.heard if event.id in {good.payment_id, bad.payment_id}]
    awaited = [event for event in captured if saga.is_awaited(event.key)]
    for event in awaited:
        await here.publish(
            event.key,
            event.raw,
            headers=event.headers,
            message_id=event.message_id,
            correlation_id=event.correlation_id,
            type=event.key,
        )
    await here.send(good, bad)
    # Each service repeats what it said: the one that did its part its event, the one where it ended the failure.
    for key in ("payment.paid", "reservation.confirmed", "point.deducted", "queue.expired"):
        await here.hears(good.payment_id, key, times=3)
    await here.hears(good.payment_id, "payment.completed", times=2)
    for key in ("payment.failed", "reservation.failed", "point.failed"):
        await here.hears(bad.payment_id, key)
    await here.hears(bad.payment_id, "queue.failed", times=3)
    await eventually(_quiet(here))
    assert [here.belongings(pay) for pay in (good, bad)] == before
    assert [here.states(pay.payment_id) for pay in (good, bad)] == states
    # Said again means said the same: content and id.
    for event in here.heard:
        first = here.event(event.id, event.key)
        assert first
        if event.id in {good.payment_id, bad.payment_id} and not event.key.endswith(".failed"):
            assert (event.raw, event.message_id) == (first.raw, first.message_id)
    assert here.events(good.payment_id).count("notification.sent") == 1
    assert here.events(bad.payment_id).count("notification.sent") == 1
    assert [here.event(bad.payment_id, key) for key in ("payment.completed", "queue.expired")] == [None, None]


def _quiet(here: Visit) -> Callable[[], Awaitable[bool]]:
    """Whether no queue of work holds anything."""

    async def check() -> bool:
        queues = here.theatre.api("GET", "/api/queues/{v}?disable_stats=true&enable_queue_totals=true")
        return not any(
            queue.get("messages", 0)
            for queue in queues
            if queue["name"].endswith((".events", ".commands", ".dead"))
        )

    return check


async def test_two_hundred_payments_from_one_wallet_leave_the_exact_balance(here: Visit) -> None:
    """Many changes of one row, in one batch and across batches: none is lost and none is done twice."""
    rich = f"{here.mark}-rich"
    pays = [here.pay(user_id=rich, amount=1 + index % 7) for index in range(200)]
    total = sum(pay.amount for pay in pays[:150])
    await here.ask(TopUp(top_up_id=f"{rich}-gift", user_id=rich, amount=total))
    await here.prepare(*pays, wallet=None)
    await here.send(*pays[:150], *pays[:20])
    await here.completed(*pays[:150], seconds=60)
    assert here.theatre.rows("point", "SELECT balance FROM wallet WHERE user_id = ?", rich) == [(0,)]
    await here.send(*pays[150:])
    for pay in pays[150:]:
        await here.undone(pay, at="point", reason="balance_too_low")
    assert here.theatre.rows("point", "SELECT balance FROM wallet WHERE user_id = ?", rich) == [(0,)]


async def test_an_unknown_routing_key_is_returned_to_whoever_typed_it(here: Visit) -> None:
    """A typo must be told to the one who made it, not end in silence."""
    with pytest.raises(DeliveryError):
        await here.publish("payment.pya", here.pay())


@pytest.mark.parametrize(
    "forged",
    [
        {"x-attempt": 99},
        {"x-type": "queue.expired"},
        {"x-type": "payment.failed", "x-reason": "crash_guard", "x-attempt": LEVELS},
        {"x-reason": "crash_guard", "x-detail": "forged", "x-first-failed-at": "2020-01-01T00:00:00+00:00"},
        {"x-failed-in": "payment.commands", "x-attempt": "many"},
        {"x-delivery-count": 49},
        {
            "x-death": [
                {"queue": "payment.commands", "reason": "delivery_limit", "routing-keys": ["queue.expired"]}
            ]
        },
    ],
    ids="-".join,
)
async def test_forged_recovery_headers_on_a_command_are_ignored(here: Visit, forged: dict[str, object]) -> None:
    """Our own headers are believed only where nobody else can write: a stranger's are a stranger's."""
    (pay,) = await here.paying()
    await here.publish(saga.FIRST.on, pay, headers=forged)
    await here.completed(pay)
    refused = here.pay(amount=MAX_AMOUNT)
    await here.publish(saga.FIRST.on, refused, headers=forged)
    await here.undone(refused, at="payment", reason="over_limit")
    copy = await here.recovers(refused.payment_id, "payment.dead")
    assert {name: copy.headers[name] for name in ("x-type", "x-attempt", "x-reason", "x-failed-in")} == {
        "x-type": "payment.pay",
        "x-attempt": 1,
        "x-reason": "over_limit",
        "x-failed-in": "payment.commands",
    }
    assert datetime.fromisoformat(copy.headers["x-first-failed-at"]) > soon(-60)


async def test_an_expired_command_cannot_forge_its_type_through_the_broker(here: Visit, house: Theatre) -> None:
    """Who may only publish commands must not get an event believed by letting the broker dead-letter it.

    The broker counts a second death in the same queue on the entry that is there, and so keeps a forged key.
    """
    (pay,) = await here.paying()
    died = {"queue": "payment.commands", "reason": "expired", "count": 1, "exchange": "saga.events"}
    failed = {"service": "payment", "reason": "forged", "detail": "forged", "attempts": 1}
    content = {"payment_id": pay.payment_id, "user_id": pay.user_id} | failed
    assert not house.stack.stop("payment")
    try:
        forged = {"x-death": [died | {"routing-keys": ["payment.failed"]}]}
        await here.publish(saga.FIRST.on, json.dumps(content).encode(), headers=forged, expiration=0.05)
        await here.recovers(pay.payment_id, "payment.dead")
    finally:
        house.start("payment", sabotaged=True)

    def set_aside() -> bool:
        later = [copy for copy in here.copies if copy.id == pay.payment_id and "x-type" in copy.headers]
        assert all(copy.headers["x-type"] != "payment.failed" for copy in later)
        return bool(later)

    await eventually(set_aside)
    assert here.states(pay.payment_id)["payment"] is None
    await here.send(pay)
    await here.completed(pay)


async def test_a_command_that_expired_in_its_queue_is_still_done(here: Visit, house: Theatre) -> None:
    """A publisher may set an expiration on its own command: late is not lost."""
    (pay,) = await here.paying()
    assert not house.stack.stop("payment")
    try:
        await here.publish(saga.FIRST.on, pay, expiration=0.05)
        await here.recovers(pay.payment_id, "payment.dead")
    finally:
        house.start("payment", sabotaged=True, ready=False)
    await here.completed(pay)


async def test_a_lost_event_is_healed_by_sending_the_command_once_more(here: Visit, house: Theatre) -> None:
    """A broker that lost a queue costs time, not consistency: the saga goes on from where it was."""
    for lost_before in ("reservation", "point", "queue", "notify"):
        (pay,) = await here.paying()
        assert not house.stack.stop(lost_before)
        try:
            await here.send(pay)
            await here.hears(pay.payment_id, saga.step_of(lost_before).on)
            await _lost(house, f"{lost_before}.events")
        finally:
            house.start(lost_before, sabotaged=True)
        assert here.states(pay.payment_id)[lost_before] is None
        await here.send(pay)
        await here.completed(pay)
        assert here.events(pay.payment_id).count("payment.paid") == 2


async def _lost(house: Theatre, queue: str) -> None:
    """Take away what waits in a queue, once there is something."""
    wish = {"count": 100, "ackmode": "ack_requeue_false", "encoding": "auto"}
    await eventually(lambda: bool(house.api("POST", f"/api/queues/{{v}}/{queue}/get", wish)))


async def test_a_lost_failure_is_healed_by_sending_the_command_once_more(here: Visit, house: Theatre) -> None:
    """A compensation that never arrived would leave a seat taken for nothing: asking again brings it."""
    pay = here.pay()
    await here.prepare(pay, token=False)
    before = here.belongings(pay)
    assert not house.stack.stop("queue")
    await here.send(pay)
    await here.hears(pay.payment_id, "point.deducted")
    assert not house.stack.stop("reservation", "point")
    house.start("queue", sabotaged=True)
    await here.hears(pay.payment_id, "queue.failed")
    for queue in ("reservation.events", "point.events"):
        await _lost(house, queue)
    house.start("reservation", "point", sabotaged=True)
    assert here.states(pay.payment_id)["point"] == "done"
    await here.send(pay)
    await here.undone(pay, at="queue", reason="unknown_token")
    assert here.belongings(pay) == before
