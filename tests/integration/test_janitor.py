"""The janitor: what stays open is offered again, what is long over is forgotten, and nothing happens twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from common import janitor, retention, saga
from common.barrier import SagaStep, State, final_states
from common.janitor import Janitor, _Settled, offer_again
from common.recovery import DONE, Dead
from common.retention import nothing_else
from common.settings import Settings
from notify_svc import retention as notices
from notify_svc.models import Notice
from tests.support import bodies
from tests.support.bench import Bench, Opens, dead, enter, failure, forward, hold, settled, top_up
from tests.support.eventually import eventually
from tests.support.hand_fed import HandFedInbox

PATIENCE = timedelta(minutes=20)
RETENTION = timedelta(days=30)
LONG_AGO = datetime.now(UTC) - timedelta(days=31)


async def age(by: timedelta) -> None:
    """Let time pass for the rows of all sagas."""
    await SagaStep.all().update(changed_at=datetime.now(UTC) - by)


async def left(table: type[SagaStep | Notice]) -> list[str]:
    """The sagas that a table still knows."""
    return [row.saga_id for row in await table.all().order_by("saga_id")]


async def offer(service: Bench) -> int:
    """Let the janitor offer again what stays open too long."""
    return await service.unit_of_work.run(partial(offer_again, patience=PATIENCE))


async def forget(service: Bench, also: retention.Forget = nothing_else) -> int:
    """Let the janitor forget what is long over."""
    gone = 0
    for state in final_states(service.service.name):
        unit = partial(retention.forget, state=state, also=also, retention=RETENTION, kept=0)
        gone += (await service.unit_of_work.run(unit))[1]
    return gone


@pytest.mark.parametrize("name", ["payment", "reservation", "point", "queue"])
async def test_a_saga_that_stays_open_is_offered_again_word_by_word(opened: Opens, name: str) -> None:
    """By the rule of repetition that walks it on, or brings the failure that got lost."""
    async with opened(name) as service:
        await service.do(*{"reservation": [hold()], "point": [top_up()], "queue": [enter()]}.get(name, []))
        await service.do(forward(name))
        said = [event for event in await service.events() if event[0] == saga.step_of(name).emits]
        assert await offer(service) == 0, "it is not open for long"
        await age(PATIENCE + timedelta(seconds=1))
        assert await offer(service) == 1
        assert await service.events() == said
        assert await offer(service) == 0, "once in that time"


async def test_what_is_over_is_never_offered_again(point: Bench) -> None:
    """Settled, undone, closed or failed: nobody waits for its word."""
    await point.do(top_up(), forward("point"), forward("point", "p-2"))
    await point.do(settled(), failure("p-2"), failure("p-3"))
    await point.bury(dead(forward("point", "p-4")))
    await point.events()
    await age(timedelta(days=1))
    assert await offer(point) == 0
    assert await point.events() == []


async def test_a_settlement_between_the_look_and_the_write_wins(point: Bench) -> None:
    """The janitor's write must not open again what was closed meanwhile."""
    await point.do(top_up(), forward("point"))
    await age(timedelta(days=1))

    async def overtaken(now: datetime, outbox: object) -> int:
        offered = await offer_again(now, outbox, patience=PATIENCE)  # type: ignore[arg-type] # as it is given
        await SagaStep.filter(saga_id="p-1").update(state=State.SETTLED)
        return offered

    with pytest.raises(Exception, match="another replica changed rows"):
        await point.unit_of_work.run(overtaken)


async def test_a_huge_backlog_is_offered_by_the_page(point: Bench) -> None:
    """A transaction as large as the outage was long would be the next outage."""
    sagas = [f"p-{number}" for number in range(janitor.PAGE + 10)]
    await point.do(top_up(amount=1_000_000), *(forward("point", saga_id) for saga_id in sagas))
    await point.events()
    await age(timedelta(days=1))
    assert await offer(point) == janitor.PAGE
    assert await offer(point) == 10
    assert await offer(point) == 0
    assert sorted(body["payment_id"] for _, body in await point.events()) == sorted(sagas)


async def test_only_what_is_final_and_old_is_forgotten(point: Bench) -> None:
    """An open saga is never too old: forgetting it would do it twice."""
    await point.do(top_up(), *(forward("point", saga_id) for saga_id in ("p-1", "p-2", "p-3")))
    await point.do(settled("p-1"), failure("p-2"), failure("p-4"))
    await age(RETENTION + timedelta(hours=1))
    await point.do(failure("p-5"))
    assert await forget(point) == 3
    assert await left(SagaStep) == ["p-3", "p-5"]
    assert await forget(point) == 0


async def test_what_is_kept_does_not_hide_what_may_go(notify: Bench) -> None:
    """A page full of notices that wait for a person is passed over, not looked at for ever."""
    await notify.do(*(forward("notify", f"p-{number}") for number in range(3)))
    await Notice.filter(saga_id="p-2").update(state="SENT")
    await age(RETENTION + timedelta(hours=1))
    work = Janitor("notify", Settings(janitor_seconds=1), notify.life, notify.relay, notices.forget)
    page, retention.PAGE = retention.PAGE, 1
    try:
        await work._forget(notify.unit_of_work)
    finally:
        retention.PAGE = page
    assert await left(SagaStep) == ["p-0", "p-1"]
    assert notify.life.health.forgotten == 1


async def test_a_notice_goes_with_its_saga_and_one_that_waits_keeps_it(notify: Bench) -> None:
    """What a user was not told is nothing to forget; what he was told must not be in the way of a late repeat."""
    await notify.do(forward("notify"), failure("p-2"), forward("notify", "p-3"))
    await Notice.filter(saga_id__in=["p-1", "p-2"]).update(state="SENT")
    await age(RETENTION + timedelta(hours=1))
    assert await forget(notify, notices.forget) == 2
    assert await left(Notice) == ["p-3"]
    await notify.do(failure("p-2"))
    assert await notify.state("p-2") == "closed"


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        *((name, queue) for name in ("reservation", "point", "queue") for queue in ("events", "dead")),
        # What comes after the pivot never dies: its dead letters go round to the events.
        ("notify", "events"),
    ],
)
async def test_a_forward_message_whose_saga_may_be_forgotten_is_parked(
    opened: Opens, name: str, queue: str
) -> None:
    """By consumer and dead-letter handler alike: else what was forgotten could happen twice."""
    async with opened(name) as service:
        on = saga.step_of(name).on
        inbox = HandFedInbox(f"{name}.{queue}")
        key = f"{name}.dead" if queue == "dead" else on
        for payment_id, days in (("p-1", 28), ("p-2", 26)):
            paid_at = (datetime.now(UTC) - timedelta(days=days)).isoformat()
            expires_at = bodies.soon()
            body = bodies.forward(on, payment_id, paid_at=paid_at, expires_at=expires_at)
            inbox.deliver(key, body, headers={"x-type": on, "x-reason": "r"}, user_id=f"saga-{name}")
        session = await service.consume(inbox)
        assert (f"{name}.parked", "too_old") in session.told()
        assert session.told().count((f"{name}.parked", "too_old")) == 1
        assert await service.state("p-1") is None


async def test_the_first_service_takes_a_late_completion(payment: Bench) -> None:
    """It never forgets, and to park it would leave a payment provisional that is complete."""
    paid_at = (datetime.now(UTC) - timedelta(days=300)).isoformat()
    await payment.do(forward("payment"))
    inbox = HandFedInbox("payment.events")
    inbox.deliver(saga.PIVOT.emits, bodies.forward(saga.PIVOT.emits, paid_at=paid_at), user_id="saga-queue")
    session = await payment.consume(inbox)
    assert session.told() == []
    assert await payment.said() == ["payment.completed", "payment.paid"]


async def test_the_first_service_forgets_nothing(payment: Bench) -> None:
    """Its row is what knows a command again, and repeats its answer, however late it comes."""
    await payment.do(forward("payment"), failure())
    await age(timedelta(days=3000))
    payment.life.health.broker = payment.life.health.database = "ok"
    chore = asyncio.create_task(
        Janitor("payment", Settings(janitor_seconds=0.01), payment.life, payment.relay).run(payment.unit_of_work)
    )
    rounds = await _rounds(payment)
    payment.life.stop()
    await chore
    assert rounds
    assert await payment.state() == "undone"


async def _rounds(service: Bench) -> bool:
    """Open a second saga and wait until the janitor has offered it: it has been round."""
    await service.do(forward("payment", "p-2"))
    await SagaStep.filter(saga_id="p-2").update(changed_at=LONG_AGO)

    async def offered() -> bool:
        return service.life.health.offered_again > 0

    return bool(await eventually(offered))


async def test_the_janitor_waits_for_a_broker_that_is_away(point: Bench) -> None:
    """Nothing of it could be published, and an outage of a day would fill the outbox with repetitions."""
    await point.do(top_up(), forward("point"))
    await point.events()
    await age(timedelta(days=1))
    point.life.health.broker, point.life.health.database = "away", "ok"
    work = Janitor("point", Settings(), point.life, point.relay)
    await work._offer(point.unit_of_work, partial(offer_again, patience=PATIENCE))
    assert await point.events() == []
    point.life.health.broker = "ok"
    await work._offer(point.unit_of_work, partial(offer_again, patience=PATIENCE))
    assert await point.said() == ["point.deducted"]


async def test_two_janitors_forget_the_same_rows_without_harm(point: Bench) -> None:
    """Every replica has one."""
    await point.do(top_up(), failure("p-2"))
    await age(RETENTION + timedelta(hours=1))

    async def both(sagas: Sequence[str], _: object) -> Sequence[str]:
        await SagaStep.filter(saga_id__in=sagas).delete()
        return sagas

    assert await forget(point, both) == 1
    assert await SagaStep.all().count() == 0


async def test_what_was_settled_is_said_again_for_a_service_that_was_restored(opened: Opens) -> None:
    """Its part is lost, and nobody may refuse what is complete: not even because the deadline has passed."""
    since = datetime.now(UTC) - timedelta(minutes=5)
    late = {"expires_at": bodies.soon(-1), "paid_at": bodies.soon(-8)}
    async with opened("reservation") as reservation:
        await reservation.do(hold())
        await reservation.do(forward("reservation", expires_at=bodies.soon(1), paid_at=late["paid_at"]))
        await reservation.do(settled())
        await reservation.events()
        again = _Settled(since)
        assert await reservation.unit_of_work.run(again.offer) == 1
        ((type_, body),) = await reservation.events()
        assert again.all_offered
        assert await reservation.unit_of_work.run(again.offer) == 0, "once"
        assert await reservation.state() == "settled", "nobody can undo it meanwhile"
    async with opened("point") as point:
        await point.do(top_up())
        (outcome,) = await point.do(bodies.message(type_, body | {"expires_at": late["expires_at"]}))
        assert isinstance(outcome, Dead), "as it was said the first time, it comes too late"
        assert await point.do(bodies.message(type_, body)) == [DONE]
        assert "point.deducted" in await point.said()


async def test_what_was_settled_before_the_backup_is_not_said_again(point: Bench) -> None:
    """The restored service knows it."""
    await point.do(top_up(amount=1000), *(forward("point", f"p-{number}") for number in range(5)))
    await point.do(settled(*(f"p-{number}" for number in range(4))))
    await SagaStep.filter(saga_id__in=["p-0", "p-1"]).update(changed_at=LONG_AGO)
    await point.events()
    page, janitor.PAGE = janitor.PAGE, 1
    try:
        again = _Settled(LONG_AGO + timedelta(days=1))
        offered = [await point.unit_of_work.run(again.offer) for _ in range(4)]
    finally:
        janitor.PAGE = page
    assert offered == [1, 1, 0, 0]
    assert [body["payment_id"] for _, body in await point.events()] == ["p-2", "p-3"]
