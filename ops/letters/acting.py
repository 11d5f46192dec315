"""Replaying and discarding letters: put on record first, and confirmed; what cannot be recorded is not done.

A replay is a rejection. The broker itself gives a rejected letter back to its service, unchanged and at least
once, by the way that its queue was declared with: nobody has to write another one, or to speak in the service's
name. Whatever dies in between leaves the letter where it was. One that is discarded is kept in its record.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

from common import history, topology
from common.channel import Channel, Publish
from common.outbox import Confirmed
from common.wire import Properties
from ops.letters import record
from ops.letters.letter import Letter
from ops.letters.queues import Drawer
from ops.letters.record import Act, Signature

_SECONDS_TO_CONFIRM = 30.0


@dataclass(frozen=True, slots=True)
class Done:
    """A letter was replayed or discarded."""


@dataclass(frozen=True, slots=True)
class NotDone:
    """The letter is where it was, because of this."""

    why: str


Outcome = Done | NotDone

_NOT_RECORDED = NotDone(
    f"the history ({topology.HISTORY}) does not keep who does it, and why: nothing was done; `saga doctor` looks"
)


class Desk:
    """Where an operator's acts are put on record: one channel, on which everything is confirmed."""

    def __init__(self, channel: AbstractChannel, underlay: aiormq.Channel, login: str) -> None:
        self._held = channel  # aio-pika holds channels weakly
        self._channel = Channel(underlay)
        self._login = login

    @classmethod
    async def open(cls, connection: AbstractConnection, login: str) -> Desk:
        """Open a desk; `login`: the broker user of the connection."""
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        return cls(channel, underlay, login)

    async def replay(
        self, drawer: Drawer, letter: Letter, signature: Signature, *, unrecorded: bool = False
    ) -> Outcome:
        """Let the broker give a letter back to its service; `unrecorded`: even where nobody keeps who did it."""
        if not await self._tell(Act.REPLAY, letter, signature) and not unrecorded:
            return _NOT_RECORDED
        await drawer.send_back(letter)
        return Done()

    async def discard(self, drawer: Drawer, letter: Letter, signature: Signature) -> Outcome:
        """Keep a letter in the history and take it out of its queue; without the history it stays."""
        if not await self._tell(Act.DISCARD, letter, signature):
            return _NOT_RECORDED
        await drawer.remove(letter)
        return Done()

    async def _tell(self, act: Act, letter: Letter, signature: Signature) -> bool:
        """Tell the history of an act; whether the broker confirms that it has it."""
        now = datetime.now(UTC)
        message = Publish(
            exchange=topology.RECOVERY,
            routing_key=topology.history_key(history.OPERATOR),
            body=record.of_act(act, letter, signature, now=now),
            properties=Properties(
                content_type="application/json",
                message_id=uuid.uuid4().hex,
                app_id=history.OPERATOR,
                user_id=self._login,
                timestamp=int(now.timestamp()),
            ),
            mandatory=True,
        )
        # A broker that is short of memory or disk takes nothing, and says nothing.
        async with asyncio.timeout(_SECONDS_TO_CONFIRM):
            (answer,) = await self._channel.publish([message])
        return isinstance(answer, Confirmed)
