"""What a peer's contender does with the broker: look whether consumers are there, clean up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import aio_pika
from aio_pika.exceptions import ChannelClosed


def consumed(url: str, queues: Sequence[str]) -> bool:
    """Whether all of these queues are there and have a consumer."""

    async def look() -> bool:
        async with await aio_pika.connect(url) as connection:
            try:
                channel = await connection.channel()
                declared = [await channel.declare_queue(queue, passive=True) for queue in queues]
            except ChannelClosed:
                return False
            return all(queue.declaration_result.consumer_count for queue in declared)

    return asyncio.run(look())


def declare(url: str, queue: str) -> None:
    """Declare a durable classic queue."""

    async def make() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue(queue, durable=True)

    asyncio.run(make())


def remove(url: str, *, queues: Iterable[str] = (), exchanges: Iterable[str] = ()) -> None:
    """Delete queues and exchanges with all that is in them, whether they are there or not."""

    async def delete() -> None:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            for queue in queues:
                await channel.queue_delete(queue)
            for exchange in exchanges:
                await channel.exchange_delete(exchange)

    asyncio.run(delete())
