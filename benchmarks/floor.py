"""The floor: what five hops over the broker cost by themselves. No database, no checks, nothing undone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import aio_pika

from benchmarks.contender import AmqpFeed, Ground, Guarantees, Letter, Mark, Order
from benchmarks.floor_hop import EXCHANGE, HOPS, queue_of
from benchmarks.orders import command
from benchmarks.programs import Programs


class Floor:
    """Five processes, a quorum queue each, and a chain of persistent, confirmed messages through them."""

    name = "floor"
    title = "floor: five hops, no database"
    guarantees = Guarantees(delivery="at least once", effect="-", undo="-", event="-")
    share = 1.0

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._programs = Programs(ground.folder)

    @property
    def versions(self) -> Mapping[str, str]:
        """What the hops are made of."""
        return {package: version(package) for package in ("aio-pika", "aiormq")}

    def create(self) -> None:
        """Declare the exchange and the five queues."""
        asyncio.run(self._declare())

    async def _declare(self) -> None:
        await self._delete()
        async with await aio_pika.connect(self._ground.amqp_url) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(EXCHANGE, "topic", durable=True)
            for hop, hears, _ in HOPS:
                queue = await channel.declare_queue(
                    queue_of(hop), durable=True, arguments={"x-queue-type": "quorum"}
                )
                await queue.bind(exchange, hears)

    async def _delete(self) -> None:
        async with await aio_pika.connect(self._ground.amqp_url) as connection:
            channel = await connection.channel()
            for hop, _, _ in HOPS:
                await channel.queue_delete(queue_of(hop))
            await channel.exchange_delete(EXCHANGE)

    def start(self) -> None:
        """Start the five hops."""
        for hop, _, _ in HOPS:
            command = ("-m", "benchmarks.floor_hop", self._ground.amqp_url, hop, str(self._ground.prefetch))
            self._programs.start(hop, *command)
        self._programs.say("taking messages")

    def pids(self) -> Mapping[str, int]:
        """The five hops."""
        return self._programs.pids()

    def prepare(self, orders: Sequence[Order]) -> None:
        """Nothing: the floor knows no seats."""

    def feed(self, orders: Sequence[Order]) -> AmqpFeed:
        """The same command as ours gets."""
        return AmqpFeed(
            letters=[
                Letter(
                    exchange=EXCHANGE,
                    routing_key=HOPS[0][1],
                    body=command(order),
                    answer_id=order.payment_id,
                    properties={"content_type": "application/json", "correlation_id": order.payment_id},
                )
                for order in orders
            ],
            pivot=Mark(EXCHANGE, HOPS[-2][2]),
            last=Mark(EXCHANGE, HOPS[-1][2]),
        )

    def settle(self, seconds: float) -> None:
        """Nothing: the last mark is the end."""

    def audit(self, orders: Sequence[Order]) -> list[str]:  # noqa: ARG002 - there are no books to look into
        """Nothing to audit but what the driver counted."""
        return []

    def stop(self) -> None:
        """Stop the hops."""
        self._programs.stop()

    def remove(self) -> None:
        """Delete queues and exchange."""
        asyncio.run(self._delete())
