"""What the barrier remembers of a saga, as the services read it when a failure comes."""

from __future__ import annotations

from datetime import UTC, datetime

from common.barrier import Barrier
from common.messages import Deducted
from common.outbox import Outbox
from tests.support.bench import Bench, dead, failure, forward, top_up


async def test_only_a_part_that_is_done_is_there_to_be_undone(point: Bench) -> None:
    """What a saga that is over was told last is a failure, and a failure is nothing that could be taken back."""
    await point.do(top_up(), forward("point"), failure("p-closed"))
    await point.do(forward("point", "p-undone"), failure("p-undone"))
    await point.bury(dead(forward("point", "p-failed")))
    sagas = ("p-1", "p-closed", "p-undone", "p-failed", "p-unheard-of")
    now = datetime.now(UTC)
    barrier = await Barrier.load("point", [failure(saga) for saga in sagas], now=now, outbox=Outbox(now))
    said = [barrier.said(saga) for saga in sagas]
    assert isinstance(said[0], Deducted)
    assert said[1:] == [None] * 4
    assert barrier.to_undo() == said[:1]


async def test_what_is_undone_is_what_the_batchs_failures_end(point: Bench) -> None:
    """A message that only repeats must not lock what it will not touch."""
    await point.do(top_up(), forward("point"), forward("point", "p-2"))
    now = datetime.now(UTC)
    barrier = await Barrier.load("point", [forward("point"), failure("p-2")], now=now, outbox=Outbox(now))
    assert [body.key for body in barrier.to_undo()] == ["p-2"]
