"""Settlement: what is complete is told to the others, in batches, and can never be undone again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from common import saga
from common.barrier import PROTOCOL_BROKEN, SagaStep
from common.messages import MAX_BODY, MAX_SETTLED, Settled
from common.outbox import Outbox, OutboxRow
from common.recovery import Parked
from payment_svc.models import Payment
from payment_svc.settlement import Settlement, settle
from payment_svc.step import handle
from tests.support.bench import SERVICES, Bench, failure, forward, settled, top_up


async def complete(payment: Bench, *payment_ids: str) -> None:
    """Let payments be made and completed; what was said meanwhile is taken away."""
    await payment.do(*(forward("payment", payment_id) for payment_id in payment_ids))
    await payment.do(*(forward("notify", payment_id) for payment_id in payment_ids))
    await payment.events()


async def settle_now(payment: Bench, *payment_ids: str) -> None:
    """Settle payments as the round of a second does."""
    await payment.unit_of_work.run(lambda now, outbox: settle(payment_ids, now, outbox))


async def test_completed_payments_are_told_in_one_event(payment: Bench) -> None:
    """One message a saga would cost what the batches save."""
    await complete(payment, "p-1", "p-2", "p-3")
    await settle_now(payment, "p-3", "p-1", "p-2")
    assert await payment.events() == [(saga.SETTLED, {"payment_ids": ["p-1", "p-2", "p-3"]})]
    assert {await payment.state(payment_id) for payment_id in ("p-1", "p-2", "p-3")} == {"settled"}


async def test_the_fullest_event_is_one_that_can_be_read() -> None:
    """A settlement that its takers must park would leave its sagas open for ever."""
    ids = [f"{number:0>64}" for number in range(MAX_SETTLED)]
    assert len(Settled(payment_ids=ids).encode()) < MAX_BODY


async def test_what_is_complete_is_handed_to_settlement_after_the_commit_and_only_then(payment: Bench) -> None:
    """A completion that is undone with its batch must not be told to anybody."""
    settlement = Settlement()
    rules = SERVICES["payment"].handle.keywords["rules"]  # type: ignore[attr-defined] # a partial, as in __main__
    await payment.do(forward("payment"), forward("payment", "p-2"))

    async def unit(now: datetime, outbox: Outbox, *, breaks: bool) -> None:
        batch = payment.batch([forward("notify"), forward("notify", "p-2")], now, outbox)
        await handle(batch, rules, settlement)
        if breaks:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await payment.unit_of_work.run(lambda now, outbox: unit(now, outbox, breaks=True))
    assert list(settlement.waiting) == []
    await payment.unit_of_work.run(lambda now, outbox: unit(now, outbox, breaks=False))
    assert list(settlement.waiting) == ["p-1", "p-2"]


async def test_a_completion_that_comes_again_is_told_again(payment: Bench) -> None:
    """Whoever walked the saga here once more may have missed the settlement the first time."""
    await complete(payment, "p-1")
    await settle_now(payment, "p-1")
    await payment.events()
    await settle_now(payment, "p-1")
    assert await payment.said() == [saga.SETTLED]
    assert await payment.state() == "settled"


async def test_what_is_not_complete_is_never_settled(payment: Bench) -> None:
    """Not even if this service believes that it is: a cancelled payment is put before a person."""
    await payment.do(forward("payment"), failure())
    await payment.events()
    await settle_now(payment, "p-1")
    assert await payment.state() == "undone"
    (row,) = await OutboxRow.all()
    assert row.parked_because == PROTOCOL_BROKEN


async def test_the_others_are_told_only_of_what_is_settled_here(payment: Bench) -> None:
    """Or one payment that is not complete would be put before a person in five services."""
    await complete(payment, "p-1")
    await payment.events()
    await settle_now(payment, "p-1", "p-unknown")
    told, parked = sorted(await OutboxRow.all(), key=lambda row: row.parked_because or "")
    assert (json.loads(told.body), told.parked_because) == ({"payment_ids": ["p-1"]}, None)
    assert (json.loads(parked.body), parked.parked_because) == ({"payment_ids": ["p-unknown"]}, PROTOCOL_BROKEN)


async def test_sagas_that_cannot_be_settled_are_parked_alone(point: Bench) -> None:
    """A restored database does not know them: a person must hear of it, and the others be settled all the same."""
    await point.do(top_up(), forward("point"), failure("p-2"))
    await point.events()
    await point.do(settled("p-1", "p-2", "p-3"))
    assert await point.state() == "settled"
    assert await point.state("p-2") == "closed"
    (row,) = await OutboxRow.exclude(parked_because=None)
    assert json.loads(row.body) == {"payment_ids": ["p-2", "p-3"]}
    assert row.detail is not None
    assert "p-2 (closed), p-3 (unknown)" in row.detail


async def test_a_forged_failure_of_a_settled_saga_undoes_nothing(point: Bench) -> None:
    """Nothing can fail after the pivot, and from here on every service knows it."""
    await point.do(top_up(), forward("point"), settled())
    before = await point.holds()
    (outcome,) = await point.do(failure())
    assert isinstance(outcome, Parked)
    assert outcome.reason == PROTOCOL_BROKEN
    assert await point.holds() == before


async def test_a_saga_and_its_settlement_may_come_in_one_batch(point: Bench) -> None:
    """After an outage they wait in one queue."""
    await point.do(top_up(), forward("point"), settled())
    assert await point.state() == "settled"
    assert (await SagaStep.get(saga_id="p-1")).answer_type == "point.deducted"


async def test_the_command_of_a_complete_payment_walks_the_saga_again_while_the_others_know_it(
    payment: Bench,
) -> None:
    """That is how a client asks, and how anything lost is healed."""
    await complete(payment, "p-1")
    await settle_now(payment, "p-1")
    await payment.events()
    await payment.do(forward("payment"))
    assert await payment.said() == ["payment.paid"]


async def test_the_command_of_a_payment_of_long_ago_is_told_that_it_is_complete(payment: Bench) -> None:
    """The others have forgotten the saga: asked again, they would park the question."""
    await complete(payment, "p-1")
    await settle_now(payment, "p-1")
    await payment.events()
    await Payment.all().update(paid_at=datetime.now(UTC) - timedelta(days=28))
    await payment.do(forward("payment"))
    ((type_, body),) = await payment.events()
    assert type_ == saga.COMPLETED
    assert body["payment_id"] == "p-1"


async def test_other_content_under_the_id_of_a_payment_of_long_ago_is_still_a_conflict(payment: Bench) -> None:
    """The first service never forgets an id: that is what makes it a key."""
    await complete(payment, "p-1")
    await settle_now(payment, "p-1")
    await Payment.all().update(paid_at=datetime.now(UTC) - timedelta(days=28))
    (outcome,) = await payment.do(forward("payment", amount=31))
    assert isinstance(outcome, Parked)
    assert outcome.reason == saga.IDEMPOTENCY_CONFLICT
