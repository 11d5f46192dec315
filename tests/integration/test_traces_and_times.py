"""What a person finds afterwards: the trace of an event, the time of a change, and why a message was parked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common import saga
from common.barrier import PROTOCOL_BROKEN
from common.messages import Message
from common.outbox import OutboxRow
from common.recovery import Outcome, Parked
from notify_svc.models import Notice
from queue_svc.models import Token
from tests.support import bodies
from tests.support.bench import Bench, Opens, dead, enter, failure, forward, hold, top_up

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def traced(message: Message) -> Message:
    """The message as it arrives in the middle of a trace."""
    return replace(message, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")


async def traces() -> dict[str, str]:
    """The trace of every event that was staged, by its type."""
    return {row.type: row.traceparent.split("-")[1] for row in await OutboxRow.all()}


def complaint(outcomes: list[Outcome]) -> str:
    """What the person who must look is told about a message that broke the protocol."""
    (parked,) = outcomes
    assert isinstance(parked, Parked)
    assert parked.reason == PROTOCOL_BROKEN
    return parked.detail


@pytest.mark.parametrize(
    ("name", "given"),
    [("payment", ()), ("reservation", (hold(),)), ("point", (top_up(),)), ("queue", (enter(),))],
)
async def test_every_event_belongs_to_the_trace_of_the_message_that_it_answers(
    opened: Opens, name: str, given: tuple[Message, ...]
) -> None:
    """A saga is followed by its trace; one event that begins a new one cuts it in two."""
    step = saga.step_of(name)
    async with opened(name) as service:
        for command in given:
            await service.do(traced(command))
            assert set((await traces()).values()) == {TRACE}
            await service.events()
        await service.do(traced(forward(name)))
        assert await traces() == {step.emits: TRACE}
        await service.events()
        await service.do(traced(failure()))
        assert await traces() == ({step.compensation: TRACE} if step.compensation else {})
        await service.events()
        await service.bury(dead(traced(forward(name, "p-2"))))
        assert await traces() == {step.failed: TRACE}


async def test_a_completed_payment_and_its_notice_belong_to_the_trace_too(payment: Bench) -> None:
    """The last event of the saga that went well."""
    await payment.do(forward("payment"))
    await payment.events()
    await payment.do(traced(bodies.message("queue.expired")))
    assert await traces() == {saga.COMPLETED: TRACE}


@pytest.mark.parametrize("message", [forward("notify"), failure()], ids=["completed", "failed"])
async def test_a_notice_belongs_to_the_trace_of_its_saga(notify: Bench, message: Message) -> None:
    """It is sent later and by another task, so its row must remember."""
    await notify.do(traced(message))
    assert (await Notice.get(saga_id="p-1")).traceparent == traced(message).traceparent


async def test_a_used_token_tells_by_which_payment_and_when(queue: Bench) -> None:
    """The only place where a person can see why a token is refused."""
    await queue.do(enter())
    before = datetime.now(UTC)
    await queue.do(forward("queue"))
    token = await Token.get(token="t-1")
    assert token.payment_id == "p-1"
    assert token.expired_at is not None
    assert before <= token.expired_at <= datetime.now(UTC)
    ((_, said),) = [event for event in await queue.events() if event[0] == "queue.expired"]
    assert datetime.fromisoformat(said["expired_at"]) == token.expired_at


@pytest.mark.parametrize(("ended", "said"), [(False, "unknown"), (True, "CANCELLED")])
async def test_a_completion_of_a_payment_that_is_not_paid_says_what_it_is(
    payment: Bench, *, ended: bool, said: str
) -> None:
    """Who must look needs to know whether the payment is missing or undone: the two have different causes."""
    if ended:
        await payment.do(forward("payment"))
        await payment.do(failure())
    detail = complaint(await payment.do(forward("notify")))
    assert said in detail
    assert "queue.expired" in detail


async def test_a_failure_after_the_pivot_says_which_payment_it_was_about(queue: Bench) -> None:
    """It cannot be, so whoever looks begins with the payment."""
    await queue.do(enter())
    await queue.do(forward("queue"))
    assert "p-1" in complaint(await queue.do(failure(service="point")))


async def test_a_failure_of_a_completed_payment_says_so(payment: Bench) -> None:
    """As above, where the user could lose a seat that is paid for."""
    await payment.do(forward("payment"))
    await payment.do(forward("notify"))
    detail = complaint(await payment.do(failure(service="point")))
    assert "p-1" in detail
    assert "COMPLETED" in detail


async def test_a_failure_of_the_step_that_may_not_fail_is_named(payment: Bench) -> None:
    """After the pivot nothing fails; who forged it, or which version says it, is found by its name."""
    await payment.do(forward("payment"))
    assert "notify.failed" in complaint(await payment.do(failure(service="notify")))
    assert await payment.state() == "done"
