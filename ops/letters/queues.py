"""Looking through a dead or parked queue as a person does: what is taken is held, and goes back unharmed.

Looking is `basic.get` without an answer. Until it is given back, a letter is nobody else's, so of two operators
only one can act on it. All go back with one answer, in the order in which they came; should this program die, the
broker gives them back by itself, in any order. What a look does to a queue: each message in it counts one delivery
more, of the billion that these queues allow. Those that were looked at come before those that never were; a look
at only a part puts that part behind the others that were looked at before.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiormq
from aio_pika.abc import AbstractChannel, AbstractConnection
from pamqp import commands as spec

from ops.broker import LOST
from ops.letters.letter import Kind, Letter, Properties, at, read


class Drawer:
    """One queue while it is looked through. `left`: how many letters wait in it that were not looked at."""

    def __init__(
        self, kind: Kind, service: str, channel: AbstractChannel, underlay: aiormq.Channel, waiting: int
    ) -> None:
        self.kind = kind
        self.service = service
        self.left = waiting
        self._owner = channel
        self._channel = underlay
        self._held: set[int] = set()

    async def letters(self, limit: int) -> AsyncGenerator[Letter, None]:
        """Take letters, oldest first, and hold them; no more than `limit`."""
        for _ in range(limit):
            got = await self._channel.basic_get(self.kind.queue(self.service))
            if not isinstance(got.delivery, spec.Basic.GetOk):
                self.left = 0
                return
            tag = got.delivery.delivery_tag or 0
            self._held.add(tag)
            self.left = got.delivery.message_count or 0
            properties = got.header.properties
            yield read(
                self.kind,
                self.service,
                got.body,
                _properties(properties),
                properties.headers or {},
                tag=tag,
            )

    async def remove(self, letter: Letter) -> None:
        """Take a held letter away for good. Nobody answers that; `give_back` is what the broker answers."""
        await self._channel.basic_ack(letter.tag)
        self._held.discard(letter.tag)

    async def send_back(self, letter: Letter) -> None:
        """Let the broker give a held letter back to its service: rejected, it leaves by its queue's own way.

        Nobody answers that, as above.
        """
        await self._channel.basic_reject(letter.tag, requeue=False)
        self._held.discard(letter.tag)

    async def give_back(self) -> None:
        """Give back all that are held, as they came; when it returns, the broker has done all that it was told.

        Raises what aiormq raises when the channel is lost before.
        """
        if self._held:
            # One answer for all up to the last; none for nothing, which the broker would take for an error.
            await self._channel.basic_nack(max(self._held), multiple=True, requeue=True)
        # Answered by the broker, which has then read what was said before on this channel.
        await self._owner.close()


@contextlib.asynccontextmanager
async def drawer(connection: AbstractConnection, kind: Kind, service: str) -> AsyncIterator[Drawer]:
    """Open the queue of a service for as long as the context lasts; raises what aiormq raises."""
    channel = await connection.channel(publisher_confirms=False)
    underlay = await channel.get_underlay_channel()
    assert isinstance(underlay, aiormq.Channel)
    declared = await underlay.queue_declare(kind.queue(service), passive=True)
    opened = Drawer(kind, service, channel, underlay, declared.message_count or 0)
    try:
        yield opened
    except BaseException:
        # If the channel was lost with its connection, the broker has given all back.
        with contextlib.suppress(*LOST):
            await opened.give_back()
        raise
    await opened.give_back()


def _properties(told: Any) -> Properties:  # noqa: ANN401 - pamqp's, or our own reader's
    return Properties(
        message_id=told.message_id,
        correlation_id=told.correlation_id,
        content_type=told.content_type,
        content_encoding=told.content_encoding,
        user=told.user_id,
        published_at=at(told.timestamp),
    )
