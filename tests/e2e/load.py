"""A steady load: so many payments a second while a fault is made, some of them published more than once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence

from common.messages import Pay
from containers.books import read
from tests.e2e.sales import Sales
from tests.support.eventually import eventually

_AT_ONCE = 10
_SECONDS_BETWEEN = 0.1


@contextlib.asynccontextmanager
async def load(sales: Sales, payments: Sequence[Pay], *, twice: int = 5) -> AsyncIterator[None]:
    """Publish these payments at 100 a second; the context begins when the first have been recorded.

    Every `twice`th is published again, at another moment. The context ends when all are published.
    """
    commands = [*payments, *payments[::twice]]
    random.Random(sales.mark).shuffle(commands)

    async def publish() -> None:
        for start in range(0, len(commands), _AT_ONCE):
            await sales.system.publish(*commands[start : start + _AT_ONCE], seconds=90)
            await asyncio.sleep(_SECONDS_BETWEEN)  # the pace, not a hope

    async def underway() -> None:
        assert (await read(sales.system, sales.mark)).tables["payment"]

    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        await eventually(underway)
        yield
