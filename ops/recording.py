"""What an operator does, put on record in the history, and confirmed: the one place that remembers who and why."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection

from common import history, topology
from common.channel import Channel, Publish
from common.history import OPERATOR, REPLICA, Entry, Record
from common.messages import printable
from common.outbox import Confirmed
from common.wire import Properties

_SECONDS_TO_CONFIRM = 30.0


@dataclass(frozen=True, slots=True)
class Signature:
    """Who does it, and why."""

    by: str
    why: str = ""


def entry_of(
    act: str,
    signature: Signature,
    *,
    about: str = "",
    reason: str = "",
    detail: str,
    attempt: int = 1,
    trace: str = "",
) -> Entry:
    """What the history is told of an act; `about`: the id of a saga, or of a command beside them."""
    return Entry(
        saga=about,
        type=act,
        reason=reason,
        detail=printable(detail),
        attempt=attempt,
        trace=trace,
        by=printable(signature.by),
        why=printable(signature.why) if signature.why else "",
    )


def record_of(entry: Entry, *, now: datetime) -> bytes:
    """The record of one act, as the stream holds it."""
    return history.encode(Record(service=OPERATOR, replica=REPLICA, at=now, took_ms=0.0, entries=[entry]))


class Book:
    """Where acts are put on record: one channel, on which everything is confirmed."""

    def __init__(self, channel: AbstractChannel, underlay: aiormq.Channel, login: str) -> None:
        self._held = channel  # aio-pika holds channels weakly
        self._channel = Channel(underlay)
        self._login = login

    @classmethod
    async def open(cls, connection: AbstractConnection, login: str) -> Book:
        """Open the book; `login`: the broker user of the connection."""
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        return cls(channel, underlay, login)

    async def keep(self, record: bytes) -> bool:
        """Tell the history of an act; whether the broker confirms that it has it."""
        message = Publish(
            exchange=topology.RECOVERY,
            routing_key=topology.history_key(OPERATOR),
            body=record,
            properties=Properties(
                content_type="application/json",
                message_id=uuid.uuid4().hex,
                app_id=OPERATOR,
                user_id=self._login,
                timestamp=int(datetime.now(UTC).timestamp()),
            ),
            mandatory=True,
        )
        # A broker that is short of memory or disk takes nothing, and says nothing.
        async with asyncio.timeout(_SECONDS_TO_CONFIRM):
            (answer,) = await self._channel.publish([message])
        return isinstance(answer, Confirmed)
