"""Repeated, swapped, conflicting and failing messages: the effect is there exactly once, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import pytest

from common import db, saga
from common.messages import Message
from common.recovery import DONE, Dead, Outcome, Parked
from common.unit_of_work import Batch
from notify_svc.models import Notice
from payment_svc.models import Payment
from point_svc.models import LedgerEntry, Wallet
from queue_svc.models import Token
from reservation_svc.models import Reservation, Seat
from tests.support.bench import Bench, Opens, dead, enter, failure, forward, hold, top_up


def reasons(outcomes: list[Outcome]) -> list[str]:
    """Why each message was not done; an empty text for what was."""
    return [outcome.reason if isinstance(outcome, Dead | Parked) else "" for outcome in outcomes]


async def equipped(service: Bench) -> None:
    """Give the service what payment p-1 needs."""
    gifts: dict[str, Callable[[], Message]] = {"reservation": hold, "point": top_up, "queue": enter}
    name = service.service.name
    if name in gifts:
        await service.do(gifts[name]())
    await service.events()


# --- repeated


@pytest.mark.parametrize("name", saga.SERVICES)
@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "across batches"])
async def test_a_duplicated_message_is_done_once(opened: Opens, name: str, *, apart: bool) -> None:
    """At-least-once delivery is the rule of the broker, exactly-once effect the promise of the services."""
    async with opened(name) as service:
        await equipped(service)
        message = forward(name)
        if apart:
            assert await service.do(message) == [DONE]
            once = await service.holds()
            assert await service.do(message) == [DONE]
            assert await service.do(message) == [DONE]
            assert await service.holds() == once
        else:
            assert await service.do(message, message, message) == [DONE] * 3
        assert set(await service.said()) == ({saga.step_of(name).emits} - {"notification.sent"})
        assert await service.state() == "done"
        if name == "point":
            assert (await Wallet.get(user_id="ann")).balance == 70
            assert await LedgerEntry.filter(saga_id="p-1").count() == 1


@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "across batches"])
async def test_a_duplicated_compensation_is_done_once(point: Bench, *, apart: bool) -> None:
    """Points that are given back twice are stolen."""
    await equipped(point)
    await point.do(forward("point"))
    for batch in ([failure()] * 3,) if not apart else ([failure()], [failure()], [failure(service="payment")]):
        assert await point.do(*batch) == [DONE] * len(batch)
    assert (await Wallet.get(user_id="ann")).balance == 100
    assert sorted(entry.amount for entry in await LedgerEntry.filter(saga_id="p-1")) == [-30, 30]
    assert (await point.said()).count("point.restored") == 1


@pytest.mark.parametrize(
    ("name", "command", "table"),
    [("reservation", hold, Reservation), ("point", top_up, LedgerEntry), ("queue", enter, Token)],
)
@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "across batches"])
async def test_a_duplicated_command_is_done_once_and_answered_alike(
    opened: Opens, name: str, command: Callable[[], Message], table: type[Wallet], *, apart: bool
) -> None:
    """Whoever is not sure that a command arrived may send it again."""
    async with opened(name) as service:
        if apart:
            await service.do(command())
            first, held = await service.events(), await service.holds()
            await service.do(command())
            assert await service.events() == first
            assert await service.holds() == held
        else:
            await service.do(command(), command(), command())
            first = await service.events()
        assert [type_ for type_, _ in first] == [
            part.answer for part in saga.COMMANDS if part.on == command().type
        ]
        assert await table.all().count() == 1


async def test_a_rejected_command_is_rejected_again_even_when_it_could_be_done_by_now(reservation: Bench) -> None:
    """Its outcome is recorded under its id: one id, one answer."""
    await reservation.do(hold("r-1"))
    await reservation.do(hold("r-2", user_id="bob"))
    await Seat.filter(seat="A-1").update(reservation_id=None)
    await reservation.events()
    assert await reservation.do(hold("r-2", user_id="bob")) == [DONE]
    ((type_, body),) = await reservation.events()
    assert (type_, body["id"], body["reason"]) == ("reservation.rejected", "r-2", "seat_taken")
    assert await Reservation.all().count() == 1


# --- other content


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("payment", forward("payment"), forward("payment", amount=31)),
        ("payment", forward("payment"), forward("payment", user_id="bob")),
        ("payment", forward("payment"), forward("payment", expires_at="2099-01-01T00:00:00Z")),
        ("reservation", hold(), hold(seat="A-2")),
        ("reservation", hold(), hold(held_until="2099-01-01T00:00:00Z")),
        ("point", top_up(), top_up(amount=99)),
        ("queue", enter(), enter(user_id="bob")),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "across batches"])
async def test_the_same_id_with_other_content_is_parked_and_answered_and_the_first_is_untouched(
    opened: Opens, name: str, first: Message, second: Message, *, apart: bool
) -> None:
    """An id that is used twice is a mistake of its client, and must not change what was agreed under it."""
    async with opened(name) as service:
        await service.do(first)
        held, answer = await service.holds(), await service.events()
        if apart:
            outcomes = await service.do(second)
        else:
            outcomes = (await service.do(first, second))[1:]
        assert reasons(outcomes) == ["idempotency_conflict"]
        assert isinstance(outcomes[0], Parked)
        assert await service.holds() == held
        said = [event for event in await service.events() if event not in answer]
        ((type_, body),) = said
        assert (type_, body["id"], body["reason"]) == (f"{name}.rejected", first.key, "idempotency_conflict")


async def test_a_failed_payment_keeps_its_id(payment: Bench) -> None:
    """A refused payment has used its id up; paying with other content under it is a mistake, too."""
    await payment.bury(dead(forward("payment"), "over_limit"))
    await payment.events()
    outcomes = await payment.do(forward("payment", amount=31))
    assert reasons(outcomes) == ["idempotency_conflict"]
    assert await payment.said() == ["payment.rejected"]
    assert await payment.do(forward("payment")) == [DONE]
    assert await payment.said() == ["payment.failed"]


async def test_a_dead_letter_with_other_content_is_parked_too(payment: Bench) -> None:
    """The way a message dies makes it no more trustworthy."""
    await payment.do(forward("payment"))
    held = await payment.holds()
    outcomes = await payment.bury(dead(forward("payment", amount=31)))
    assert reasons(outcomes) == ["idempotency_conflict"]
    assert await payment.holds() == held


async def test_a_conflict_does_not_hide_the_answer_of_the_first_command_in_its_batch(reservation: Bench) -> None:
    """Both clients wait for `reservation.rejected` under the same id, and each was rejected for its own reason."""
    await reservation.do(hold("r-0"))
    await reservation.events()
    await reservation.do(hold("r-1", user_id="bob"), hold("r-1", user_id="eve"))
    assert {body["reason"] for _, body in await reservation.events()} == {"seat_taken", "idempotency_conflict"}


# --- swapped


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "notify"])
@pytest.mark.parametrize("apart", [False, True], ids=["in one batch", "across batches"])
async def test_the_order_of_a_sagas_messages_does_not_matter(opened: Opens, name: str, *, apart: bool) -> None:
    """Whatever overtakes whatever, the saga is over and nothing of it is left."""
    kinds = ("forward", "failure", "the same failure", "forward again")
    async with opened(name) as service:
        await equipped(service)
        for number, order in enumerate(permutations(kinds)):
            key = f"p-{number}"
            swapped = [forward(name, key) if "forward" in kind else failure(key) for kind in order]
            for batch in [[message] for message in swapped] if apart else [swapped]:
                await service.do(*batch)
            undone = "done" if name == "notify" else "undone"
            assert await service.state(key) == (undone if "forward" in order[0] else "closed")
            await _nothing_is_left(service, key)


async def _nothing_is_left(service: Bench, key: str) -> None:
    match service.service.name:
        case "payment":
            assert not await Payment.filter(payment_id=key, state="PAID").exists()
        case "reservation":
            assert (await Reservation.get(reservation_id="r-1")).state == "HELD"
        case "point":
            assert (await Wallet.get(user_id="ann")).balance == 100
        case "notify":
            assert await Notice.filter(saga_id=key).count() == 1


async def test_the_pivot_and_the_command_may_be_swapped_without_completing_anything(payment: Bench) -> None:
    """`queue.expired` for a payment that nobody made breaks the protocol, whenever the payment comes."""
    assert reasons(await payment.do(forward("notify"), forward("payment"))) == ["protocol_broken", ""]
    assert (await Payment.get(payment_id="p-1")).state == "PAID"
    assert await payment.said() == ["payment.paid"]


# --- the protocol


async def test_the_pivot_completes_a_payment_once_and_answers_every_time(payment: Bench) -> None:
    """The payment service's second part: PAID -> COMPLETED."""
    await payment.do(forward("payment"))
    assert await payment.said() == ["payment.paid"]
    assert await payment.do(forward("notify")) == [DONE]
    first = await payment.events()
    assert [type_ for type_, _ in first] == ["payment.completed"]
    assert (await Payment.get(payment_id="p-1")).state == "COMPLETED"
    held = await payment.holds()
    assert await payment.do(forward("notify"), forward("notify")) == [DONE, DONE]
    assert await payment.events() == first
    assert await payment.holds() == held
    assert await payment.do(forward("payment")) == [DONE]
    assert await payment.said() == ["payment.paid"], "the command repeats its own answer and walks the saga on"


@pytest.mark.parametrize("end", ["none", "failed", "undone", "closed"])
async def test_the_pivot_of_a_payment_that_is_not_provisional_is_parked(payment: Bench, end: str) -> None:
    """A used-up token without a payment is for a person to sort out; guessing would sell a seat for nothing."""
    if end == "undone":
        await payment.do(forward("payment"))
    if end == "failed":
        await payment.bury(dead(forward("payment")))
    elif end != "none":
        await payment.do(failure())
    await payment.events()
    held = await payment.holds()
    outcomes = await payment.do(forward("notify"))
    assert isinstance(outcomes[0], Parked)
    assert reasons(outcomes) == ["protocol_broken"]
    assert await payment.holds() == held
    assert await payment.said() == []


@pytest.mark.parametrize("name", ["payment", "queue"])
@pytest.mark.parametrize("culprit", ["payment", "reservation", "point", "queue"])
async def test_a_failure_after_the_pivot_is_parked_and_changes_nothing(
    opened: Opens, name: str, culprit: str
) -> None:
    """After the pivot no failure can exist; believing one would undo a seat that is sold."""
    async with opened(name) as service:
        await equipped(service)
        await service.do(forward(name))
        if name == "payment":
            await service.do(forward("notify"))
        await service.events()
        held = await service.holds()
        outcomes = await service.do(failure(service=culprit))
        assert isinstance(outcomes[0], Parked)
        assert reasons(outcomes) == ["protocol_broken"]
        assert await service.holds() == held
        assert await service.said() == []


@pytest.mark.parametrize("name", saga.SERVICES)
@pytest.mark.parametrize("done", [False, True])
async def test_a_failure_of_a_step_that_may_not_fail_is_parked_everywhere(
    opened: Opens, name: str, *, done: bool
) -> None:
    """A notice that could not be sent never undoes a payment, whoever says so."""
    async with opened(name) as service:
        await equipped(service)
        if done:
            await service.do(forward(name))
            await service.events()
        held = await service.holds()
        outcomes = await service.do(failure(service="notify"))
        assert isinstance(outcomes[0], Parked)
        assert reasons(outcomes) == ["protocol_broken"]
        assert await service.holds() == held
        assert await service.said() == []


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue"])
async def test_a_dead_letter_after_its_work_was_committed_undoes_nothing(opened: Opens, name: str) -> None:
    """A message may be done and still die, by a crash between commit and ack; its work is good."""
    async with opened(name) as service:
        await equipped(service)
        await service.do(forward(name))
        await service.events()
        held = await service.holds()
        assert await service.bury(dead(forward(name)), dead(forward(name))) == [DONE, DONE]
        assert await service.holds() == held
        assert await service.said() == []


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue"])
async def test_a_message_in_the_batch_of_its_own_dead_letter_is_not_done_afterwards(
    opened: Opens, name: str
) -> None:
    """Once it has been said that a saga is over, a late copy of the message must not do it after all."""
    async with opened(name) as service:
        await equipped(service)
        held = await service.holds()
        await service.bury(dead(forward(name)))
        assert await service.do(forward(name)) == [DONE]
        business = {table for table in held if table != "saga_step"}
        after = await service.holds()
        assert {table: after[table] for table in business} == {table: held[table] for table in business}


@pytest.mark.parametrize(("name", "command"), [("reservation", hold), ("point", top_up), ("queue", enter)])
async def test_a_dead_command_is_rejected_unless_it_was_answered(
    opened: Opens, name: str, command: Callable[[], Message]
) -> None:
    """Its client learns that nothing happened, and a repeat learns the same; what was done stays done."""
    async with opened(name) as service:
        assert await service.bury(dead(command())) == [DONE]
        ((type_, body),) = await service.events()
        assert (type_, body["reason"]) == (f"{name}.rejected", "retries_spent")
        held = await service.holds()
        assert await service.do(command()) == [DONE]
        assert await service.said() == [f"{name}.rejected"]
        assert await service.holds() == held
    async with opened(name) as service:
        await service.do(command())
        held, answer = await service.holds(), await service.events()
        assert await service.bury(dead(command())) == [DONE]
        assert await service.events() == answer
        assert await service.holds() == held


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("reservation", hold(), hold(seat="A-2")),
        ("point", top_up(), top_up(amount=99)),
        ("queue", enter(), enter(user_id="bob")),
    ],
)
async def test_a_dead_command_with_other_content_is_parked_too(
    opened: Opens, name: str, first: Message, second: Message
) -> None:
    """Its client must not be given the answer to somebody else's command."""
    async with opened(name) as service:
        await service.do(first)
        held = await service.holds()
        await service.events()
        assert reasons(await service.bury(dead(second))) == ["idempotency_conflict"]
        assert await service.said() == [f"{name}.rejected"]
        assert await service.holds() == held


@pytest.mark.parametrize("name", saga.SERVICES)
async def test_a_handler_that_fails_once_and_then_succeeds_leaves_its_effect_exactly_once(
    opened: Opens, name: str
) -> None:
    """The inbox row must not be committed without its change, or the retry is taken for a duplicate and lost."""
    async with opened(name) as service:
        await equipped(service)
        held = await service.holds()
        tries = 0

        async def stumble(batch: Batch[Message]) -> list[Outcome]:
            nonlocal tries
            tries += 1
            outcomes = await service.service.handle(batch)
            if tries == 1:
                raise RuntimeError("after all was written")
            return outcomes

        with pytest.raises(RuntimeError, match="after all was written"):
            await service.unit_of_work.run(service._unit(stumble, [forward(name)]))
        assert await service.holds() == held
        assert await service.said() == []
        await service.unit_of_work.run(service._unit(stumble, [forward(name)]))
        assert await service.state() == "done"
        assert await service.said() == ([saga.step_of(name).emits] if name != "notify" else [])
        if name == "point":
            assert (await Wallet.get(user_id="ann")).balance == 70


async def test_events_that_cannot_be_stored_undo_what_they_tell_of(point: Bench) -> None:
    """No event without its change, and no change without its event."""
    await equipped(point)
    held = await point.holds()

    async def unit(now: object, outbox: object) -> list[Outcome]:
        outcomes = await point._unit(point.service.handle, [forward("point")])(now, outbox)  # type: ignore[arg-type]
        outbox.events[0].type = None  # type: ignore[attr-defined]
        return outcomes

    with pytest.raises(Exception) as caught:  # noqa: PT011 - each vendor in its own words
        await point.unit_of_work.run(unit)
    assert db.classify(caught.value) is not db.Fault.AWAY
    assert await point.holds() == held
    assert await point.said() == []
