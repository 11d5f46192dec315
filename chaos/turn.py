"""One fault from calm to calm: made, lifted, waited for, and judged."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from chaos import verdict
from chaos.commands import unrecorded
from chaos.faults import Cost, Fault
from chaos.load import Customer, Load
from chaos.results import Total, Turn
from chaos.stage import Stage
from containers.patience import TooLateError, eventually

#: Seconds for which the backlog must stay small before the system counts as calm.
_CALM = 2.0
_PAUSE = 0.5
#: So often the backlog is looked at before a fault.
_LOOKS = 10
#: Seconds for all that is under way to come to its end once the system is calm.
_SETTLES = 60.0
#: Seconds after which a client that has no answer asks again, in the faults that destroy messages.
_UNANSWERED = 5.0


@dataclass(slots=True)
class Turns:
    """Makes faults on one stage under one load."""

    stage: Stage
    load: Load
    say: Callable[[str], None]
    usual: int = 0
    """Most payments that were under way at once before the fault."""

    async def ready(self) -> None:
        """Wait until payments are made and all is calm."""

        async def sold() -> None:
            assert self.load.is_ready
            assert self.load.sent()

        await eventually(sold, seconds=120)

    async def make(self, fault: Fault) -> Turn:
        """Make one fault and judge what comes of it."""
        turn = Turn(fault.name, bound=fault.bound, began=datetime.now(UTC).isoformat(timespec="seconds"))
        await self._look_around()
        began = time.monotonic()
        repeated = self.load.repeated
        try:
            turn.detail = await fault.hand(self.stage, fault.holds)
        except Exception as error:  # noqa: BLE001 - a hand that failed is told; what it began it has lifted
            turn.finds.append(f"the fault could not be made or lifted: {type(error).__name__}: {error}"[:500])
        lifted = time.monotonic()
        turn.held = round(lifted - began, 1)
        self.say(f"  {turn.detail}; lifted after {turn.held:.0f} s")
        repeating = asyncio.create_task(self._repeat(lifted)) if fault.cost is Cost.REPEAT else None
        try:
            turn.recovered = round(max(0.0, await self.calm(fault.bound) - lifted), 1)
        except TooLateError as error:
            turn.finds.append(f"not as before within {fault.bound:g} s: {error}")
            await self._rescue()
        turn.busy = round(os.getloadavg()[0] / (os.cpu_count() or 1), 1)
        if repeating:
            repeating.cancel()
            await asyncio.gather(repeating, return_exceptions=True)
        turn.repeated = self.load.repeated - repeated
        await self._judge(turn, fault, began)
        return turn

    async def calm(self, seconds: float) -> float:
        """Wait until every queue is read and the backlog is as before; since when it is. TooLateError."""
        since = 0.0

        async def is_calm() -> float:
            nonlocal since
            looked = time.monotonic()
            try:
                backlog = await verdict.backlog(self.load)
                assert self.load.is_up_to_date, f"{self.load.unsent} commands wait to be published"
                assert backlog <= self.usual + self.load.rate + 5, (
                    f"{backlog} payments are under way, and {self.usual} before"
                )
                await self.stage.system.is_consuming()
            except AssertionError:
                since = 0.0
                raise
            since = since or looked
            assert looked - since >= _CALM, "it was not calm for long enough"
            return since

        # Nobody may be hurried by the looking itself.
        async def look() -> float:
            await asyncio.sleep(_PAUSE)
            return await is_calm()

        return await eventually(look, seconds=seconds + _CALM)

    async def _look_around(self) -> None:
        """Learn how many payments are under way when nothing is broken: more on a slow machine."""
        await eventually(self.stage.system.is_consuming, seconds=120)
        seen: list[int] = []
        while len(seen) < _LOOKS:
            await asyncio.sleep(_PAUSE)
            seen.append(await verdict.backlog(self.load))
        self.usual = max(seen)

    async def _repeat(self, lifted: float) -> None:
        """Be the clients of commands that were lost before a service read them: ask again until they are heard.

        What a service has read is its own business, and the janitors'.
        """
        while True:
            await asyncio.sleep(_UNANSWERED)
            try:
                asked = self.load.until(time.monotonic() - 2 * _UNANSWERED)
                found = await verdict.count(self.stage.system, asked)
            except AssertionError:
                continue
            self.load.repeat(found.unheard)
            if time.monotonic() - lifted > 2 * _UNANSWERED:
                self.load.prepare_again()

    async def _judge(self, turn: Turn, fault: Fault, began: float) -> None:
        sold = self.load.until(time.monotonic(), since=began - 5)
        found = await self._settled(sold, turn.finds)
        turn.sagas, turn.completed, turn.undone = found.sagas, found.completed, found.undone
        turn.otherwise = found.otherwise
        if found.otherwise and fault.cost is Cost.TIME:
            turn.finds.append(f"payments ended otherwise than without a fault: {found.otherwise}")
        turn.finds += (await verdict.violations(self.stage.system))[:10]

    async def _settled(self, sold: list[Customer], finds: list[str]) -> verdict.Count:
        """Count these payments once they are settled; if some never are, that is a find."""

        async def settled() -> verdict.Count:
            found = await verdict.count(self.stage.system, sold)
            assert not found.unsettled, f"{len(found.unsettled)} not settled, such as {found.unsettled[:3]}"
            return found

        try:
            return await eventually(settled, seconds=_SETTLES)
        except TooLateError as error:
            finds.append(str(error))
            return await verdict.count(self.stage.system, sold)

    async def _rescue(self) -> None:
        """Start what does not run, so that the next fault meets a whole system; that this was needed is told."""
        try:
            await self.stage.system.heal()
            await self.calm(120)
        except (TooLateError, AssertionError) as error:
            self.say(f"  it does not come back: {error}")

    async def total(self) -> Total:
        """The count of every command, when nothing is published any more."""
        everybody = self.load.until(time.monotonic())
        result = Total(commands=dict(sorted(self.load.confirmed.items())))
        found = await self._settled(everybody, result.finds)
        result.sagas, result.completed, result.undone = found.sagas, found.completed, found.undone
        gone = await unrecorded(self.stage.system, self.load.prepared)
        if gone:
            result.finds.append(f"{len(gone)} commands were confirmed and did nothing, such as {gone[:3]}")
        result.finds += (await verdict.violations(self.stage.system))[:10]
        return result
