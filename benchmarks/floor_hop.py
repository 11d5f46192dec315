"""One hop of the floor: takes a message, publishes the next, and acks when that is confirmed. No more.

As fast as aio-pika's parts can do it: everything that was delivered is published at once, all in flight on one
connection; whatever was confirmed together is acked with one frame on the other. Windows that are waited for as a
whole, and acks one by one, were tried: neither is faster. The messages have the size and the properties of ours.

    python -m benchmarks.floor_hop AMQP_URL HOP PREFETCH
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import aio_pika
from aio_pika.abc import AbstractConnection
from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from pamqp import commands as spec

EXCHANGE = "floor.events"
#: What each hop hears and says. The names are as long as ours.
HOPS = (
    ("payment", "payment.pay", "payment.paid"),
    ("reservation", "payment.paid", "reservation.confirmed"),
    ("point", "reservation.confirmed", "point.deducted"),
    ("queue", "point.deducted", "queue.expired"),
    ("notify", "queue.expired", "notification.sent"),
)
_PERSISTENT = 2


def queue_of(hop: str) -> str:
    """The queue that a hop reads."""
    return f"floor.{hop}"


class Hop:
    """One hop: its two channels, and which deliveries may be acked."""

    def __init__(self, name: str, says: str, user: str) -> None:
        self._name = name
        self._says = says
        self._user = user
        self._acked = 0
        self._confirmed = set[int]()
        self._acking = False
        self._consuming: Channel
        self._publishing: Channel
        self._kept: list[object] = []  # aio-pika holds channels weakly

    async def open(self, consuming: AbstractConnection, publishing: AbstractConnection, prefetch: int) -> None:
        """Open a channel to consume and one to publish with confirms, and begin to consume."""
        self._consuming = await self._channel(consuming)
        self._publishing = await self._channel(publishing)
        await self._consuming.basic_qos(prefetch_count=prefetch)
        await self._consuming.basic_consume(queue_of(self._name), self._pass_on)

    async def _channel(self, connection: AbstractConnection) -> Channel:
        channel = connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.initialize()
        self._kept.append(channel)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, Channel)
        return underlay

    async def _pass_on(self, message: DeliveredMessage) -> None:
        """Publish what follows, and ack when that is confirmed; each delivery comes in a task of its own."""
        await self._publish(message, datetime.now(UTC))
        self._confirmed.add(message.delivery_tag or 0)
        if not self._acking:
            self._acking = True
            # Confirms come many at once: let all of them be noted.
            await asyncio.sleep(0)
            self._acking = False
            await self._ack()

    async def _ack(self) -> None:
        """Ack up to the first delivery that is still in hand, with one frame."""
        up_to = self._acked
        while up_to + 1 in self._confirmed:
            up_to += 1
            self._confirmed.remove(up_to)
        if up_to > self._acked:
            self._acked = up_to
            await self._consuming.basic_ack(up_to, multiple=True, wait=False)

    async def _publish(self, message: DeliveredMessage, now: datetime) -> None:
        properties = message.header.properties
        saga = properties.correlation_id or ""
        name = f"{saga:-<36}{self._says}"[:36]
        time = now.isoformat()
        await self._publishing.basic_publish(
            # The next event carries the last one on, and when this step happened.
            message.body[:-1] + b',"' + self._name.encode() + b'_at":"' + time.encode() + b'"}',
            exchange=EXCHANGE,
            routing_key=self._says,
            mandatory=True,
            wait=False,
            properties=spec.Basic.Properties(
                content_type="application/json",
                delivery_mode=_PERSISTENT,
                # aiormq tells the publishes of a channel apart by it.
                message_id=name,
                correlation_id=saga,
                message_type=self._says,
                app_id=self._name,
                user_id=self._user,
                timestamp=now,
                headers={
                    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                    "cloudEvents_specversion": "1.0",
                    "cloudEvents_id": name,
                    "cloudEvents_source": f"/concert-saga/{self._name}",
                    "cloudEvents_type": self._says,
                    "cloudEvents_subject": saga,
                    "cloudEvents_time": time,
                },
            ),
        )


async def _main(url: str, hop: str, prefetch: int) -> None:
    says = next(says for name, _, says in HOPS if name == hop)
    async with await aio_pika.connect(url) as consuming, await aio_pika.connect(url) as publishing:
        works = Hop(hop, says, consuming.url.user or "guest")
        await works.open(consuming, publishing, prefetch)
        leave = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, leave.set)
        sys.stdout.write("taking messages\n")
        sys.stdout.flush()
        await leave.wait()


def main(arguments: Sequence[str]) -> None:
    """Run one hop until it is told to leave."""
    url, hop, prefetch = arguments
    asyncio.run(_main(url, hop, int(prefetch)))


if __name__ == "__main__":
    main(sys.argv[1:])
