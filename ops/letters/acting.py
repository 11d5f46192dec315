"""Replaying and discarding letters: first what must not be lost is confirmed, then the letter is taken away.

A replay is a copy with a fresh count of attempts, on the way that the service's own retries take. It is confirmed,
then the history is told, and only then the original goes: whatever dies in between leaves two copies and never
none, and the barrier absorbs the second. A letter that is discarded is kept in the history, confirmed, before it
goes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import assert_never

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

from common import history, recovery, topology
from common.channel import Channel, Publish
from common.outbox import Confirmation, Confirmed, Unconfirmed, Unroutable
from common.wire import Properties
from ops.letters import record
from ops.letters.letter import Letter
from ops.letters.queues import Drawer
from ops.letters.record import Act, Signature
from ops.output import CannotLookError

_SECONDS_TO_CONFIRM = 30.0
_MAX_HEADER = 512


@dataclass(frozen=True, slots=True)
class Done:
    """A letter was replayed or discarded. `untold`: the history was not there to be told of it."""

    untold: bool = False


@dataclass(frozen=True, slots=True)
class NotDone:
    """The letter is where it was, because of this."""

    why: str


Outcome = Done | NotDone


class Desk:
    """Where an operator's acts leave from: one channel, on which everything is confirmed."""

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
        self, drawer: Drawer, letter: Letter, signature: Signature, *, in_the_name_of: str
    ) -> Outcome:
        """Send a letter back to its service and take the original away.

        `in_the_name_of`: the broker user of the service, which believes nobody else. CannotLookError if this
        login may not.
        """
        began = time.perf_counter()
        try:
            answer = await self._publish(returning(letter, in_the_name_of))
        except aiormq.exceptions.ChannelPreconditionFailed as error:
            raise CannotLookError(
                f"{letter.service} believes only its own broker user {in_the_name_of}, and this login "
                f"({self._login}) may not publish in its name: log in as {in_the_name_of}, or give {self._login} "
                "the tag `impersonator`"
            ) from error
        match answer:
            case Confirmed():
                pass
            case Unroutable():
                return NotDone(f"no queue is bound for {topology.return_key(letter.service)}: `saga doctor` looks")
            case Unconfirmed(why=why):
                return NotDone(f"the broker did not take the copy: {why}")
            case _:
                assert_never(answer)
        told = await self._tell(Act.REPLAY, letter, signature, took=time.perf_counter() - began)
        await drawer.remove(letter)
        return Done(untold=not told)

    async def discard(self, drawer: Drawer, letter: Letter, signature: Signature) -> Outcome:
        """Keep a letter in the history and take it out of its queue; without the history it stays."""
        if not await self._tell(Act.DISCARD, letter, signature):
            return NotDone(f"the history ({topology.HISTORY}) is not there to keep it: `saga doctor` looks")
        await drawer.remove(letter)
        return Done()

    async def _tell(self, act: Act, letter: Letter, signature: Signature, *, took: float = 0.0) -> bool:
        """Tell the history of an act; whether the broker confirms that it has it."""
        now = datetime.now(UTC)
        message = Publish(
            exchange=topology.RECOVERY,
            routing_key=topology.history_key(history.OPERATOR),
            body=record.of_act(act, letter, signature, now=now, took_ms=1000 * took),
            properties=Properties(
                content_type="application/json",
                message_id=uuid.uuid4().hex,
                app_id=history.OPERATOR,
                user_id=self._login,
                timestamp=int(now.timestamp()),
            ),
            mandatory=True,
        )
        return isinstance(await self._publish(message), Confirmed)

    async def _publish(self, message: Publish) -> Confirmation:
        # A broker that is short of memory or disk takes nothing, and says nothing.
        async with asyncio.timeout(_SECONDS_TO_CONFIRM):
            (answer,) = await self._channel.publish([message])
        return answer


def returning(letter: Letter, user: str) -> Publish:
    """The copy that goes back: where the service's own retries come back, alone, and with no history.

    The exchange of the saga would give it to everybody who listens to its type. Its service believes the type
    because `user` is its own; the attempts begin anew, and so does the time for which an unknown type is tried.
    Only that it may kill its handler is not forgotten, so that it is handled alone.
    """
    kept = {
        name: value
        for name in recovery.KEPT_HEADERS
        if isinstance(value := letter.headers.get(name), str) and len(value) <= _MAX_HEADER
    }
    suspect = {recovery.REASON: recovery.CRASH_GUARD} if letter.reason == recovery.CRASH_GUARD else {}
    properties = letter.properties
    return Publish(
        exchange=topology.RECOVERY,
        routing_key=topology.return_key(letter.service),
        body=letter.body,
        properties=Properties(
            content_type=_short(properties.content_type),
            content_encoding=_short(properties.content_encoding),
            message_id=uuid.uuid4().hex,
            correlation_id=_short(properties.correlation_id),
            app_id=history.OPERATOR,
            user_id=user,
            timestamp=int(time.time()),
            headers={recovery.TYPE: letter.type[:255], recovery.ATTEMPT: 0} | kept | suspect,
        ),
        mandatory=True,
    )


def _short(text: str | None) -> str | None:
    """A stranger's text cut to what AMQP's short strings hold: 255 bytes."""
    return text.encode("utf-8", "replace")[:255].decode("utf-8", "ignore") if text else text
