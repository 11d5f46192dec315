"""How often a lone message makes its service go to PostgreSQL and back: most of what a saga costs at a low rate.

A batch costs nearly the same whatever is in it, so at a low rate, where each holds one message, every way counts.
These numbers are meant to be changed, downwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import asyncpg
import pytest

from common.life import Life
from notify_svc import sender
from notify_svc.handover import Handover
from notify_svc.models import Notice
from tests.support import bodies
from tests.support.bench import Bench, Opens, enter, forward, hold, settled, top_up
from tests.support.hand_fed import HandFedInbox

pytestmark = pytest.mark.postgres_only

Do = Callable[[], Awaitable[object]]


@contextlib.contextmanager
def ways() -> Iterator[list[str]]:
    """The statements that go to the server, BEGIN and COMMIT included."""
    went: list[str] = []
    execute, prepared = asyncpg.Connection.execute, asyncpg.Connection._execute

    async def plainly(self: Any, query: str, *values: Any, **options: Any) -> Any:  # noqa: ANN401 - as asyncpg has it
        # With values it goes on to the other one.
        if not values:
            went.append(query)
        return await execute(self, query, *values, **options)

    async def with_values(self: Any, query: str, *values: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        went.append(query)
        return await prepared(self, query, *values, **options)

    with (
        mock.patch.object(asyncpg.Connection, "execute", plainly),
        mock.patch.object(asyncpg.Connection, "_execute", with_values),
    ):
        yield went


async def consume(service: Bench, key: str, payment_id: str) -> None:
    """Let the consumer work one message that came alone."""
    inbox = HandFedInbox(f"{service.service.name}.events")
    body = bodies.command(payment_id) if key == "payment.pay" else bodies.forward(key, payment_id)
    inbox.deliver(key, body)
    session = await service.consume(inbox)
    assert session.told() == [], "it went well"


@pytest.mark.parametrize(
    ("name", "key", "at_most"),
    [
        ("payment", "payment.pay", 1),
        ("reservation", "payment.paid", 2),
        ("point", "reservation.confirmed", 2),
        ("queue", "point.deducted", 2),
        ("notify", "queue.expired", 1),
        ("payment", "queue.expired", 2),
    ],
)
async def test_a_lone_message_goes_to_the_database_no_more_often_than_this(
    opened: Opens, name: str, key: str, at_most: int
) -> None:
    """One way to read all that it touches, one to write all that it changes; what is new is only written."""
    async with opened(name) as service:
        match name:
            case "reservation":
                await service.do(hold())
            case "point":
                await service.do(top_up())
            case "queue":
                await service.do(enter())
        if key == "queue.expired" and name == "payment":
            await service.do(forward("payment"))
        with ways() as went:
            await consume(service, key, "p-1")
        assert await service.state() == "done"
    assert len(went) == at_most, "\n".join(went)


async def test_a_notice_that_was_handed_over_is_settled_with_one_statement(notify: Bench) -> None:
    """Its lease is in this process's memory, and to write finds out whether it still holds."""
    handover = Handover()
    handover.open(has_sender=True)
    await notify.do(forward("notify"))
    (notice,) = await Notice.all()
    notice.attempts, notice.leased_as = 0, 0
    with ways() as went:
        await sender._deliver(Life("notify"), notify.unit_of_work, sender.to_log, [notice], notify.observers)
    assert len(went) == 1, "\n".join(went)
    assert (await Notice.get(saga_id="p-1")).state == "SENT"


@pytest.mark.parametrize("name", ["reservation", "point", "queue"])
async def test_settling_many_sagas_is_two_ways(opened: Opens, name: str) -> None:
    """Nobody waits for it, and it comes once a second."""
    async with opened(name) as service:
        with ways() as went:
            await service.do(settled("p-1", "p-2"))
    assert len(went) == 2, "\n".join(went)


async def test_a_repeated_command_costs_its_lost_race_and_is_answered(payment: Bench) -> None:
    """It was taken for new, and the insert found out: written in vain, read, and answered."""
    await payment.do(forward("payment"))
    await payment.events()
    with ways() as went:
        await consume(payment, "payment.pay", "p-1")
    assert len(went) == 3, "\n".join(went)
    assert await payment.said() == ["payment.paid"]
