"""Many messages in one transaction: exact sums, one holder per seat, and no message that spoils its neighbours."""

from __future__ import annotations

import asyncio
import json
import random
import time
from datetime import UTC, datetime, timedelta
from itertools import count

from common import db, recovery
from common.consumer import Consumer, Handle, reading_messages
from common.messages import MAX_BODY, Message
from common.recovery import DONE, Dead, Outcome
from common.settings import Settings
from common.unit_of_work import Batch
from payment_svc.models import Payment
from point_svc.models import LedgerEntry, Wallet
from queue_svc.models import Token
from reservation_svc.models import Reservation, Seat
from tests.support import bodies
from tests.support.bench import Bench, dead, enter, failure, forward, hold, top_up
from tests.support.eventually import eventually
from tests.support.hand_fed import HandFedInbox, HandFedSession


async def test_one_wallet_many_times_in_one_batch_has_the_exact_balance(point: Bench) -> None:
    """Top-ups, payments, refusals and compensations of one user, decided one after the other over one row."""
    chance = random.Random(7)
    balance, expected = 0, []
    messages: list[Message] = []
    for number in range(150):
        amount = chance.randint(1, 100)
        if number % 3 == 0:
            messages.append(top_up(f"u-{number}", amount=amount))
            balance += amount
            expected.append(True)
        else:
            messages.append(forward("point", f"p-{number}", amount=amount))
            fits = number > 0 and balance >= amount
            balance -= amount if fits else 0
            expected.append(fits)
    outcomes = await point.do(*messages)
    assert [outcome == DONE for outcome in outcomes] == expected
    assert False in expected
    assert (await Wallet.get(user_id="ann")).balance == balance
    assert sum(entry.amount for entry in await LedgerEntry.all()) == balance
    done = [
        m.key for m, fits in zip(messages, expected, strict=True) if fits and m.type == "reservation.confirmed"
    ]
    back = [failure(key) for key in done]
    assert await point.do(*back, *back) == [DONE] * 2 * len(back)
    topped_up = sum(entry.amount for entry in await LedgerEntry.filter(kind="top_up"))
    assert (await Wallet.get(user_id="ann")).balance == topped_up
    assert await LedgerEntry.filter(kind="restoration").count() == len(done)


async def test_a_balance_is_enough_for_what_came_before_it_is_spent(point: Bench) -> None:
    """In one batch as across batches, the order of arrival decides, and nothing is spent twice."""
    outcomes = await point.do(top_up(), *(forward("point", f"p-{number}", amount=40) for number in range(4)))
    assert [outcome.reason if isinstance(outcome, Dead) else "" for outcome in outcomes] == [
        *("", "", ""),
        *("balance_too_low", "balance_too_low"),
    ]
    assert (await Wallet.get(user_id="ann")).balance == 20


async def test_a_payment_that_is_done_and_undone_in_one_batch_leaves_only_its_history(point: Bench) -> None:
    """A failure may overtake and catch up with anything."""
    await point.do(top_up(), forward("point"), failure(), forward("point", "p-2"))
    assert (await Wallet.get(user_id="ann")).balance == 70
    assert [entry.amount for entry in await LedgerEntry.all().order_by("id")] == [100, -30, 30, -30]
    assert set(await point.said()) == {"point.topped_up", "point.deducted", "point.restored"}


async def test_many_users_in_one_batch_do_not_touch_each_other(point: Bench) -> None:
    """Loaded at once, written at once, and still every wallet its own."""
    users = [f"user-{number}" for number in range(100)]
    await point.do(*(top_up(f"u-{user}", user_id=user, amount=100 + n) for n, user in enumerate(users)))
    await point.do(*(forward("point", f"p-{user}", user_id=user) for user in reversed(users)))
    assert {wallet.user_id: wallet.balance for wallet in await Wallet.all()} == {
        user: 70 + n for n, user in enumerate(users)
    }


async def test_one_seat_wanted_by_many_in_one_batch_has_one_holder(reservation: Bench) -> None:
    """The first gets it, and all others are told."""
    await reservation.do(*(hold(f"r-{number}", user_id=f"user-{number}") for number in range(20)))
    assert (await Seat.get(seat="A-1")).reservation_id == "r-0"
    assert [row.reservation_id for row in await Reservation.all()] == ["r-0"]
    said = await reservation.said()
    assert sorted(said) == ["reservation.held"] + ["reservation.rejected"] * 19


async def test_a_hold_that_ran_out_gives_its_seat_to_the_first_that_asks(reservation: Bench) -> None:
    """And whoever had it cannot pay for it any more; the reason says what happened."""
    await reservation.do(hold("r-1", user_id="ann"))
    await Reservation.filter(reservation_id="r-1").update(held_until=datetime.now(UTC) - timedelta(seconds=1))
    outcomes = await reservation.do(
        hold("r-2", user_id="bob"),
        hold("r-3", user_id="eve"),
        forward("reservation", "p-1", user_id="ann"),
        forward("reservation", "p-2", user_id="bob", reservation_id="r-2"),
        forward("reservation", "p-3", user_id="bob", reservation_id="r-2"),
    )
    assert [outcome.reason if isinstance(outcome, Dead) else "" for outcome in outcomes] == [
        *("", "", "seat_given_away", ""),
        "reservation_taken",
    ]
    assert (await Seat.get(seat="A-1")).reservation_id == "r-2"
    assert (await Reservation.get(reservation_id="r-1")).state == "RELEASED"
    mine = await Reservation.get(reservation_id="r-2")
    assert (mine.state, mine.payment_id) == ("CONFIRMED", "p-2")


async def test_a_seat_whose_hold_ran_out_while_it_was_confirmed_is_released_when_its_payment_fails(
    reservation: Bench,
) -> None:
    """Back to HELD it would be nobody's: held by one whose time is over."""
    await reservation.do(hold(), forward("reservation"))
    await Reservation.all().update(held_until=datetime.now(UTC) - timedelta(seconds=1))
    await reservation.events()
    await reservation.do(failure())
    ((type_, body),) = await reservation.events()
    assert (type_, body["state"], body["seat"]) == ("reservation.reverted", "RELEASED", "A-1")
    assert (await Seat.get(seat="A-1")).reservation_id is None
    assert await reservation.do(hold("r-9", user_id="bob")) == [DONE]
    assert (await Seat.get(seat="A-1")).reservation_id == "r-9"


async def test_a_reverted_reservation_can_be_paid_by_another_payment(reservation: Bench) -> None:
    """The user keeps the seat while the hold lasts, and may try again with points enough."""
    await reservation.do(hold(), forward("reservation"), failure(), forward("reservation", "p-2"))
    mine = await Reservation.get(reservation_id="r-1")
    assert (mine.state, mine.payment_id) == ("CONFIRMED", "p-2")
    assert await reservation.do(failure()) == [DONE]
    mine = await Reservation.get(reservation_id="r-1")
    assert (mine.state, mine.payment_id) == ("CONFIRMED", "p-2"), "undone by its own payment's failure alone"
    said = [body["state"] for type_, body in await reservation.events() if type_ == "reservation.reverted"]
    assert said == ["HELD"]


async def test_one_token_is_used_by_one_payment_of_a_batch(queue: Bench) -> None:
    """A token lets one user pay once."""
    outcomes = await queue.do(enter(), forward("queue"), forward("queue", "p-2"), forward("queue", "p-3"))
    assert outcomes[:2] == [DONE, DONE]
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, Dead)] == ["token_not_active"] * 2
    assert (await Token.get(token="t-1")).payment_id == "p-1"


# --- one bad message among good ones, through the real consumer


def stumbling(service: Bench, over: str, *, times: int = 10**9, error: Exception | None = None) -> Handle[Message]:
    """The service's own handler, but for one saga, over which it stumbles so many times."""
    stumbles = count()

    async def handle(batch: Batch[Message]) -> list[Outcome]:
        outcomes = await service.service.handle(batch)
        if any(message.key == over for message in batch.messages) and next(stumbles) < times:
            raise error or RuntimeError("boom")
        return outcomes

    return handle


async def test_a_message_that_fails_is_retried_and_its_neighbours_are_done(payment: Bench) -> None:
    """The batch falls back to one at a time, so one bug harms one payment."""
    inbox = HandFedInbox("payment.commands")
    tags = {inbox.deliver("payment.pay", bodies.command(f"p-{number}")) for number in range(10)}
    session = await payment.consume(inbox, handle=stumbling(payment, "p-4"))
    assert session.told() == [("payment.retry.1s", "error")]
    assert session.copies[0].headers["x-attempt"] == 1
    assert session.copies[0].expires_in in range(800, 1001)
    assert inbox.acked == tags
    assert {row.payment_id for row in await Payment.all()} == {f"p-{n}" for n in range(10)} - {"p-4"}
    assert len(await payment.events()) == 9


async def test_a_message_that_failed_once_and_is_delivered_again_is_done_once(point: Bench) -> None:
    """The retry must not be taken for a duplicate, nor the first attempt leave anything behind."""
    await point.do(top_up())
    inbox = HandFedInbox("point.events")
    inbox.deliver("reservation.confirmed", bodies.forward("reservation.confirmed"))
    handle = stumbling(point, "p-1", times=1)
    session = await point.consume(inbox, handle=handle)
    (copy,) = session.copies
    assert (await Wallet.get(user_id="ann")).balance == 100
    inbox.deliver("point.return", copy.delivery.body, headers=copy.headers, user_id=session.user)
    session = await point.consume(inbox, handle=handle)
    assert session.copies == []
    assert (await Wallet.get(user_id="ann")).balance == 70
    assert (await point.said()).count("point.deducted") == 1


async def test_retries_climb_the_levels_and_end_among_the_dead_with_their_history(payment: Bench) -> None:
    """Each wait is longer, the first failure is remembered, and the end says how often it was tried."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command())
    route = []
    for _ in range(5):
        session = await payment.consume(inbox, handle=stumbling(payment, "p-1"))
        (copy,) = session.copies
        route.append((copy.routing_key, copy.headers["x-attempt"]))
        inbox.deliver("payment.return", copy.delivery.body, headers=copy.headers, user_id=session.user)
    assert route == [
        *(("payment.retry.1s", 1), ("payment.retry.5s", 2), ("payment.retry.30s", 3), ("payment.retry.5m", 4)),
        ("payment.dead", 5),
    ]
    assert copy.headers["x-reason"] == "retries_spent"
    assert copy.headers["x-type"] == "payment.pay"
    dead_inbox = HandFedInbox("payment.dead")
    dead_inbox.deliver("payment.dead", copy.delivery.body, headers=copy.headers, user_id=session.user)
    assert (await payment.consume(dead_inbox)).copies == []
    ((type_, body),) = await payment.events()
    assert (type_, body["reason"], body["attempts"]) == ("payment.failed", "retries_spent", 5)
    assert await payment.state() == "failed"


async def test_a_lost_race_is_run_again_at_once_and_is_no_attempt(payment: Bench) -> None:
    """Another replica was first; the second look at the rows gives the answer."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command())
    handle = stumbling(payment, "p-1", times=3, error=db.LostRaceError("lost"))
    session = await payment.consume(inbox, handle=handle)
    assert session.copies == []
    assert await payment.state() == "done"


GOOD = ("p-good-1", "p-good-2")
BAD: list[tuple[str, bytes | dict[str, object]]] = [
    ("not_json", b"pay me"),
    ("not_utf8", b'{"payment_id": "\xff"}'),
    ("not_an_object", b"[]"),
    ("not_json", b'{"amount": NaN}'),
    ("not_json", b'{"amount": 1e999}'),
    ("invalid_fields", bodies.command(amount=True)),
    ("invalid_fields", bodies.command(amount=1.0)),
    ("invalid_fields", bodies.command(amount="5")),
    ("invalid_fields", bodies.command(amount=0)),
    ("invalid_fields", bodies.command(amount=-5)),
    ("invalid_fields", bodies.command(amount=2**63)),
    ("invalid_fields", {"payment_id": "p-1"}),
    ("invalid_fields", bodies.command(tip=5)),
    ("duplicate_field", b'{"payment_id": "p-1", "payment_id": "p-2"}'),
    ("too_large", bodies.command(user_id="x" * 100_000)),
    ("too_large", b" " * (MAX_BODY + 1)),
    ("bad_text", json.dumps(bodies.command(user_id="\ud800")).encode()),
    ("invalid_fields", bodies.command(user_id="a\u0000b")),
    ("not_json", b"[" * 50_000),
]


async def test_everything_that_cannot_be_read_is_parked_with_its_reason_and_its_neighbours_are_done(
    payment: Bench,
) -> None:
    """Nothing is disturbed, in one batch with all of the bad input there is."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command(GOOD[0]))
    for _, body in BAD:
        inbox.deliver("payment.pay", body)
    inbox.deliver("payment.pay", bodies.command(), content_type="text/plain")
    inbox.deliver("payment.pay", bodies.command(), content_encoding="gzip")
    inbox.deliver("payment.pay", bodies.command(), headers={f"h{n}": 1 for n in range(1000)})
    inbox.deliver("payment.pay", bodies.command(), headers={"cloudEvents_type": "payment.paid"})
    inbox.deliver("payment.pay", bodies.command(), headers={"cloudEvents:specversion": "0.3"})
    last = inbox.deliver("payment.pay", bodies.command(GOOD[1]))
    session = await payment.consume(inbox)
    reasons = [*(reason for reason, _ in BAD), "wrong_content_type", "wrong_content_encoding"]
    reasons += ["bad_headers"] * 3
    assert session.told() == [("payment.parked", reason) for reason in reasons]
    assert inbox.acked == set(range(1, last + 1))
    assert {row.payment_id for row in await Payment.all()} == set(GOOD)
    assert all(str(copy.headers["x-detail"]).isprintable() for copy in session.copies)
    assert {copy.delivery.body for copy in session.copies} >= {body for _, body in BAD if isinstance(body, bytes)}


async def test_what_is_too_large_is_parked_at_once_and_stays_too_large(payment: Bench) -> None:
    """Whatever its type: a copy that lacks most of its body must not go round, nor be read one day as if whole."""
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command(GOOD[0]))
    inbox.deliver("payment.pay", b'{"payment_id": "p-1"', left_out=100_000)
    inbox.deliver("payment.refund", b"x" * 4096, left_out=16 * 1024 * 1024)
    session = await payment.consume(inbox)
    assert session.told() == [("payment.parked", "too_large")] * 2
    assert [copy.headers["x-left-out"] for copy in session.copies] == [100_000, 16 * 1024 * 1024]
    assert session.copies[1].headers["x-detail"] == "16781312 bytes; the limit is 65536; the first 4096 are kept"

    returned = HandFedInbox("payment.events")
    headers = dict(session.copies[0].headers) | {"x-left-out": 100_000}
    returned.deliver("payment.replay", bodies.command(), headers=headers, user_id="saga-payment")
    again = await payment.consume(returned)
    assert again.told() == [("payment.parked", "too_large")]
    assert again.copies[0].headers["x-left-out"] == 100_000
    assert {row.payment_id for row in await Payment.all()} == {GOOD[0]}


async def test_queues_of_commands_take_turns_and_events_go_first(payment: Bench) -> None:
    """Whoever keeps one queue full must not keep those waiting who have another."""
    events, crowd, shop = (HandFedInbox(f"payment.{name}") for name in ("events", "commands", "commands.shop"))
    for number in range(30):
        crowd.deliver("payment.pay", bodies.command(f"crowd-{number}"))
    for number in range(3):
        shop.deliver("payment.pay", bodies.command(f"shop-{number}"))
    order: list[str] = []

    async def handle(batch: Batch[Message]) -> list[Outcome]:
        order.extend(message.key.partition("-")[0] for message in batch.messages)
        if len(order) == 13:
            events.deliver("reservation.failed", bodies.failure("event-1", "reservation"))
        if len(order) == 34:
            consumer.stop()
        return [DONE for _ in batch.messages]

    settings = Settings(batch_size=5)
    consumer = Consumer(
        HandFedSession("payment"), settings, payment.unit_of_work, payment.relay,
        reading_messages(settings), handle, payment.observers,
    )  # fmt: skip
    consumer._inboxes.extend([events, crowd, shop])
    async with asyncio.timeout(20):
        await consumer.run()
    assert order == ["crowd"] * 5 + ["shop"] * 3 + ["crowd"] * 5 + ["event"] + ["crowd"] * 20


async def test_forged_headers_of_a_command_change_nothing(payment: Bench) -> None:
    """Whoever may send a command may not choose its attempts, its type or its past."""
    forged = {
        *(("x-type", "queue.expired"), ("x-attempt", 99), ("x-reason", recovery.CRASH_GUARD)),
        *(("x-first-failed-at", "2000-01-01T00:00:00+00:00"), ("x-failed-in", "payment.events")),
    }
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command(), headers=dict(forged), user_id="mallory")
    session = await payment.consume(inbox, handle=stumbling(payment, "p-1"))
    (copy,) = session.copies
    assert copy.routing_key == "payment.retry.1s"
    assert (copy.headers["x-type"], copy.headers["x-attempt"]) == ("payment.pay", 1)
    assert str(copy.headers["x-first-failed-at"]) > "2020"


async def test_an_unknown_type_is_retried_slowly_and_then_parked(payment: Bench) -> None:
    """A newer twin may know it, for an hour."""
    inbox = HandFedInbox("payment.events")
    inbox.deliver("payment.refunded", {"payment_id": "p-1"})
    session = await payment.consume(inbox)
    assert session.told() == [("payment.retry.5m", "unknown_type")]
    (copy,) = session.copies
    old = datetime.now(UTC) - timedelta(hours=2)
    headers = dict(copy.headers) | {"x-first-failed-at": old.isoformat()}
    inbox.deliver("payment.return", copy.delivery.body, headers=headers, user_id=session.user)
    assert (await payment.consume(inbox)).told() == [("payment.parked", "unknown_type")]


async def test_a_refusal_is_a_value_and_goes_straight_to_the_dead(point: Bench) -> None:
    """It does not spoil its batch, is not retried, and fails the saga with its own reason."""
    inbox = HandFedInbox("point.events")
    inbox.deliver("point.top_up", bodies.top_up())
    inbox.deliver("reservation.confirmed", bodies.forward("reservation.confirmed", amount=101))
    inbox.deliver("reservation.confirmed", bodies.forward("reservation.confirmed", "p-2"))
    session = await point.consume(inbox)
    assert session.told() == [("point.dead", "balance_too_low")]
    assert (await Wallet.get(user_id="ann")).balance == 70
    (copy,) = session.copies
    undertaker = HandFedInbox("point.dead")
    undertaker.deliver("point.dead", copy.delivery.body, headers=copy.headers, user_id=session.user)
    await point.events()
    assert (await point.consume(undertaker)).copies == []
    ((type_, body),) = await point.events()
    assert (type_, body["service"], body["reason"], body["attempts"]) == (
        "point.failed",
        "point",
        "balance_too_low",
        1,
    )
    assert "100" in body["detail"]


async def test_a_compensation_is_never_given_up(point: Bench) -> None:
    """Whatever happens to it, it goes round on the slowest level, also from the dead queue."""
    inbox = HandFedInbox("point.events")
    past = {"x-type": "queue.failed", "x-attempt": 500, "x-reason": "error", "x-detail": "boom"}
    inbox.deliver("point.return", bodies.failure(), headers=past, user_id="saga-point")
    session = await point.consume(inbox, handle=stumbling(point, "p-1"))
    assert session.told() == [("point.retry.5m", "error")]
    assert session.copies[0].headers["x-attempt"] == 501
    undertaker = HandFedInbox("point.dead")
    undertaker.deliver("point.dead", bodies.failure(), headers=past, user_id="saga-point")
    session = await point.consume(undertaker)
    assert session.told() == [("point.retry.5m", "error")]
    assert await point.state() is None


async def test_what_the_crash_guard_killed_is_handled_alone_before_it_counts(payment: Bench) -> None:
    """The delivery limit counts innocent neighbours too; only a second death is its own."""
    key = {"queue": "payment.commands", "reason": "delivery_limit", "routing-keys": ["payment.pay"]}
    undertaker = HandFedInbox("payment.dead")
    undertaker.deliver("payment.dead", bodies.command(), headers={"x-death": [key]})
    session = await payment.consume(undertaker)
    assert session.told() == [("payment.retry.1s", recovery.CRASH_GUARD)]
    (copy,) = session.copies
    sizes: list[int] = []

    async def handle(batch: Batch[Message]) -> list[Outcome]:
        sizes.append(len(batch.messages))
        return await payment.service.handle(batch)

    inbox = HandFedInbox("payment.events")
    inbox.deliver("payment.pay", bodies.command("p-2"))
    inbox.deliver("payment.return", copy.delivery.body, headers=copy.headers, user_id=session.user)
    inbox.deliver("payment.pay", bodies.command("p-3"), headers={"x-delivery-count": 5}, redelivered=True)
    inbox.deliver("payment.pay", bodies.command("p-4"))
    assert (await payment.consume(inbox, handle=handle)).copies == []
    assert sizes == [2, 1, 1]
    assert await Payment.all().count() == 4


async def test_nobody_makes_a_message_suspect_by_writing_a_count_into_it(payment: Bench) -> None:
    """The broker passes a publisher's `x-delivery-count` on; believed, it would end group commit for everybody."""
    sizes: list[int] = []

    async def handle(batch: Batch[Message]) -> list[Outcome]:
        sizes.append(len(batch.messages))
        return await payment.service.handle(batch)

    inbox = HandFedInbox("payment.commands")
    for number in range(3):
        inbox.deliver("payment.pay", bodies.command(f"p-{number}"), headers={"x-delivery-count": 99})
    assert (await payment.consume(inbox, handle=handle)).copies == []
    assert sizes == [3]


async def test_a_message_that_kills_alone_is_dead(payment: Bench) -> None:
    """Now it is known to be the killer, and its saga fails with that reason."""
    way_back = {"queue": "payment.events", "reason": "delivery_limit", "routing-keys": ["payment.return"]}
    past = {"x-type": "payment.pay", "x-attempt": 1, "x-reason": recovery.CRASH_GUARD, "x-detail": "gave up"}
    undertaker = HandFedInbox("payment.dead")
    undertaker.deliver(
        "payment.dead", bodies.command(), headers=past | {"x-death": [way_back]}, user_id="saga-payment"
    )
    assert (await payment.consume(undertaker)).copies == []
    ((type_, body),) = await payment.events()
    assert (type_, body["reason"]) == ("payment.failed", recovery.CRASHED_ALONE)


async def test_a_conflict_is_parked_by_consumer_and_undertaker_alike(payment: Bench) -> None:
    """The copy in the parked queue and the answer `payment.rejected` come together."""
    await payment.do(forward("payment"))
    await payment.events()
    inbox = HandFedInbox("payment.commands")
    inbox.deliver("payment.pay", bodies.command(amount=31))
    assert (await payment.consume(inbox)).told() == [("payment.parked", "idempotency_conflict")]
    assert await payment.said() == ["payment.rejected"]
    assert await payment.bury(dead(forward("payment"))) == [DONE]


async def test_a_batch_may_be_as_large_as_the_settings_allow(payment: Bench) -> None:
    """A thousand messages in one transaction stay within every vendor's limits."""
    largest = Settings.model_fields["batch_size"].metadata
    size = next(bound.le for bound in largest if hasattr(bound, "le"))
    assert await payment.do(*(forward("payment", f"p-{number}") for number in range(size))) == [DONE] * size
    assert await payment.do(*(failure(f"p-{number}") for number in range(size))) == [DONE] * size
    assert await Payment.filter(state="CANCELLED").count() == size


async def test_after_a_lost_race_a_batch_is_done_again_as_a_whole_and_with_care(payment: Bench) -> None:
    """One attempt is lost, not one for each message; and since where one race was there are more, care stays."""
    batches: list[tuple[bool, int]] = []

    async def racing(batch: Batch[Message]) -> list[Outcome]:
        batches.append((batch.careful, len(batch.messages)))
        if len(batches) == 1:
            raise db.LostRaceError("somebody was first")
        return [DONE] * len(batch.messages)

    consumer = Consumer(
        HandFedSession("payment"), Settings(), payment.unit_of_work, payment.relay,
        reading_messages(Settings()), racing, payment.observers,
    )  # fmt: skip
    inbox = HandFedInbox("payment.commands")
    for number in range(5):
        inbox.deliver("payment.pay", bodies.command(f"p-{number}"))
    await consumer._work(inbox, inbox.take(3))
    await consumer._work(inbox, inbox.take(2))
    assert batches == [(False, 3), (True, 3), (True, 2)]
    consumer._careful_until = time.monotonic()
    inbox.deliver("payment.pay", bodies.command("p-9"))
    await consumer._work(inbox, inbox.take(1))
    assert batches[3:] == [(False, 1)], "in the long run nobody is careful for nothing"


async def test_a_repeated_command_that_would_be_refused_by_now_is_answered_as_it_was(payment: Bench) -> None:
    """Its deadline is over, but it was paid in time: it is looked for, and not taken for new and refused."""
    soon = datetime.now(UTC) + timedelta(milliseconds=200)
    pay = forward("payment", expires_at=soon.isoformat())
    assert await payment.do(pay) == [DONE]
    await eventually(lambda: datetime.now(UTC) > soon)
    await payment.events()
    assert await payment.do(pay) == [DONE]
    assert await payment.said() == ["payment.paid"]
