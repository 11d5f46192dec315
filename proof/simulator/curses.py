"""Messages that are cursed: handling them goes wrong, so many times, in the service that they are cursed in."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import asyncpg
from tortoise.exceptions import IntegrityError

from common import runner, saga
from common.consumer import Handle, M
from common.messages import Failed, Message
from common.recovery import DeadLetter, Outcome
from common.unit_of_work import Batch
from notify_svc.models import Notice
from proof.simulator.faults import Act, Fate, Moment
from proof.simulator.life import Incarnation
from proof.simulator.workload import Curse, Ill, What

_SECONDS_TO_SEND = 0.05
_SLOWNESS = 2.0
_ERRORS: dict[Ill, Callable[[], Exception]] = {
    Ill.FAILS: lambda: RuntimeError("this message is cursed"),
    Ill.FAILS_AGAIN: lambda: RuntimeError("this message is cursed when it is repeated"),
    Ill.FAILS_LATE: lambda: RuntimeError("this message is cursed, which shows late"),
    Ill.BAD_CONTENT: lambda: asyncpg.DataError("this cannot be stored"),
    Ill.RACES: lambda: IntegrityError("another one was first"),
}

Tell = Callable[[str, str, str], None]


class Curses:
    """Which messages are still cursed; it outlives the services, as what is wrong with a message does."""

    def __init__(self, curses: Iterable[Curse], fate: Fate, tell: Tell) -> None:
        self._curses = {(curse.service, curse.what, curse.id): curse for curse in curses}
        self._left = {key: curse.times for key, curse in self._curses.items()}
        self._fate = fate
        self._tell = tell
        #: How often each user was sent each kind of notice.
        self.sent: Counter[tuple[str, str]] = Counter()

    def upon(self, service: runner.Service, incarnation: Incarnation) -> runner.Service:
        """A service that suffers from them."""
        background: list[Any] = list(service.background)
        if service.name == "notify":
            background = [partial(sender, channel=self._channel(incarnation)) for sender in background]
        return dataclasses.replace(
            service,
            handle=self._suffering(service.handle, incarnation),
            dead_letter=self._suffering(service.dead_letter, incarnation),
            background=background,
        )

    def _suffering(self, handle: Handle[M], incarnation: Incarnation) -> Handle[M]:
        if not any(service == incarnation.service for service, _, _ in self._curses):
            return handle

        async def cursed(batch: Batch[M]) -> list[Outcome]:
            ills = [ill for message in batch.messages if (ill := self._ill(incarnation, message))]
            for ill in ills:
                await self._suffer(ill, incarnation)
            outcomes = await handle(batch)
            if Ill.FAILS_LATE in ills:
                late = _ERRORS[Ill.FAILS_LATE]()
                raise late
            return outcomes

        return cursed

    def _ill(self, incarnation: Incarnation, content: Message | DeadLetter) -> Ill | None:
        match content:
            case DeadLetter(message=message):
                what = What.DEAD
            case Message() as message:
                for_ever = incarnation.service == saga.FIRST.service and message.type == saga.PIVOT.emits
                what = What.FAILURE if for_ever or isinstance(message.body, Failed) else What.FORWARD
        return self._struck(incarnation, what, message.key)

    def _struck(self, incarnation: Incarnation, what: What, id_: str) -> Ill | None:
        key = (incarnation.service, what, id_)
        if not self._left.get(key):
            return None
        self._left[key] -= 1
        curse = self._curses[key]
        if curse.ill is Ill.FAILS_AGAIN and self._left[key] == curse.times - 1:
            return None
        self._tell(incarnation.name, f"is cursed: {what} {curse.ill}", id_)
        return curse.ill

    async def _suffer(self, ill: Ill, incarnation: Incarnation) -> None:
        match ill:
            case Ill.KILLS:
                incarnation.kill()
                incarnation.must_live()
            case Ill.IS_SLOW:
                await asyncio.sleep(_SLOWNESS)
            case Ill.FAILS_LATE:
                pass
            case _:
                error = _ERRORS[ill]()
                raise error

    def _channel(self, incarnation: Incarnation) -> Callable[[Notice], Awaitable[bool]]:
        async def send(notice: Notice) -> bool:
            await self._strikes(incarnation, Moment.SEND)
            incarnation.must_live()
            if self._struck(incarnation, What.NOTICE, notice.saga_id):
                return False
            self.sent[notice.saga_id, notice.kind] += 1
            self._tell(incarnation.name, f"tells the user: {notice.kind}", notice.saga_id)
            await asyncio.sleep(_SECONDS_TO_SEND)
            await self._strikes(incarnation, Moment.SENT)
            return True

        return send

    async def _strikes(self, incarnation: Incarnation, moment: Moment) -> None:
        strike = self._fate.at(incarnation.name, moment)
        if strike is None:
            return
        incarnation.struck(strike)
        incarnation.must_live()
        match strike.act:
            case Act.FAIL:
                raise ConnectionError("the mail server hung up")
            case Act.SLOW:
                await asyncio.sleep(strike.seconds)
